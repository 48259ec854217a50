#include "ops/scaled_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/float8.h"
#include "ops/packing.h"
#include "ops/testing/random_scaled.h"

namespace kvasir::ops {
namespace {

constexpr int64_t kRows = 24, kCols = 64;

// Integers by row and column, and how a checkpoint packs them.
class PackedIntegersTest : public testing::Test {
 protected:
  PackedIntegersTest() : values_(kRows * kCols) {
    for (uint8_t& v : values_) v = static_cast<uint8_t>(random_());
  }

  // Puts the item of each word's place into 32-bit words.
  void Expect(PackedIntegers packed, int64_t words, const std::vector<int>& places) {
    const int64_t per_word = 32 / packed.bits;
    std::vector<uint32_t> data(words, 0);
    const uint32_t mask = (1u << packed.bits) - 1;
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kCols; ++c) {
        const int64_t along = packed.down_rows ? r : c, other = packed.down_rows ? c : r;
        const int64_t word = along / per_word * packed.word_stride + other * packed.other_stride;
        data[word] |= (values_[r * kCols + c] & mask) << (packed.bits * places[along % per_word]);
      }
    }
    packed.bytes = {reinterpret_cast<const uint8_t*>(data.data()), data.size() * 4};
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kCols; ++c) {
        ASSERT_EQ(packed.At(r, c), values_[r * kCols + c] & mask) << r << " " << c;
      }
    }
  }

  std::mt19937 random_{5};
  std::vector<uint8_t> values_;
};

TEST_F(PackedIntegersTest, AreFoundInEveryLayout) {
  const std::vector<int> plain = {0, 1, 2, 3, 4, 5, 6, 7};
  // Words of columns, row by row; of columns, column by column; of rows.
  Expect({.bits = 4, .word_stride = 1, .other_stride = kCols / 8}, kRows * kCols / 8, plain);
  Expect({.bits = 8, .word_stride = kRows, .other_stride = 1}, kRows * kCols / 4, plain);
  Expect({.bits = 4, .down_rows = true, .word_stride = 1, .other_stride = kRows / 8},
         kRows * kCols / 8, plain);
  Expect({.bits = 4,
          .down_rows = true,
          .awq_order = true,
          .word_stride = 1,
          .other_stride = kRows / 8},
         kRows * kCols / 8, {0, 4, 1, 5, 2, 6, 3, 7});
}

TEST(ScalesTest, PowersOfTwoAreExact) {
  const std::vector<uint8_t> bytes = {0, 1, 127, 254};
  const Scales scales{DType::kU8, bytes, 4, 1};
  EXPECT_EQ(scales.At(0, 0), 0x1p-127f);
  EXPECT_EQ(scales.At(0, 1), 0x1p-126f);
  EXPECT_EQ(scales.At(0, 2), 1.0f);
  EXPECT_EQ(scales.At(0, 3), 0x1p127f);
}

TEST(ScaledMatrixTest, ZeroPointsMayBeStoredOneLess) {
  const std::vector<uint8_t> q(16, 0x31), zero = {0x0f, 0, 0, 0};
  const std::vector<uint8_t> scale = {0x80, 0x3f};  // BF16 1.0
  ScaledMatrix m{.scale = {DType::kBf16, scale, 0, 0}, .group_columns = 32};
  m.q = {.bytes = q, .word_stride = 1, .other_stride = 4};
  m.has_zero = true;
  m.zero = {.bytes = zero, .word_stride = 1, .other_stride = 1};
  std::vector<float> row(32);
  ExpandRow(DType::kInt4, m, 32, 0, row.data());
  EXPECT_EQ(row[0], 1.0f - 15.0f);
  EXPECT_EQ(row[1], 3.0f - 15.0f);
  m.zero_offset = 1;  // 15 + 1 is 0 of 4 bits
  ExpandRow(DType::kInt4, m, 32, 0, row.data());
  EXPECT_EQ(row[0], 1.0f);
}

TEST(ScaledMatrixTest, ViewsTakeRowsInSteps) {
  std::mt19937 random(3);
  const RandomScaled whole({.dtype = DType::kInt4, .group = 32, .has_zero = true}, 8, 64, random);
  ScaledMatrix view = *whole.source().scaled;
  view.first_row = 1;
  view.row_step = 2;
  std::vector<float> want(64), got(64);
  for (int64_t r = 0; r < 3; ++r) {
    ExpandRow(DType::kInt4, *whole.source().scaled, 64, 1 + 2 * r, want.data());
    ExpandRow(DType::kInt4, view, 64, r, got.data());
    EXPECT_EQ(got, want);
  }
}

class PackScaledTest : public testing::Test {
 protected:
  std::mt19937 random_{11};
  ThreadPool pool_{1};
};

// What panels take, beside the tensors of the file.
TEST_F(PackScaledTest, PanelsGrowByLessThanThreePercent) {
  constexpr int64_t kTall = 64, kWide = 1024;
  for (const ScaledShape& shape :
       {ScaledShape{.dtype = DType::kInt4}, ScaledShape{.dtype = DType::kInt4, .group = 32},
        ScaledShape{.dtype = DType::kInt4, .group = kWide},
        ScaledShape{.dtype = DType::kInt4, .has_zero = true},
        ScaledShape{.dtype = DType::kInt4, .group = 32, .has_zero = true},
        ScaledShape{.dtype = DType::kInt8, .group = kWide}, ScaledShape{.dtype = DType::kInt8},
        ScaledShape{.dtype = DType::kInt8, .has_zero = true},
        ScaledShape{.dtype = DType::kMxfp4, .group = 32},
        ScaledShape{.dtype = DType::kF8E4M3, .group = kWide},
        ScaledShape{.dtype = DType::kF8E4M3, .group = 128, .group_rows = 128}}) {
    const RandomScaled matrix(shape, kTall, kWide, random_);
    const MatrixSource source = matrix.source();
    const auto packed = Pack({&source, 1}, StoredLayout(source), pool_);
    ASSERT_TRUE(packed.ok()) << packed.status();
    const int64_t bytes = packed->view.panels * packed->view.panel_bytes;
    const int64_t stored = shape.dtype == DType::kF8E4M3 ? kTall * kWide : matrix.bytes();
    EXPECT_LE(bytes, 1.03 * stored) << Name(packed->view.format) << " " << shape.group;
  }
}

// Scales far from 1 keep every bit, by a factor of the row.
TEST_F(PackScaledTest, ScalesThatFp16CannotHoldAreSplitOrRefused) {
  const std::vector<uint8_t> q(64, 0x7a);
  const auto pack = [&](const std::vector<float>& scales) {
    ScaledMatrix m{.group_columns = 32};
    m.q = {.bytes = q, .word_stride = 1, .other_stride = 16};
    m.scale = {DType::kF32, {reinterpret_cast<const uint8_t*>(scales.data()), 16}, 4, 1};
    const MatrixSource source{DType::kInt4, 1, 128, q.data(), &m};
    return Pack({&source, 1}, StoredLayout(source), pool_);
  };
  const auto packed = pack({0x1.02p-30f, 0x1.fep-40f, 0x1p-31f, -0x1.8p-29f});
  ASSERT_TRUE(packed.ok()) << packed.status();
  const float factor = *reinterpret_cast<const float*>(packed->view.data);
  Fp16 second;
  std::memcpy(&second, packed->view.data + 64 + (32 + 256), 2);
  EXPECT_EQ(ToFloat(second) * factor, 0x1.fep-40f);
  EXPECT_FALSE(pack({1.0f, 0x1.0002p0f, 1.0f, 1.0f}).ok());
  EXPECT_FALSE(pack({0x1p60f, 0x1p-60f, 1.0f, 1.0f}).ok());
  EXPECT_FALSE(pack({1.0f, INFINITY, 1.0f, 1.0f}).ok());
  EXPECT_TRUE(pack({0x1.0002p0f, 0x1.0002p0f, 0x1.0002p0f, 0x1.0002p0f}).ok());
}

TEST_F(PackScaledTest, RefusesWhatIsNoNumber) {
  std::vector<uint8_t> weights(16 * 128, 0x38), block(17, 0x11);
  const float one = 1.0f;
  const ScaledMatrix m{.scale = {DType::kF32, {reinterpret_cast<const uint8_t*>(&one), 4}, 0, 0},
                       .group_columns = 128,
                       .origin = weights.data(),
                       .origin_columns = 128};
  const MatrixSource f8{DType::kF8E4M3, 16, 128, weights.data(), &m};
  const MatrixSource mxfp4{DType::kMxfp4, 1, 32, block.data()};
  EXPECT_TRUE(Pack({&f8, 1}, StoredLayout(f8), pool_).ok());
  EXPECT_TRUE(Pack({&mxfp4, 1}, StoredLayout(mxfp4), pool_).ok());
  weights[777] = 0xff;
  block[0] = 255;
  for (const MatrixSource& source : {f8, mxfp4}) {
    EXPECT_EQ(Pack({&source, 1}, StoredLayout(source), pool_).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(PackScaledTest, RowsOfABlockOfFloatsShareItsScale) {
  const RandomScaled matrix({.dtype = DType::kF8E4M3, .group = 128, .group_rows = 8}, 32, 256,
                            random_);
  const MatrixSource source = matrix.source();
  EXPECT_EQ(Pack({&source, 1}, StoredLayout(source), pool_).status().code(),
            absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace kvasir::ops
