// Memory of a device; on the CPU, anonymous pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/status.h"

namespace kvasir::device {

// Owns zero-initialised memory, aligned to a page; transparent huge pages are asked for. Move-only.
class Buffer {
 public:
  Buffer() = default;
  // ResourceExhausted when the system has not that much address space or memory.
  static StatusOr<Buffer> Allocate(size_t size);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  uint8_t* bytes() { return data_; }
  const uint8_t* bytes() const { return data_; }
  size_t size() const { return size_; }

 private:
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kvasir::device
