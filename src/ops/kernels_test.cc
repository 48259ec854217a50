#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/float16.h"
#include "ops/cpu/dispatch.h"
#include "ops/packing.h"
#include "ops/testing/random_matrix.h"

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

class MatmulTest : public testing::TestWithParam<DType> {
 protected:
  MatmulTest() : random_(7), stored_(RandomMatrix(GetParam(), kRows, kCols, random_)), pool_(1) {
    const MatrixSource source{GetParam(), kRows, kCols, stored_.data()};
    matrix_ = Pack({&source, 1}, PanelFormatOf(GetParam()), pool_).value();
  }

  std::mt19937 random_;
  std::vector<uint8_t> stored_;
  ThreadPool pool_;
  PackedMatrix matrix_;
};

// Weights are exact; the activations' rounding to int8 is the only error.
TEST_P(MatmulTest, StaysCloseToTheExpandedWeights) {
  const std::vector<float> x = RandomActivations(5, random_);
  const std::vector<float> got = Product(*ScalarKernels(), matrix_, x, 0, 5);
  const DTypeInfo info = Info(GetParam());
  std::vector<float> w(kCols);
  for (int64_t n = 0; n < kRows; ++n) {
    DequantizeRow(GetParam(), stored_.data() + n * kCols / info.block_elements * info.block_bytes,
                  kCols, w.data());
    for (int64_t m = 0; m < 5; ++m) {
      double want = 0, norm = 0;
      for (int64_t k = 0; k < kCols; ++k) {
        want += double{w[k]} * x[m * kCols + k];
        norm += double{w[k]} * w[k];
      }
      // Each activation is off by at most half a step of about 3 / 127.
      EXPECT_NEAR(got[m * kRows + n], want, 5 * 0.5 * 3.5 / 127 * std::sqrt(norm) + 1e-5);
    }
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

INSTANTIATE_TEST_SUITE_P(Formats, MatmulTest,
                         testing::Values(DType::kF32, DType::kF16, DType::kBf16, DType::kQ4_0,
                                         DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K),
                         [](const auto& info) { return Info(info.param).name; });

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
