#include "device/buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace kvasir::device {

StatusOr<Buffer> Buffer::Allocate(size_t size) {
  Buffer out;
  if (size == 0) return out;
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", size >> 20, " MiB: ", std::strerror(errno)));
  }
  ::madvise(data, size, MADV_HUGEPAGE);
  out.data_ = static_cast<uint8_t*>(data);
  out.size_ = size;
  return out;
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace kvasir::device
