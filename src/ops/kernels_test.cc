#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "base/float16.h"
#include "ops/cpu/dispatch.h"
#include "ops/packing.h"
#include "ops/testing/random_matrix.h"
#include "ops/testing/random_scaled.h"

namespace kvasir::ops {
namespace {

constexpr int64_t kRows = 40;  // two panels and a half
constexpr int64_t kCols = 512;

std::vector<float> RandomActivations(int64_t rows, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> out(rows * kCols);
  for (float& x : out) x = normal(random);
  std::fill_n(out.begin() + 64, 32, 0.0f);  // a group of zeros
  return out;
}

std::vector<float> Product(const CpuKernels& kernels, const PackedMatrix& matrix,
                           const std::vector<float>& x, int64_t begin, int64_t end) {
  const int64_t rows = static_cast<int64_t>(x.size()) / kCols;
  std::vector<uint8_t> memory(QuantizedRows::Bytes(rows, kCols) + 64);
  MatmulArgs args;
  args.weights = matrix.view;
  args.panel_end = matrix.view.panels;
  args.row_begin = begin;
  args.row_end = end;
  args.floats = x.data();
  args.quantized = QuantizedRows::At(memory.data(), rows, kCols);
  std::vector<uint16_t> bf16(x.size());
  args.bf16 = bf16.data();
  for (int64_t r = 0; r < rows; ++r) {
    kernels.quantize(x.data() + r * kCols, r, args.quantized);
    kernels.round_bf16(x.data() + r * kCols, kCols, bf16.data() + r * kCols);
  }
  std::vector<float> out(rows * kRows, 0.0f);
  args.out = out.data();
  args.out_stride = kRows;
  kernels.matmul(args);
  return out;
}

// Any part of nine rows gives the bits that all nine give.
void ExpectRowsAreAlone(const CpuKernels& kernels, const PackedMatrix& matrix,
                        const std::vector<float>& x) {
  const std::vector<float> whole = Product(kernels, matrix, x, 0, 9);
  for (int64_t begin = 0; begin < 9; ++begin) {
    for (int64_t end = begin + 1; end <= 9; ++end) {
      const std::vector<float> part = Product(kernels, matrix, x, begin, end);
      EXPECT_EQ(std::memcmp(&part[begin * kRows], &whole[begin * kRows], (end - begin) * kRows * 4),
                0);
    }
  }
}

// The families that this machine runs besides the scalar one.
std::vector<const CpuKernels*> OtherFamilies() {
  std::vector<const CpuKernels*> out;
  for (const char* isa : {"avx2", "avx512", "avx512_bf16"}) {
    const auto kernels = SelectKernels(isa);
    if (kernels.ok()) out.push_back(*kernels);
  }
  return out;
}

// A stored matrix to multiply by: of a type that is by itself, or with scales of its own.
struct Stored {
  const char* name;
  DType dtype;
  std::optional<ScaledShape> scaled;
};

class MatmulTest : public testing::TestWithParam<Stored> {
 protected:
  MatmulTest() : random_(7), pool_(1) {
    if (GetParam().scaled) {
      scaled_ = std::make_unique<RandomScaled>(*GetParam().scaled, kRows, kCols, random_);
      source_ = scaled_->source();
    } else {
      stored_ = RandomMatrix(GetParam().dtype, kRows, kCols, random_);
      source_ = {GetParam().dtype, kRows, kCols, stored_.data()};
    }
    matrix_ = Pack({&source_, 1}, StoredLayout(source_), pool_).value();
  }

  // The column of the matrix that is column i of the panels.
  int64_t ColumnAt(int64_t i) const {
    const bool ordered = source_.scaled != nullptr && !source_.scaled->order.empty();
    return ordered ? source_.scaled->order[i] : i;
  }
  // Rows of activations in the order that the panels' columns have.
  std::vector<float> Ordered(const std::vector<float>& x) const {
    std::vector<float> out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = x[i / kCols * kCols + ColumnAt(i % kCols)];
    return out;
  }

  std::mt19937 random_;
  std::vector<uint8_t> stored_;
  std::unique_ptr<RandomScaled> scaled_;
  MatrixSource source_;
  ThreadPool pool_;
  PackedMatrix matrix_;
};

// Weights are exact; the activations' rounding to int8 is the only error.
TEST_P(MatmulTest, StaysCloseToTheExpandedWeights) {
  const std::vector<float> x = RandomActivations(5, random_);
  const std::vector<float> got = Product(*ScalarKernels(), matrix_, Ordered(x), 0, 5);
  const bool rounds = IsQuantized(matrix_.view.format);
  std::vector<float> w(kCols);
  for (int64_t n = 0; n < kRows; ++n) {
    LoadRow(source_, n, w.data());
    for (int64_t m = 0; m < 5; ++m) {
      double want = 0, norm = 0;
      for (int64_t k = 0; k < kCols; ++k) {
        want += double{w[k]} * x[m * kCols + k];
        norm += double{w[k]} * w[k];
      }
      // Each activation is off by at most half a step of about 3 / 127.
      const double error = rounds ? 5 * 0.5 * 3.5 / 127 * std::sqrt(norm) : 1e-5 * std::sqrt(norm);
      EXPECT_NEAR(got[m * kRows + n], want, error + 1e-5);
    }
  }
}

// The integers of activations that need no rounding give products that only float sums round.
TEST_P(MatmulTest, WeightsAreExact) {
  std::vector<float> ordered(kCols), x(kCols);
  for (int64_t i = 0; i < kCols; ++i) {
    ordered[i] = i % 32 == 0 ? 127.0f : static_cast<float>(static_cast<int>(random_() % 255) - 127);
    x[ColumnAt(i)] = ordered[i];
  }
  const std::vector<float> got = Product(*ScalarKernels(), matrix_, ordered, 0, 1);
  std::vector<float> w(kCols);
  for (int64_t n = 0; n < kRows; ++n) {
    LoadRow(source_, n, w.data());
    double want = 0, size = 0;
    for (int64_t k = 0; k < kCols; ++k) {
      want += double{w[k]} * x[k];
      size += std::abs(double{w[k]} * x[k]);
    }
    EXPECT_NEAR(got[n], want, 1e-5 * size);
  }
}

TEST_P(MatmulTest, EveryFamilyGivesTheSameBits) {
  const std::vector<float> x = RandomActivations(9, random_);
  const std::vector<float> want = Product(*ScalarKernels(), matrix_, x, 0, 9);
  for (const CpuKernels* kernels : OtherFamilies()) {
    const std::vector<float> got = Product(*kernels, matrix_, x, 0, 9);
    EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * 4), 0) << kernels->name;
  }
}

TEST_P(MatmulTest, ARowDoesNotDependOnTheOthers) {
  ExpectRowsAreAlone(**SelectKernels("auto"), matrix_, RandomActivations(9, random_));
}

std::vector<Stored> StoredTypes() {
  std::vector<Stored> out;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBf16, DType::kQ4_0, DType::kQ4_1,
                            DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ4_K, DType::kQ5_K,
                            DType::kQ6_K, DType::kIq4Nl, DType::kMxfp4}) {
    out.push_back({Info(dtype).name, dtype, std::nullopt});
  }
  const auto add = [&](const char* name, const ScaledShape& shape) {
    out.push_back({name, shape.dtype, shape});
  };
  add("INT4_of_128", {.dtype = DType::kInt4});
  add("INT4_of_32", {.dtype = DType::kInt4, .group = 32});
  add("INT4_of_a_row", {.dtype = DType::kInt4, .group = kCols});
  add("INT4_zero_of_128", {.dtype = DType::kInt4, .has_zero = true});
  add("INT4_zero_of_64", {.dtype = DType::kInt4, .group = 64, .has_zero = true});
  add("INT4_zero_shuffled", {.dtype = DType::kInt4, .has_zero = true, .shuffled = true});
  add("INT8_of_a_row", {.dtype = DType::kInt8, .group = kCols});
  add("INT8_of_128", {.dtype = DType::kInt8});
  add("INT8_zero_of_32", {.dtype = DType::kInt8, .group = 32, .has_zero = true});
  add("INT8_zero_of_a_row", {.dtype = DType::kInt8, .group = kCols, .has_zero = true});
  add("MXFP4_in_tensors", {.dtype = DType::kMxfp4, .group = 32});
  add("F8_of_a_row", {.dtype = DType::kF8E4M3, .group = kCols});
  add("F8_of_a_block", {.dtype = DType::kF8E4M3, .group = 128, .group_rows = 128});
  return out;
}

INSTANTIATE_TEST_SUITE_P(Formats, MatmulTest, testing::ValuesIn(StoredTypes()),
                         [](const auto& info) { return std::string(info.param.name); });

// BF16 weights and activations multiplied in pairs, which only some families can.
class Bf16PairsTest : public testing::Test {
 protected:
  Bf16PairsTest() : stored_(RandomMatrix(DType::kBf16, kRows, kCols, random_)) {}

  PackedMatrix Packed(PanelFormat format) {
    const MatrixSource source{DType::kBf16, kRows, kCols, stored_.data()};
    return Pack({&source, 1}, format, pool_).value();
  }

  // The one family that has them, or null.
  static const CpuKernels* Kernels() {
    for (const CpuKernels* kernels : OtherFamilies()) {
      if (kernels->bf16_pairs) return kernels;
    }
    return nullptr;
  }

  std::mt19937 random_{7};
  std::vector<uint8_t> stored_;
  ThreadPool pool_{1};
};

TEST_F(Bf16PairsTest, HoldsTheColumnsOfARowInPairs) {
  const PackedMatrix matrix = Packed(PanelFormat::kBf16Pairs);
  for (const int64_t row : {0, 15, 16, 39}) {
    for (const int64_t column : {0, 1, 30, 511}) {
      const uint8_t* at = matrix.view.panel(row / kPanelRows) +
                          2 * ((column / 2 * kPanelRows + row % kPanelRows) * 2 + column % 2);
      EXPECT_EQ(std::memcmp(at, &stored_[2 * (row * kCols + column)], 2), 0);
    }
  }
}

// The instruction rounds in its own way: close to products in float, not the same bits.
TEST_F(Bf16PairsTest, StaysCloseToTheProductsInFloat) {
  const CpuKernels* kernels = Kernels();
  if (kernels == nullptr) GTEST_SKIP() << "no family of this machine has products of pairs";
  std::vector<float> x = RandomActivations(9, random_);
  const auto got = Product(*kernels, Packed(PanelFormat::kBf16Pairs), x, 0, 9);
  for (float& value : x) value = ToFloat(ToBf16(value));
  const auto want = Product(*ScalarKernels(), Packed(PanelFormat::kBf16), x, 0, 9);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-5);
}

TEST_F(Bf16PairsTest, ARowDoesNotDependOnTheOthers) {
  const CpuKernels* kernels = Kernels();
  if (kernels == nullptr) GTEST_SKIP() << "no family of this machine has products of pairs";
  ExpectRowsAreAlone(*kernels, Packed(PanelFormat::kBf16Pairs), RandomActivations(9, random_));
}

TEST(RowKernelsTest, EveryFamilyRoundsToTheSameBf16) {
  std::mt19937 random(7);
  std::vector<float> x = RandomActivations(1, random);
  x[0] = INFINITY;
  x[1] = NAN;
  x[2] = 1e-40f;          // subnormal
  x[3] = 1.0f + 0x1p-8f;  // a tie: to even, down
  x[4] = 1.0f + 0x3p-8f;  // a tie: to even, up
  x[5] = 3.4028235e+38f;  // rounds to infinity
  std::vector<uint16_t> want(kCols);
  ScalarKernels()->round_bf16(x.data(), kCols, want.data());
  EXPECT_THAT(std::vector<uint16_t>(want.begin() + 3, want.begin() + 6),
              testing::ElementsAre(0x3f80, 0x3f82, 0x7f80));
  for (const CpuKernels* kernels : OtherFamilies()) {
    std::vector<uint16_t> got(kCols);
    kernels->round_bf16(x.data(), kCols, got.data());
    EXPECT_EQ(got, want) << kernels->name;
  }
}

TEST(DispatchTest, NamesWhatItDoesNotKnow) {
  EXPECT_THAT(std::string(SelectKernels("neon").status().message()), testing::HasSubstr("neon"));
}

}  // namespace
}  // namespace kvasir::ops
