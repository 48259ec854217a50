// A device with memory of its own that carries out orders one after the other, in the order they
// were given, while the caller goes on. Nothing above device/ and ops/ knows which one it is.
//
// Orders return at once and have no result: the first error of any is kept, and every Synchronize
// and Await from then on returns it. One thread at a time.
#pragma once

#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/status.h"

namespace kvasir::device {

class Device;

// Owns memory that a Device allocated and that must not outlive it. Move-only.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(Device* device, uint8_t* data, int64_t size, bool host)
      : device_(device), data_(data), size_(size), host_(host) {}
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceMemory();

  uint8_t* bytes() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  int64_t size() const { return size_; }

 private:
  void swap(DeviceMemory& other) {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(host_, other.host_);
  }

  Device* device_ = nullptr;
  uint8_t* data_ = nullptr;
  int64_t size_ = 0;
  bool host_ = false;
};

// Bytes to be copied.
struct Piece {
  void* to = nullptr;
  const void* from = nullptr;
  int64_t bytes = 0;
};

// Copies that go on beside the orders.
struct Transfer {
  bool in = false;  // to the device
  int64_t number = 0;
};

// Orders that were recorded and can be carried out again, with what then lies in memory.
class Recording {
 public:
  virtual ~Recording() = default;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;  // for people
  virtual int64_t free_memory() const = 0;

  // Zeroed. ResourceExhausted when there is not that much.
  virtual StatusOr<DeviceMemory> Allocate(int64_t bytes) = 0;
  // Memory of the host that copies are quick from and to.
  virtual StatusOr<DeviceMemory> AllocateHost(int64_t bytes) = 0;

  // Orders. Host memory must stay as it is until the next Synchronize.
  virtual void CopyIn(void* to, const void* host, int64_t bytes) = 0;
  virtual void CopyOut(void* host, const void* from, int64_t bytes) = 0;
  virtual void CopyWithin(void* to, const void* from, int64_t bytes) = 0;

  // Waits for all orders, but for no transfer.
  virtual Status Synchronize() = 0;

  // Copies from and to memory of AllocateHost that go on beside later orders, and the two
  // directions beside each other. A transfer begins when the orders given before it have been
  // carried out, and has ended when its last piece has; its memory must stay as it is until then.
  virtual Transfer TransferIn(absl::Span<const Piece> pieces) = 0;
  virtual Transfer TransferOut(absl::Span<const Piece> pieces) = 0;
  // Whether it has ended; returns at once.
  virtual bool HasEnded(Transfer transfer) = 0;
  // Waits for its end.
  virtual Status Await(Transfer transfer) = 0;
  // The orders given from now on begin when it has ended; the caller goes on.
  virtual void OrderAfter(Transfer transfer) = 0;

  // The first error of any order or transfer.
  virtual Status failure() const = 0;

  // Records the orders that `give` gives instead of carrying them out. Copies from and to the host
  // must not be among them.
  virtual StatusOr<std::unique_ptr<Recording>> Record(const std::function<void()>& give) = 0;
  virtual void Replay(const Recording& recording) = 0;

 private:
  friend class DeviceMemory;
  virtual void Free(uint8_t* data, bool host) = 0;
};

inline DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) device_->Free(data_, host_);
}

}  // namespace kvasir::device
