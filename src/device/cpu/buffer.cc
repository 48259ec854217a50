#include "device/buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace kvasir::device {
namespace {

#ifdef KVASIR_SANITIZED
// A sanitizer sees what runs over the end of its own heap only.
void* Map(size_t size) {
  void* data = std::aligned_alloc(4096, (size + 4095) / 4096 * 4096);
  if (data != nullptr) std::memset(data, 0, size);
  return data;
}
void Unmap(void* data, size_t) { std::free(data); }
#else
void* Map(size_t size) {
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  ::madvise(data, size, MADV_HUGEPAGE);
  return data;
}
void Unmap(void* data, size_t size) { ::munmap(data, size); }
#endif

}  // namespace

StatusOr<Buffer> Buffer::Allocate(size_t size) {
  Buffer out;
  if (size == 0) return out;
  void* data = Map(size);
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", size >> 20, " MiB: ", std::strerror(errno)));
  }
  out.data_ = static_cast<uint8_t*>(data);
  out.size_ = size;
  return out;
}

Buffer::~Buffer() {
  if (data_ != nullptr) Unmap(data_, size_);
}

}  // namespace kvasir::device
