#include "api/http/line_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/log.h"

namespace kvasir::api {
namespace {

constexpr int kPollMilliseconds = 100;
constexpr Duration kLastWrites = std::chrono::seconds(1);

// A reader of our standard output that leaves must be an error of write(), not the end.
void BlockPipeSignal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

}  // namespace

class LineFile::Sink {
 public:
  explicit Sink(std::string path) : path_(std::move(path)) {}
  ~Sink() { Close(); }

  // On an error the file that was open stays so.
  Status Open() {
    if (path_ == "-") return absl::OkStatus();
    // O_NONBLOCK: a named pipe must not keep us waiting for its reader.
    const int fd =
        ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0640);
    if (fd < 0) {
      return absl::UnavailableError(fmt::format("cannot open {}: {}", path_, std::strerror(errno)));
    }
    Close();
    fd_ = fd;
    return absl::OkStatus();
  }

  // Writes some of `text` once there is room for it: the number of bytes, 0 if none came in time,
  // -1 on an error. Pieces of PIPE_BUF never block after poll() has said that there is room.
  ssize_t WriteSome(std::string_view text) {
    pollfd poll{.fd = fd_, .events = POLLOUT};
    if (::poll(&poll, 1, kPollMilliseconds) <= 0) return 0;
    const ssize_t n = ::write(fd_, text.data(), std::min<size_t>(text.size(), PIPE_BUF));
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return 0;
    ReportChange(n < 0);
    return n;
  }

 private:
  void Close() {
    if (fd_ != STDOUT_FILENO) ::close(fd_);
  }

  void ReportChange(bool failed) {
    if (failed == std::exchange(failed_, failed)) return;
    if (failed) spdlog::warn("{}: {}; lines are lost", path_, std::strerror(errno));
    if (!failed) spdlog::info("{}: takes lines again", path_);
  }

  const std::string path_;
  int fd_ = STDOUT_FILENO;
  bool failed_ = false;
};

StatusOr<std::unique_ptr<LineFile>> LineFile::Open(Options options) {
  auto sink = std::make_unique<Sink>(options.path);
  KVASIR_RETURN_IF_ERROR(sink->Open());
  return std::unique_ptr<LineFile>(new LineFile(std::move(options), std::move(sink)));
}

LineFile::LineFile(Options options, std::unique_ptr<Sink> sink)
    : options_(std::move(options)), sink_(std::move(sink)), thread_([this] { Loop(); }) {}

LineFile::~LineFile() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void LineFile::Write(std::string_view line) {
  {
    MutexLock lock(mutex_);
    if (waiting_.size() + line.size() < options_.max_bytes) {
      waiting_ += line;
      waiting_ += '\n';
      wake_.notify_one();
      return;
    }
  }
  options_.on_drop(1);
}

void LineFile::Reopen() {
  {
    MutexLock lock(mutex_);
    reopen_ = true;
  }
  wake_.notify_one();
}

bool LineFile::stopping() {
  MutexLock lock(mutex_);
  return stop_;
}

void LineFile::Loop() {
  BlockPipeSignal();
  for (;;) {
    std::string text;
    bool reopen = false;
    {
      MutexLock lock(mutex_);
      while (waiting_.empty() && !reopen_ && !stop_) wake_.wait(mutex_);
      if (waiting_.empty() && !reopen_) return;
      text.swap(waiting_);
      reopen = std::exchange(reopen_, false);
    }
    if (reopen) {
      const Status opened = sink_->Open();
      if (!opened.ok()) spdlog::error("{}; the old file stays", std::string(opened.message()));
    }
    WriteAll(text);
  }
}

void LineFile::WriteAll(std::string_view text) {
  // What follows half a line begins one of its own.
  if (torn_) torn_ = !WriteUntilFault("\n").empty();
  const std::string_view rest = torn_ ? text : WriteUntilFault(text);
  if (rest.empty()) return;
  const size_t written = text.size() - rest.size();
  if (written > 0) torn_ = text[written - 1] != '\n';
  options_.on_drop(std::count(rest.begin(), rest.end(), '\n'));
}

std::string_view LineFile::WriteUntilFault(std::string_view text) {
  TimePoint give_up = TimePoint::max();
  while (!text.empty()) {
    const ssize_t n = sink_->WriteSome(text);
    if (n < 0) break;
    text.remove_prefix(static_cast<size_t>(n));
    if (n > 0 || !stopping()) continue;
    const TimePoint now = SteadyClock().Now();
    give_up = std::min(give_up, now + kLastWrites);
    if (now >= give_up) break;
  }
  return text;
}

}  // namespace kvasir::api
