// A set of workers as a bitset: a view of words that lie elsewhere.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace kvasir::router {

class WorkerSet {
 public:
  // How many words a set of `workers` workers takes.
  static int32_t Words(int32_t workers) { return (workers + 63) / 64; }

  WorkerSet(uint64_t* words, int32_t size) : words_(words), size_(size) {}

  bool Has(int32_t worker) const { return words_[worker / 64] >> (worker % 64) & 1; }
  void Add(int32_t worker) { words_[worker / 64] |= uint64_t{1} << (worker % 64); }
  void Remove(int32_t worker) { words_[worker / 64] &= ~(uint64_t{1} << (worker % 64)); }
  void Clear() { std::fill_n(words_, size_, 0); }
  void Assign(WorkerSet other) { std::copy_n(other.words_, size_, words_); }

  bool empty() const {
    return std::all_of(words_, words_ + size_, [](uint64_t word) { return word == 0; });
  }
  int32_t Count() const {
    int32_t count = 0;
    for (int32_t i = 0; i < size_; ++i) count += std::popcount(words_[i]);
    return count;
  }
  bool HasOnly(int32_t worker) const { return Has(worker) && Count() == 1; }

  // Keeps those that are in `other` too; for each that goes, calls gone(worker).
  template <typename Gone>
  void Intersect(WorkerSet other, const Gone& gone) {
    for (int32_t i = 0; i < size_; ++i) {
      EachBit(i, words_[i] & ~other.words_[i], gone);
      words_[i] &= other.words_[i];
    }
  }
  template <typename Visit>
  void ForEach(const Visit& visit) const {
    for (int32_t i = 0; i < size_; ++i) EachBit(i, words_[i], visit);
  }

  friend bool operator==(WorkerSet a, WorkerSet b) {
    return std::equal(a.words_, a.words_ + a.size_, b.words_);
  }

 private:
  template <typename Visit>
  static void EachBit(int32_t word, uint64_t bits, const Visit& visit) {
    for (; bits != 0; bits &= bits - 1) visit(word * 64 + std::countr_zero(bits));
  }

  uint64_t* words_;  // [size_]
  int32_t size_;
};

}  // namespace kvasir::router
