#include "cli/worker_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/log.h"

extern char** environ;

namespace kvasir::cli {
namespace {

constexpr std::chrono::milliseconds kFirstRestart{100};
constexpr std::chrono::seconds kLastRestart{5};
constexpr std::chrono::seconds kSettled{10};  // one that ran so long is started again at once
constexpr std::chrono::seconds kStopPatience{5};

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

// Signals as a program expects them, in a process group of its own: what a terminal sends to this
// process is not the child's.
class SpawnAttributes {
 public:
  SpawnAttributes() {
    posix_spawnattr_init(&attributes_);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  }
  ~SpawnAttributes() { posix_spawnattr_destroy(&attributes_); }
  const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_;
};

}  // namespace

WorkerProcess::WorkerProcess(std::string model, std::vector<std::string> options)
    : model_(std::move(model)), options_(std::move(options)), thread_([this] { Run(); }) {}

WorkerProcess::~WorkerProcess() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    if (child_ != 0) kill(child_, SIGTERM);
    changed_.notify_all();
    const auto deadline = std::chrono::steady_clock::now() + kStopPatience;
    while (child_ != 0 && std::chrono::steady_clock::now() < deadline) {
      changed_.wait_until(mutex_, deadline);
    }
    if (child_ != 0) kill(child_, SIGKILL);
  }
  thread_.join();
}

StatusOr<std::string> WorkerProcess::AwaitAddress(Duration patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  MutexLock lock(mutex_);
  while (address_.empty() && !first_ended_ && std::chrono::steady_clock::now() < deadline) {
    changed_.wait_until(mutex_, deadline);
  }
  if (!address_.empty()) return address_;
  return absl::UnavailableError(first_ended_ ? "a worker ended before it listened (see above)"
                                             : "a worker does not listen in time");
}

void WorkerProcess::Run() {
  Duration wait = kFirstRestart;
  while (true) {
    const auto begin = std::chrono::steady_clock::now();
    int output = -1;
    const Status spawned = Spawn(&output);
    if (spawned.ok()) {
      ReadAddress(output);
      AwaitChild();
    } else {
      spdlog::error("{}", std::string(spawned.message()));
    }
    const auto now = std::chrono::steady_clock::now();
    wait = now - begin > kSettled ? Duration(kFirstRestart)
                                  : std::min<Duration>(2 * wait, kLastRestart);
    MutexLock lock(mutex_);
    first_ended_ = address_.empty();
    changed_.notify_all();
    if (first_ended_) return;
    while (!stopping_ && std::chrono::steady_clock::now() < now + wait) {
      changed_.wait_until(mutex_, now + wait);
    }
    if (stopping_) return;
  }
}

Status WorkerProcess::Spawn(int* output) {
  int pipe[2];
  if (pipe2(pipe, O_CLOEXEC) != 0) {
    return absl::InternalError(fmt::format("a pipe to a worker: {}", std::strerror(errno)));
  }
  MutexLock lock(mutex_);
  std::vector<std::string> words = {"kvasir", "worker", model_, "--listen",
                                    address_.empty() ? "127.0.0.1:0" : address_};
  words.insert(words.end(), options_.begin(), options_.end());
  std::vector<std::string> environment;
  const std::string parent = fmt::format("{}=", kParentVariable);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with(parent)) environment.emplace_back(*entry);
  }
  environment.push_back(fmt::format("{}{}", parent, getpid()));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
  const SpawnAttributes attributes;
  pid_t child = 0;
  const int error = stopping_ ? ECANCELED
                              : posix_spawn(&child, "/proc/self/exe", &actions, attributes.get(),
                                            Pointers(words).data(), Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  close(pipe[1]);
  if (error != 0) {
    close(pipe[0]);
    return absl::InternalError(fmt::format("a worker cannot be started: {}", std::strerror(error)));
  }
  child_ = child;
  if (started_++ > 0) spdlog::warn("worker {} is started again", address_);
  *output = pipe[0];
  return absl::OkStatus();
}

// The address is the last word of the line that a worker prints once it listens. All that it prints
// is read, so that it never writes to nobody.
void WorkerProcess::ReadAddress(int output) {
  FILE* const lines = fdopen(output, "r");
  char line[512];
  while (std::fgets(line, sizeof(line), lines) != nullptr) {
    std::string text(line);
    if (!text.starts_with("Kvasir worker serves ")) continue;
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    MutexLock lock(mutex_);
    address_ = text.substr(text.rfind(' ') + 1);
    changed_.notify_all();
  }
  std::fclose(lines);
}

void WorkerProcess::AwaitChild() {
  pid_t child = 0;
  {
    MutexLock lock(mutex_);
    child = child_;
  }
  // Left as it is until child_ is 0: no other process can have its id.
  siginfo_t info{};
  while (waitid(P_PID, child, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  MutexLock lock(mutex_);
  int status = 0;
  waitpid(child, &status, 0);
  child_ = 0;
  if (!stopping_) {
    spdlog::error("worker {} ended {} {}", address_,
                  WIFSIGNALED(status) ? "by signal" : "with code",
                  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  }
  changed_.notify_all();
}

}  // namespace kvasir::cli
