// A run of block hashes: a chain without branches, contiguous in memory. It grows and shrinks at
// both ends, and a block keeps its position while that happens: positions are numbers modulo 2^32
// that count up along the chain from wherever the run began.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <memory>

#include "base/hash128.h"

namespace kvasir::router {

using Position = uint32_t;

// One thread at a time.
class BlockRun {
 public:
  explicit BlockRun(Position front = 0) : front_(front) {}

  uint32_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Position front() const { return front_; }
  Position end() const { return front_ + size_; }
  bool Contains(Position position) const { return position - front_ < size_; }

  // REQUIRES: Contains(position).
  const Hash128& operator[](Position position) const {
    return buffer_[first_ + (position - front_)];
  }
  // The `count` blocks from `position` on. REQUIRES: the run has them.
  absl::Span<const Hash128> Part(Position position, uint32_t count) const {
    return {buffer_.get() + first_ + (position - front_), count};
  }
  absl::Span<const Hash128> All() const { return {buffer_.get() + first_, size_}; }

  // How many blocks of `chain` are those of the run from `position` on.
  // REQUIRES: Contains(position).
  uint32_t MatchLength(Position position, absl::Span<const Hash128> chain) const;

  // `hashes` lie outside this run.
  void Append(absl::Span<const Hash128> hashes);
  void Prepend(absl::Span<const Hash128> hashes);

  // REQUIRES: count <= size().
  void DropFront(uint32_t count);
  void DropBack(uint32_t count);

  // Makes room for `count` more blocks at the end.
  void Reserve(uint32_t count);

 private:
  // Moves the run to a buffer of `capacity` blocks, `first` of them free before it.
  void Move(uint32_t capacity, uint32_t first);
  void ShrinkIfSparse();

  std::unique_ptr<Hash128[]> buffer_;  // [capacity_]
  uint32_t capacity_ = 0;
  uint32_t first_ = 0;  // where in the buffer the run begins
  uint32_t size_ = 0;
  Position front_;
};

}  // namespace kvasir::router
