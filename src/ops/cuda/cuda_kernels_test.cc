// The kernels of a GPU against plain loops on the host, and in deterministic mode against
// themselves. Skipped where there is no GPU.
#include "ops/cuda/cuda_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "ops/testing/host_kernels.h"

namespace kvasir::ops {
namespace {

using device::DeviceMemory;

// Memory on the GPU and its twin on the host.
struct Twin {
  DeviceMemory gpu, host;
};

class CudaKernelsTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    StatusOr<Accelerator> opened = OpenAccelerator("cuda", GetParam());
    if (!opened.ok()) GTEST_SKIP() << opened.status();
    gpu_ = *std::move(opened);
    host_ = testing::HostAccelerator();
    EXPECT_TRUE(gpu_.kernels->Reserve(512, 1, {.kv_heads = 1, .dim = 16}).ok());
  }

  Twin Bytes(const void* data, int64_t bytes) {
    Twin out{*gpu_.device->Allocate(bytes), *host_.device->Allocate(bytes)};
    gpu_.device->CopyIn(out.gpu.bytes(), data, bytes);
    EXPECT_TRUE(gpu_.device->Synchronize().ok());
    host_.device->CopyIn(out.host.bytes(), data, bytes);
    return out;
  }
  Twin Floats(const std::vector<float>& values, bool bf16 = false) {
    if (!bf16) return Bytes(values.data(), values.size() * 4);
    std::vector<Bf16> halves;
    for (float v : values) halves.push_back(ToBf16(v));
    return Bytes(halves.data(), halves.size() * 2);
  }
  Twin Ints(const std::vector<int32_t>& values) { return Bytes(values.data(), values.size() * 4); }
  Twin Random(int64_t size, bool bf16, float scale = 1) {
    std::vector<float> values(size);
    for (float& v : values) v = scale * std::normal_distribution<float>()(random_);
    return Floats(values, bf16);
  }

  std::vector<float> Read(device::Device& device, const DeviceMatrix& m, int64_t rows) {
    std::vector<uint8_t> bytes(rows * m.stride * (m.bf16 ? 2 : 4));
    device.CopyOut(bytes.data(), m.data, static_cast<int64_t>(bytes.size()));
    const Status done = device.Synchronize();
    EXPECT_TRUE(done.ok()) << done;
    std::vector<float> out;
    DeviceMatrix copy = m;
    copy.data = bytes.data();
    for (int64_t r = 0; r < rows; ++r) {
      for (int c = 0; c < m.width; ++c) out.push_back(testing::At(copy, r, c));
    }
    return out;
  }

  // Within `tolerance` of the largest value.
  void ExpectNear(const DeviceMatrix& gpu, const DeviceMatrix& host, int64_t rows,
                  double tolerance) {
    const std::vector<float> a = Read(*gpu_.device, gpu, rows);
    const std::vector<float> b = Read(*host_.device, host, rows);
    double largest = 1e-6, difference = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max<double>(largest, std::abs(b[i]));
      difference = std::max<double>(difference, std::abs(double{a[i]} - b[i]));
      if (!std::isfinite(a[i])) difference = INFINITY;
    }
    EXPECT_LE(difference, tolerance * largest);
  }

  static double Tolerance(bool bf16) { return bf16 ? 1e-2 : 1e-4; }

  std::mt19937 random_{7};
  Accelerator gpu_, host_;
};

TEST_P(CudaKernelsTest, Matmul) {
  for (const int rows : {1, 2, 3, 4, 5, 16, 17, 64, 100, 257}) {
    for (const auto& [columns, depth] :
         std::vector<std::pair<int, int>>{{8, 96}, {512, 160}, {1000, 576}, {264, 4096}}) {
      for (const int variant : {0, 1, 2}) {  // BF16 with a bias, float, float onto what is there
        const bool bf16 = variant == 0;
        const Twin x = Random(rows * depth, true), w = Random(columns * depth, true, 0.1f);
        const Twin out = Random(rows * columns, bf16), bias = Random(columns, false);
        const auto multiply = [&](Accelerator& where, DeviceMemory Twin::* side) {
          DeviceMatmul args;
          args.rows = rows;
          args.x = {(x.*side).bytes(), true, depth, depth};
          args.weights = (w.*side).as<uint16_t>();
          args.bias = variant == 0 ? (bias.*side).as<float>() : nullptr;
          args.out = {(out.*side).bytes(), bf16, columns, columns};
          args.accumulate = variant == 2;
          where.kernels->Matmul(args);
          return args.out;
        };
        const DeviceMatrix a = multiply(gpu_, &Twin::gpu), b = multiply(host_, &Twin::host);
        SCOPED_TRACE(::testing::Message()
                     << rows << " x " << columns << " x " << depth << ", " << variant);
        ExpectNear(a, b, rows, Tolerance(bf16));
      }
    }
  }
}

TEST_P(CudaKernelsTest, ARowOfAProductDoesNotDependOnTheOthers) {
  if (!GetParam()) GTEST_SKIP() << "the fast mode may";
  constexpr int kRows = 100, kColumns = 328, kDepth = 576;
  const Twin x = Random(kRows * kDepth, true), w = Random(kColumns * kDepth, true);
  const Twin out = Random(kRows * kColumns, false);
  const auto multiply = [&](int first, int rows) {
    DeviceMatmul args;
    args.rows = rows;
    args.x = {x.gpu.bytes() + first * kDepth * 2, true, kDepth, kDepth};
    args.weights = w.gpu.as<uint16_t>();
    args.out = {out.gpu.bytes(), false, kColumns, kColumns};
    gpu_.kernels->Matmul(args);
    return Read(*gpu_.device, args.out, rows);
  };
  const std::vector<float> all = multiply(0, kRows);
  for (const auto& [first, rows] :
       std::vector<std::pair<int, int>>{{0, 1}, {37, 1}, {90, 10}, {5, 17}, {3, 64}}) {
    const std::vector<float> part = multiply(first, rows);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + first * kColumns)) << first;
  }
}

TEST_P(CudaKernelsTest, Rows) {
  constexpr int kRows = 5, kWidth = 576;
  for (const bool in_bf16 : {false, true}) {
    for (const bool out_bf16 : {false, true}) {
      const Twin x = Random(kRows * kWidth, in_bf16), y = Random(kRows * kWidth, in_bf16);
      const Twin weight = Random(kWidth, false), out = Random(kRows * kWidth, out_bf16);
      const Twin which = Ints({3, 3, 0, 4, 1});
      const DeviceMatrix gx{x.gpu.bytes(), in_bf16, kWidth, kWidth};
      const DeviceMatrix hx{x.host.bytes(), in_bf16, kWidth, kWidth};
      const DeviceMatrix gy{y.gpu.bytes(), in_bf16, kWidth, kWidth};
      const DeviceMatrix hy{y.host.bytes(), in_bf16, kWidth, kWidth};
      const DeviceMatrix go{out.gpu.bytes(), out_bf16, kWidth, kWidth};
      const DeviceMatrix ho{out.host.bytes(), out_bf16, kWidth, kWidth};
      for (const int head : {0, 64, 16}) {
        gpu_.kernels->RmsNorm(kRows, gx, weight.gpu.as<float>(), 1e-5f, head, go);
        host_.kernels->RmsNorm(kRows, hx, weight.host.as<float>(), 1e-5f, head, ho);
        ExpectNear(go, ho, kRows, Tolerance(out_bf16));
      }
      gpu_.kernels->Gated(kRows, gx, gy, go);
      host_.kernels->Gated(kRows, hx, hy, ho);
      ExpectNear(go, ho, kRows, Tolerance(out_bf16));
      gpu_.kernels->Convert(kRows, gx, go);
      host_.kernels->Convert(kRows, hx, ho);
      ExpectNear(go, ho, kRows, 0);
      gpu_.kernels->SelectRows(kRows, which.gpu.as<int32_t>(), gx, go);
      host_.kernels->SelectRows(kRows, which.host.as<int32_t>(), hx, ho);
      ExpectNear(go, ho, kRows, 0);
    }
  }
}

TEST_P(CudaKernelsTest, ADrawTakesTheFirstOfEqualsAndSeesWhatIsNoNumber) {
  constexpr int kRows = 4, kWidth = 1000;
  std::vector<float> x(kRows * kWidth, -1.0f);
  x[700] = x[20] = 3.0f;
  x[kWidth + 999] = 0.5f;
  x[2 * kWidth + 5] = NAN;
  x[3 * kWidth + 5] = -INFINITY;
  const std::vector<DeviceDraw> greedy(kRows);
  const Twin values = Floats(x), ids = Ints({9, 9, 9, 9});
  const Twin draws = Bytes(greedy.data(), kRows * sizeof(DeviceDraw));
  gpu_.kernels->Draw(kRows, {values.gpu.bytes(), false, kWidth, kWidth}, draws.gpu.as<DeviceDraw>(),
                     ids.gpu.as<int32_t>());
  int32_t out[kRows];
  gpu_.device->CopyOut(out, ids.gpu.bytes(), sizeof(out));
  ASSERT_TRUE(gpu_.device->Synchronize().ok());
  EXPECT_EQ(out[0], 20);
  EXPECT_EQ(out[1], 999);
  EXPECT_EQ(out[2], -1);
  EXPECT_EQ(out[3], -1);
}

// Sequences on paged KV: writes K and V of all their positions, then attends by some rows.
class AttentionCase {
 public:
  AttentionCase(int dim, int kv_heads, int group, std::vector<int> lengths)
      : dim_(dim), kv_heads_(kv_heads), group_(group), lengths_(std::move(lengths)) {
    int32_t block = 0;
    for (int length : lengths_) {
      begins_.push_back(static_cast<int32_t>(tables_.size()));
      for (int b = 0; b * kBlock < length; ++b) tables_.push_back(block++);
    }
    std::shuffle(tables_.begin(), tables_.end(), std::mt19937(3));
    for (size_t s = 0; s < lengths_.size(); ++s) {
      for (int p = 0; p < lengths_[s]; ++p) {
        positions_.push_back(p);
        sequences_.push_back(static_cast<int32_t>(s));
      }
    }
  }

  static constexpr int kBlock = 16;
  int rows() const { return static_cast<int>(positions_.size()); }
  int heads() const { return kv_heads_ * group_; }
  DeviceKv Kv(uint8_t* blocks) const {
    const int64_t k = int64_t{kBlock} * dim_ * 2;
    return {blocks, kv_heads_ * 2 * k, 0, 2 * k, k, kBlock, kv_heads_, dim_};
  }
  int64_t KvBytes() const { return static_cast<int64_t>(tables_.size()) * Kv(nullptr).block_bytes; }
  // The last `most` rows of each sequence, in tiles.
  std::vector<AttentionTile> Tiles(int most) const {
    std::vector<AttentionTile> out;
    int first = 0;
    for (int length : lengths_) {
      const int begin = std::max(0, length - most), step = kTileQueries / group_;
      for (int r = begin; r < length; r += step) {
        out.push_back({first + r, std::min(step, length - r)});
      }
      first += length;
    }
    std::stable_partition(out.begin(), out.end(), [](const auto& t) { return t.rows == 1; });
    return out;
  }

  const int dim_, kv_heads_, group_;
  const std::vector<int> lengths_;
  std::vector<int32_t> begins_, tables_, positions_, sequences_;
};

class CudaAttentionTest : public CudaKernelsTest {
 protected:
  // What the rows of the tiles attend to.
  std::vector<float> Run(Accelerator& where, DeviceMemory Twin::* side, const AttentionCase& c,
                         const std::vector<AttentionTile>& tiles) {
    const Twin table = Ints(c.tables_), begins = Ints(c.begins_), positions = Ints(c.positions_);
    const Twin sequences = Ints(c.sequences_);
    const Twin tile = Bytes(tiles.data(), tiles.size() * sizeof(AttentionTile));
    const int width = (c.heads() + 2 * c.kv_heads_) * c.dim_, heads = c.heads() * c.dim_;
    random_.seed(11);
    const Twin qkv = Random(int64_t{c.rows()} * width, true);
    const Twin cosines = Random(int64_t{c.rows()} * c.dim_ / 2, false);
    const Twin sines = Random(int64_t{c.rows()} * c.dim_ / 2, false);
    const Twin q = Random(int64_t{c.rows()} * heads, true);
    const Twin out = Floats(std::vector<float>(int64_t{c.rows()} * heads, 0.0f));
    const Twin blocks = Floats(std::vector<float>(c.KvBytes() / 4, 0.0f));
    const DeviceKv kv = c.Kv((blocks.*side).bytes());
    const DeviceBatch batch{nullptr, (positions.*side).as<int32_t>(),
                            (sequences.*side).as<int32_t>(), (begins.*side).as<int32_t>(),
                            (table.*side).as<int32_t>()};
    DeviceRope rope;
    rope.rows = c.rows();
    const auto part = [&](int column, int columns) {
      return DeviceMatrix{(qkv.*side).bytes() + 2 * column, true, width, columns};
    };
    rope.q = part(0, heads);
    rope.k = part(heads, c.kv_heads_ * c.dim_);
    rope.v = part(heads + c.kv_heads_ * c.dim_, c.kv_heads_ * c.dim_);
    rope.out = {(q.*side).bytes(), true, heads, heads};
    rope.scale = 1 / std::sqrt(static_cast<float>(c.dim_));
    rope.cosines = (cosines.*side).as<float>();
    rope.sines = (sines.*side).as<float>();
    rope.width = c.dim_;
    where.kernels->RopeKvWrite(batch, rope, kv);
    DeviceAttention attention;
    attention.q = rope.out;
    attention.out = {(out.*side).bytes(), false, heads, heads};
    attention.heads = c.heads();
    attention.tiles = reinterpret_cast<const AttentionTile*>((tile.*side).bytes());
    attention.all_tiles = static_cast<int32_t>(tiles.size());
    attention.single_tiles = static_cast<int32_t>(
        std::count_if(tiles.begin(), tiles.end(), [](const auto& t) { return t.rows == 1; }));
    EXPECT_TRUE(where.kernels->Reserve(c.rows(), c.heads(), kv).ok());
    where.kernels->Attention(batch, attention, kv);
    return Read(*where.device, attention.out, c.rows());
  }
};

TEST_P(CudaAttentionTest, MeetsPlainLoops) {
  for (const int dim : {16, 32, 64, 128}) {
    for (const auto& [kv_heads, group] :
         std::vector<std::pair<int, int>>{{3, 1}, {2, 3}, {2, 4}, {1, 7}, {1, 16}}) {
      const AttentionCase c(dim, kv_heads, group, {1, 70, 7, 300});
      for (const int most : {1, 1000, 90}) {
        const auto tiles = c.Tiles(most);
        const std::vector<float> a = Run(gpu_, &Twin::gpu, c, tiles);
        const std::vector<float> b = Run(host_, &Twin::host, c, tiles);
        double largest = 0, difference = 0;
        for (size_t i = 0; i < a.size(); ++i) {
          largest = std::max<double>(largest, std::abs(b[i]));
          difference = std::max<double>(difference, std::abs(a[i] - b[i]));
          if (!std::isfinite(a[i])) difference = INFINITY;
        }
        // (Weights of V are BF16.)
        EXPECT_LE(difference, 1e-2 * largest) << dim << ", " << group << ", " << most;
      }
    }
  }
}

TEST_P(CudaAttentionTest, ARowDoesNotDependOnItsTile) {
  if (!GetParam()) GTEST_SKIP() << "the fast mode may";
  const AttentionCase c(64, 2, 3, {300, 150});
  const std::vector<float> whole = Run(gpu_, &Twin::gpu, c, c.Tiles(1000));
  const int width = c.heads() * c.dim_;
  for (const auto& tile : std::vector<AttentionTile>{{299, 1}, {130, 1}, {120, 9}, {449, 1}}) {
    const std::vector<float> part = Run(gpu_, &Twin::gpu, c, {tile});
    for (int i = tile.first_row * width; i < (tile.first_row + tile.rows) * width; ++i) {
      ASSERT_EQ(part[i], whole[i]) << tile.first_row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, CudaKernelsTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "deterministic" : "fast"; });
INSTANTIATE_TEST_SUITE_P(Modes, CudaAttentionTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "deterministic" : "fast"; });

}  // namespace
}  // namespace kvasir::ops
