// A whole file mapped read-only into memory.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"

namespace kvasir {

// Immutable and thread-safe.
class MappedFile {
 public:
  // The error names the path and what is wrong with it.
  static StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, const uint8_t* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const uint8_t* data_;
  size_t size_;
};

}  // namespace kvasir
