// A file that lines are appended to without ever waiting for its disk or its reader.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/mutex.h"
#include "base/status.h"

namespace kvasir::api {

// Thread-safe. A thread of its own writes; what it cannot keep up with is dropped.
class LineFile {
 public:
  struct Options {
    std::string path;            // "-": standard output
    size_t max_bytes = 4 << 20;  // that wait to be written
    // Called with the number of lines that were lost, from any thread.
    std::function<void(int64_t)> on_drop = [](int64_t) {};
  };

  // Opens the file for appending, and makes it where it is missing.
  static StatusOr<std::unique_ptr<LineFile>> Open(Options options);

  // Writes what still waits, as far as it is taken within a second.
  ~LineFile();
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;

  // `line` without its end.
  void Write(std::string_view line);

  // Lines written from now on go to the file that `path` then names: for log rotation.
  void Reopen();

 private:
  class Sink;

  LineFile(Options options, std::unique_ptr<Sink> sink);
  void Loop();
  void WriteAll(std::string_view text);
  std::string_view WriteUntilFault(std::string_view text);  // returns what was not written
  bool stopping();

  const Options options_;
  const std::unique_ptr<Sink> sink_;  // of the thread alone, as is torn_
  bool torn_ = false;                 // the last line was written in part
  Mutex mutex_;
  CondVar wake_;
  std::string waiting_ GUARDED_BY(mutex_);
  bool reopen_ GUARDED_BY(mutex_) = false;
  bool stop_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvasir::api
