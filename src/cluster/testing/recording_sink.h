// A KvEventSink for tests: keeps what came, and the blocks that it describes.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "cluster/kv_event_subscriber.h"

namespace kvasir::cluster {

class RecordingSink final : public KvEventSink {
 public:
  void OnBatch(const KvEventBatch& batch) override {
    Note([&] {
      Apply(batch);
      log_.push_back(batch.events.empty() ? "empty" : Name(batch.events.front()));
    });
  }
  void OnGap() override {
    Note([&] { log_.push_back("gap"); });
    if (on_gap) on_gap();
  }
  void OnSnapshot(const StatusOr<KvEventBatch>& snapshot) override {
    Note([&] {
      if (snapshot.ok()) Apply(*snapshot);
      log_.push_back(snapshot.ok() ? "snapshot"
                                   : absl::StatusCodeToString(snapshot.status().code()));
    });
  }

  // Waits up to 10 s until the calls so far are `wanted`, and returns them. A batch is called by
  // its first event: "+" with the first hash, "-" with the first hash, "clear".
  std::vector<std::string> Await(const std::vector<std::string>& wanted) {
    AwaitThat([&] { return log_ == wanted; });
    MutexLock lock(mutex_);
    return log_;
  }

  // Whether `done` holds in time; it is called under the sink's lock.
  bool AwaitThat(const std::function<bool()>& done, Duration most = std::chrono::seconds(10)) {
    const auto deadline = std::chrono::steady_clock::now() + most;
    MutexLock lock(mutex_);
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      changed_.wait_until(mutex_, deadline);
    }
    return done();
  }

  // Parents by block, as the batches and snapshots so far tell it. Under the lock only.
  using Blocks = std::map<uint64_t, std::optional<uint64_t>>;
  const Blocks& blocks() const { return blocks_; }

  std::function<void()> on_gap;  // set before the subscriber starts

 private:
  static std::string Name(const KvEvent& event) {
    if (const auto* stored = std::get_if<StoredEvent>(&event)) {
      return absl::StrCat("+", stored->hashes[0].Low64());
    }
    if (const auto* removed = std::get_if<RemovedEvent>(&event)) {
      return absl::StrCat("-", removed->hashes[0].Low64());
    }
    return "clear";
  }

  void Note(const std::function<void()>& change) {
    {
      MutexLock lock(mutex_);
      change();
    }
    changed_.notify_all();
  }

  void Apply(const KvEventBatch& batch) {
    for (const KvEvent& event : batch.events) {
      if (const auto* stored = std::get_if<StoredEvent>(&event)) {
        std::optional<uint64_t> parent;
        if (stored->parent) parent = stored->parent->Low64();
        for (const ExternalHash& hash : stored->hashes) {
          blocks_[hash.Low64()] = parent;
          parent = hash.Low64();
        }
      } else if (const auto* removed = std::get_if<RemovedEvent>(&event)) {
        for (const ExternalHash& hash : removed->hashes) blocks_.erase(hash.Low64());
      } else {
        blocks_.clear();
      }
    }
  }

  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> log_;
  Blocks blocks_;
};

}  // namespace kvasir::cluster
