// Rounding of K and V, and attention over them, by type.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/float16.h"
#include "base/float8.h"
#include "ops/testing/families.h"

namespace kvasir::ops {
namespace {

std::vector<float> Normal(int64_t count, float width, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, width);
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}

// An element as it is stored, without its scale.
double Element(KvType type, const uint8_t* at) {
  switch (type) {
    case KvType::kF32: {
      float x;
      std::memcpy(&x, at, 4);
      return x;
    }
    case KvType::kBf16: {
      Bf16 x;
      std::memcpy(&x, at, 2);
      return ToFloat(x);
    }
    case KvType::kInt8:
      return static_cast<int8_t>(*at);
    case KvType::kFp8:
      return ToFloat(Fp8{*at}) / 256.0;
  }
  return 0;
}

// K and V of one head as the cache holds them.
class Cache {
 public:
  // Rows of k and v, [positions][dim] each; v is empty where it is a part of k.
  Cache(const CpuKernels& kernels, KvType type, const std::vector<float>& k,
        const std::vector<float>& v, int32_t k_dim, int32_t v_dim)
      : type_(type), k_dim_(k_dim), v_dim_(v_dim), v_in_k_(v.empty()) {
    const int64_t bytes = Info(type).element_bytes;
    const int64_t positions = static_cast<int64_t>(k.size()) / k_dim;
    const int64_t units = (positions + kKvUnit - 1) / kKvUnit;
    // What no row has written is whatever: here NaN in every type that has it.
    k_.resize(units * kKvUnit * k_dim * bytes, 0xff);
    v_.resize(units * kKvUnit * v_dim * bytes, 0xff);
    k_scale_.resize(units * kKvUnit, NAN);
    v_scale_.resize(units * kKvUnit, NAN);
    const int32_t split = v_in_k_ ? v_dim : 0;
    for (int64_t t = 0; t < positions; ++t) {
      const float* key = &k[t * k_dim];
      k_scale_[t] = kernels.round_kv(type, key + split, k_dim - split, kKvUnit, KeyAt(t, split));
      v_scale_[t] = v_in_k_ ? kernels.round_kv(type, key, split, kKvUnit, KeyAt(t, 0))
                            : kernels.round_kv(type, &v[t * v_dim], v_dim, 1, ValueAt(t, 0));
    }
  }

  double Key(int64_t t, int32_t d) const {
    const bool of_v = v_in_k_ && d < v_dim_;
    const double scale = of_v ? v_scale_[t] : k_scale_[t];
    return Element(type_, const_cast<Cache*>(this)->KeyAt(t, d)) * scale;
  }
  double Value(int64_t t, int32_t d) const {
    return v_in_k_ ? Key(t, d)
                   : Element(type_, const_cast<Cache*>(this)->ValueAt(t, d)) * v_scale_[t];
  }

  // What rows at `positions` attend to, [rows][v_dim], super-tile by super-tile.
  std::vector<float> Attend(const CpuKernels& kernels, const std::vector<float>& queries,
                            const std::vector<int32_t>& positions, float softcap = 0) {
    const auto rows = static_cast<int32_t>(positions.size());
    const int32_t most = *std::max_element(positions.begin(), positions.end());
    std::vector<const float*> q(rows);
    for (int32_t r = 0; r < rows; ++r) q[r] = queries.data() + r * k_dim_;
    const std::vector<int32_t> first(rows, 0);
    std::vector<float> maximum(rows), sum(rows), values(rows * v_dim_);
    std::vector<float> scratch(AttendScratch(k_dim_, v_dim_), NAN);
    std::vector<float> into_max(rows, -INFINITY), into_sum(rows, 0), into(rows * v_dim_, 0);
    for (int32_t base = 0; base <= most; base += kKvSuperTile) {
      AttendArgs args;
      for (int32_t u = 0; u < kKvSuperUnits && base + u * kKvUnit <= most; ++u) {
        const int64_t t = base + u * kKvUnit;
        args.k[u] = KeyAt(t, 0);
        args.v[u] = v_in_k_ ? nullptr : ValueAt(t, 0);
        args.k_scale[u] = &k_scale_[t];
        args.v_scale[u] = &v_scale_[t];
      }
      args.type = type_;
      args.base = base;
      args.k_dim = k_dim_;
      args.v_dim = v_dim_;
      args.v_in_k = v_in_k_;
      args.softcap = softcap;
      args.rows = rows;
      args.q = q.data();
      args.first = first.data();
      args.last = positions.data();
      args.maximum = maximum.data();
      args.sum = sum.data();
      args.values = values.data();
      args.scratch = scratch.data();
      kernels.attend(args);
      for (int32_t r = 0; r < rows; ++r) {
        kernels.merge({v_dim_, maximum[r], sum[r], &values[r * v_dim_], &into_max[r], &into_sum[r],
                       &into[r * v_dim_]});
      }
    }
    for (int32_t i = 0; i < rows * v_dim_; ++i) into[i] /= into_sum[i / v_dim_];
    return into;
  }

  std::vector<uint8_t> k_, v_;
  std::vector<float> k_scale_, v_scale_;

 private:
  uint8_t* KeyAt(int64_t t, int32_t d) {
    const int64_t element = (t / kKvUnit * k_dim_ + d) * kKvUnit + t % kKvUnit;
    return k_.data() + element * Info(type_).element_bytes;
  }
  uint8_t* ValueAt(int64_t t, int32_t d) {
    return v_.data() + (t * v_dim_ + d) * Info(type_).element_bytes;
  }

  const KvType type_;
  const int32_t k_dim_, v_dim_;
  const bool v_in_k_;
};

TEST(SpreadTest, IsAHadamardMatrixInEveryFamily) {
  std::mt19937 random(3);
  for (const int32_t dim : {16, 48, 64, 80, 128}) {
    const int32_t width = SpreadWidth(dim);
    const std::vector<float> x = Normal(dim, 1.0f, random);
    std::vector<float> want(dim);
    ScalarKernels()->spread(x.data(), dim, 0.5f, want.data());
    for (int32_t d = 0; d < dim; ++d) {
      double sum = 0;
      for (int32_t i = 0; i < width; ++i) {
        const bool odd = std::popcount(static_cast<uint32_t>(i & d % width)) % 2 != 0;
        sum += (odd ? -0.5 : 0.5) * x[d / width * width + i];
      }
      EXPECT_NEAR(want[d], sum, 1e-5) << dim;
    }
    for (const CpuKernels* kernels : Families()) {
      std::vector<float> got = x;
      kernels->spread(got.data(), dim, 0.5f, got.data());
      EXPECT_EQ(got, want) << kernels->name;
    }
  }
}

class KvTest : public testing::TestWithParam<KvType> {
 protected:
  // The largest error of an element that a row's largest magnitude of 1 leaves.
  static double Step(KvType type) {
    switch (type) {
      case KvType::kF32:
        return 0;
      case KvType::kBf16:
        return 1.0 / 256;
      case KvType::kInt8:
        return 0.5 / 127 * 1.0001;
      case KvType::kFp8:
        return 16.0 / 448 * 1.0001;
    }
    return 0;
  }

  std::mt19937 random_{3};
};

TEST_P(KvTest, RoundsARowToWithinAStepOfItsLargest) {
  constexpr int32_t kDim = 48;
  for (const float width : {1e-6f, 1.0f, 1e4f}) {
    const std::vector<float> k = Normal(5 * kDim, width, random_);
    const Cache cache(*ScalarKernels(), GetParam(), k, k, kDim, kDim);
    for (int32_t t = 0; t < 5; ++t) {
      float largest = 0;
      for (int32_t d = 0; d < kDim; ++d) largest = std::max(largest, std::abs(k[t * kDim + d]));
      for (int32_t d = 0; d < kDim; ++d) {
        EXPECT_NEAR(cache.Key(t, d), k[t * kDim + d], Step(GetParam()) * largest);
        EXPECT_EQ(cache.Value(t, d), cache.Key(t, d));
      }
    }
  }
}

TEST_P(KvTest, EveryFamilyRoundsToTheSameBytes) {
  constexpr int32_t kDim = 64;
  std::vector<float> k = Normal(40 * kDim, 1.0f, random_);
  std::fill_n(k.begin(), kDim, 0.0f);
  std::fill_n(k.begin() + kDim, kDim, 1e-40f);  // its inverse is infinite
  for (int i = 0; i < kDim; ++i) k[2 * kDim + i] = std::ldexp(1.0f + i % 16 / 16.0f, -i / 4);
  k[3 * kDim + 5] = NAN;
  k[4 * kDim + 7] = -INFINITY;
  for (int i = 0; i < kDim; ++i) k[5 * kDim + i] = static_cast<float>(i) - 0.5f;  // ties
  k[5 * kDim] = 127.0f;
  const Cache want(*ScalarKernels(), GetParam(), k, k, kDim, kDim);
  for (const CpuKernels* kernels : Families()) {
    const Cache got(*kernels, GetParam(), k, k, kDim, kDim);
    EXPECT_EQ(got.k_, want.k_) << kernels->name;
    EXPECT_EQ(got.v_, want.v_) << kernels->name;
    EXPECT_EQ(std::memcmp(got.k_scale_.data(), want.k_scale_.data(), 4 * got.k_scale_.size()), 0)
        << kernels->name;
  }
  for (int32_t d = 0; d < kDim; ++d) EXPECT_EQ(want.Key(0, d), 0.0);
  EXPECT_TRUE(std::isnan(want.Key(3, 5)));
  EXPECT_FALSE(std::isfinite(want.Key(4, 7)));
}

// However many rows go together, and in every family.
TEST_P(KvTest, MatchesSoftmaxAndNoRowDependsOnTheOthers) {
  constexpr int32_t kKeys = 48, kValues = 80, kPositions = 400;
  const std::vector<float> k = Normal(kPositions * kKeys, 1.0f, random_);
  const std::vector<float> v = Normal(kPositions * kValues, 1.0f, random_);
  const std::vector<int32_t> positions = {0, 15, 16, 63, 64, 65, 100, 192, 255, 256, 300, 399};
  const auto rows = static_cast<int32_t>(positions.size());
  const std::vector<float> queries = Normal(rows * kKeys, 0.3f, random_);
  Cache cache(*ScalarKernels(), GetParam(), k, v, kKeys, kValues);
  const auto all = cache.Attend(*ScalarKernels(), queries, positions);
  for (const CpuKernels* kernels : Families()) {
    for (int32_t count = 1; count <= rows; ++count) {
      for (int32_t begin = 0; begin + count <= rows; begin += count) {
        const auto some = cache.Attend(
            *kernels, {queries.begin() + begin * kKeys, queries.begin() + (begin + count) * kKeys},
            {positions.begin() + begin, positions.begin() + begin + count});
        EXPECT_EQ(std::memcmp(some.data(), &all[begin * kValues], some.size() * 4), 0)
            << kernels->name << " " << begin << " " << count;
      }
    }
  }
  for (int32_t r = 0; r < rows; ++r) {
    std::vector<double> weight(positions[r] + 1);
    double total = 0;
    for (int32_t t = 0; t <= positions[r]; ++t) {
      double score = 0;
      for (int32_t d = 0; d < kKeys; ++d) score += queries[r * kKeys + d] * cache.Key(t, d);
      total += weight[t] = std::exp(score);
    }
    for (int32_t d = 0; d < kValues; ++d) {
      double want = 0;
      for (int32_t t = 0; t <= positions[r]; ++t) want += weight[t] / total * cache.Value(t, d);
      EXPECT_NEAR(all[r * kValues + d], want, 1e-4);
    }
  }
}

// Keys of 48 columns whose first 32 are the values, as latent attention keeps them: what is behind
// is a thousand times larger, and takes nothing from the precision of the values.
TEST_P(KvTest, ValuesWithinKeysHaveAScaleOfTheirOwn) {
  constexpr int32_t kKeys = 48, kValues = 32, kPositions = 100;
  std::vector<float> k = Normal(kPositions * kKeys, 1.0f, random_);
  for (int64_t i = 0; i < kPositions * kKeys; ++i) k[i] *= i % kKeys < kValues ? 1.0f : 1e3f;
  std::vector<float> query = Normal(kKeys, 0.3f, random_);
  for (int32_t d = kValues; d < kKeys; ++d) query[d] *= 1e-3f;
  Cache cache(*ScalarKernels(), GetParam(), k, {}, kKeys, kValues);
  for (int32_t t = 0; t < kPositions; ++t) {
    for (int32_t d = 0; d < kValues; ++d) {
      EXPECT_NEAR(cache.Value(t, d), k[t * kKeys + d], 4.5 * Step(GetParam()));
    }
  }
  const auto got = cache.Attend(*ScalarKernels(), query, {kPositions - 1}, 2.0f);
  for (const CpuKernels* kernels : Families()) {
    EXPECT_EQ(cache.Attend(*kernels, query, {kPositions - 1}, 2.0f), got) << kernels->name;
  }
  std::vector<double> weight(kPositions);
  double total = 0;
  for (int32_t t = 0; t < kPositions; ++t) {
    double score = 0;
    for (int32_t d = 0; d < kKeys; ++d) score += query[d] * cache.Key(t, d);
    total += weight[t] = std::exp(2.0 * std::tanh(score / 2.0));
  }
  for (int32_t d = 0; d < kValues; ++d) {
    double want = 0;
    for (int32_t t = 0; t < kPositions; ++t) want += weight[t] / total * cache.Value(t, d);
    EXPECT_NEAR(got[d], want, 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, KvTest,
                         testing::Values(KvType::kF32, KvType::kBf16, KvType::kInt8, KvType::kFp8),
                         [](const auto& info) { return std::string(Info(info.param).name); });

}  // namespace
}  // namespace kvasir::ops
