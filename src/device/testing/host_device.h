// A device that is the host itself and carries orders out at once: for tests of what drives
// devices.
#pragma once

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device/device.h"

namespace kvasir::device::testing {

class HostDevice final : public Device {
 public:
  explicit HostDevice(int64_t memory = int64_t{1} << 30) : free_(memory) {}

  std::string name() const override { return "host"; }
  int64_t free_memory() const override { return free_; }
  StatusOr<DeviceMemory> Allocate(int64_t bytes) override {
    if (bytes > free_) return absl::ResourceExhaustedError("device 'host': is full");
    free_ -= bytes;
    return DeviceMemory(this, static_cast<uint8_t*>(std::calloc(1, bytes)), bytes, false);
  }
  StatusOr<DeviceMemory> AllocateHost(int64_t bytes) override {
    return DeviceMemory(this, static_cast<uint8_t*>(std::calloc(1, bytes)), bytes, true);
  }
  void CopyIn(void* to, const void* host, int64_t bytes) override { Copy(to, host, bytes); }
  void CopyOut(void* host, const void* from, int64_t bytes) override { Copy(host, from, bytes); }
  void CopyWithin(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  Status Synchronize() override { return failure_; }

  StatusOr<std::unique_ptr<Recording>> Record(const std::function<void()>& give) override {
    auto out = std::make_unique<Orders>();
    recording_ = out.get();
    give();
    recording_ = nullptr;
    return out;
  }
  void Replay(const Recording& recording) override {
    ++replays;
    for (const auto& order : static_cast<const Orders&>(recording).orders) order();
  }

  // Carries an order out, or records it.
  void Give(std::function<void()> order) {
    if (recording_ == nullptr) return order();
    recording_->orders.push_back(std::move(order));
  }
  Transfer TransferIn(absl::Span<const Piece> pieces) override {
    for (const Piece& piece : pieces) std::memcpy(piece.to, piece.from, piece.bytes);
    return {};
  }
  Transfer TransferOut(absl::Span<const Piece> pieces) override { return TransferIn(pieces); }
  bool HasEnded(Transfer) override { return true; }
  Status Await(Transfer) override { return failure_; }
  void OrderAfter(Transfer) override {}
  Status failure() const override { return failure_; }

  void Fail(Status failure) { failure_ = std::move(failure); }

  int replays = 0;

 private:
  struct Orders final : Recording {
    std::vector<std::function<void()>> orders;
  };

  void Copy(void* to, const void* from, int64_t bytes) {
    Give([=] { std::memcpy(to, from, bytes); });
  }
  void Free(uint8_t* data, bool) override { std::free(data); }

  int64_t free_;
  Orders* recording_ = nullptr;
  Status failure_;
};

}  // namespace kvasir::device::testing
