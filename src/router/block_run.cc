#include "router/block_run.h"

#include <algorithm>

namespace kvasir::router {
namespace {

// Runs grow by a quarter: most are stored whole, so slack is rarely used.
uint32_t Grown(uint32_t size) { return size + size / 4; }

}  // namespace

uint32_t BlockRun::MatchLength(Position position, absl::Span<const Hash128> chain) const {
  const uint32_t most = std::min<size_t>(end() - position, chain.size());
  const Hash128* run = &(*this)[position];
  uint32_t length = 0;
  while (length < most && run[length] == chain[length]) ++length;
  return length;
}

void BlockRun::Append(absl::Span<const Hash128> hashes) {
  const auto count = static_cast<uint32_t>(hashes.size());
  Reserve(count);
  std::copy(hashes.begin(), hashes.end(), buffer_.get() + first_ + size_);
  size_ += count;
}

void BlockRun::Prepend(absl::Span<const Hash128> hashes) {
  const auto count = static_cast<uint32_t>(hashes.size());
  if (count > first_) {
    const uint32_t capacity = Grown(size_ + count);
    Move(capacity, capacity - size_);
  }
  first_ -= count;
  front_ -= count;
  size_ += count;
  std::copy(hashes.begin(), hashes.end(), buffer_.get() + first_);
}

void BlockRun::DropFront(uint32_t count) {
  first_ += count;
  front_ += count;
  size_ -= count;
  ShrinkIfSparse();
}

void BlockRun::DropBack(uint32_t count) {
  size_ -= count;
  ShrinkIfSparse();
}

void BlockRun::Reserve(uint32_t count) {
  if (first_ + size_ + count <= capacity_) return;
  Move(size_ == 0 ? count : Grown(size_ + count), 0);
}

void BlockRun::Move(uint32_t capacity, uint32_t first) {
  auto buffer = std::make_unique_for_overwrite<Hash128[]>(capacity);
  std::copy_n(buffer_.get() + first_, size_, buffer.get() + first);
  buffer_ = std::move(buffer);
  capacity_ = capacity;
  first_ = first;
}

void BlockRun::ShrinkIfSparse() {
  if (size_ < capacity_ / 2) Move(size_, 0);
}

}  // namespace kvasir::router
