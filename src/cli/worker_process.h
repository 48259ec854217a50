// A `kvasir worker` as a child of this process, started again whenever it ends.
#pragma once

#include <sys/types.h>

#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"

namespace kvasir::cli {

// Set in the environment of a worker whose parent it must not outlive: the parent's process id.
inline constexpr const char* kParentVariable = "KVASIR_PARENT";

// Thread-safe. The destructor lets the child end what it does (SIGTERM), then kills it.
class WorkerProcess {
 public:
  WorkerProcess(std::string model, std::vector<std::string> options);
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  // HOST:PORT, which stays the same when the child is started again. Unavailable when the first
  // child ended before it listened, or does not listen in time.
  StatusOr<std::string> AwaitAddress(Duration patience);

 private:
  void Run();
  void AwaitChild();
  Status Spawn(int* output);
  void ReadAddress(int output);

  const std::string model_;
  const std::vector<std::string> options_;

  Mutex mutex_;
  CondVar changed_;
  pid_t child_ GUARDED_BY(mutex_) = 0;  // 0: none runs
  int32_t started_ GUARDED_BY(mutex_) = 0;
  bool first_ended_ GUARDED_BY(mutex_) = false;  // before it listened
  std::string address_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace kvasir::cli
