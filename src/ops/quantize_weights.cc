#include "ops/quantize_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/float16.h"

namespace kvasir::ops {
namespace {

constexpr int kBlock = 32;
// Scales are tried from this share of the plain one to a little above it.
constexpr float kLowest = 0.80f, kHighest = 1.04f;
constexpr int kTried = 13;

// A block as integers q: x is about scale * q + minimum.
struct Rounded {
  Fp16 scale;
  Fp16 minimum;
  int q[kBlock];
  double error;  // sum of squares
};

Rounded Round(const float* x, float scale, float minimum, int low, int high) {
  Rounded out{ToFp16(scale), ToFp16(minimum), {}, 0};
  const float s = ToFloat(out.scale), m = ToFloat(out.minimum);
  const float inverse = s == 0.0f ? 0.0f : 1.0f / s;
  for (int i = 0; i < kBlock; ++i) {
    const float position = std::nearbyintf((x[i] - m) * inverse);
    out.q[i] =
        static_cast<int>(std::clamp(position, static_cast<float>(low), static_cast<float>(high)));
    const double off = double{x[i]} - (double{s} * out.q[i] + m);
    out.error += off * off;
  }
  return out;
}

// The best of scales around `plain`.
Rounded Best(const float* x, float plain, float minimum, int low, int high) {
  Rounded best = Round(x, plain, minimum, low, high);
  for (int i = 0; i < kTried; ++i) {
    const float share = kLowest + (kHighest - kLowest) * static_cast<float>(i) / (kTried - 1);
    const Rounded tried = Round(x, plain * share, minimum, low, high);
    if (tried.error < best.error) best = tried;
  }
  return best;
}

void PutScale(Fp16 scale, uint8_t* at) { std::memcpy(at, &scale.bits, 2); }

void PutNibbles(const int* q, uint8_t* at) {
  for (int i = 0; i < kBlock / 2; ++i) {
    at[i] = static_cast<uint8_t>(q[i] | q[i + kBlock / 2] << 4);
  }
}

void PutQ4_1(const float* x, uint8_t* block) {
  const auto [low, high] = std::minmax_element(x, x + kBlock);
  const float range = *high - *low;
  Rounded best = Best(x, range / 15.0f, *low, 0, 15);
  // The ends may be clipped: a smaller range lies a little above the lowest value.
  for (const float share : {0.02f, 0.05f, 0.08f}) {
    const Rounded tried = Best(x, range * (1.0f - share) / 15.0f, *low + share * range / 2, 0, 15);
    if (tried.error < best.error) best = tried;
  }
  PutScale(best.scale, block);
  PutScale(best.minimum, block + 2);
  PutNibbles(best.q, block + 4);
}

void PutQ8_0(const float* x, float largest, uint8_t* block) {
  const Rounded best = Best(x, largest / 127.0f, 0.0f, -127, 127);
  PutScale(best.scale, block);
  for (int i = 0; i < kBlock; ++i) block[2 + i] = static_cast<uint8_t>(best.q[i]);
}

}  // namespace

void QuantizeRow(DType type, const float* x, int64_t cols, uint8_t* blocks) {
  KVASIR_CHECK(cols % kBlock == 0, "a row is made of whole blocks");
  for (int64_t at = 0; at < cols; at += kBlock, blocks += Info(type).block_bytes) {
    float finite[kBlock];
    float largest = 0.0f;
    for (int i = 0; i < kBlock; ++i) {
      finite[i] = std::isfinite(x[at + i]) ? x[at + i] : 0.0f;
      largest = std::max(largest, std::abs(finite[i]));
    }
    switch (type) {
      case DType::kQ8_0:
        PutQ8_0(finite, largest, blocks);
        break;
      case DType::kQ4_1:
        PutQ4_1(finite, blocks);
        break;
      default:
        KVASIR_CHECK(false, "weights are rounded to Q8_0 and Q4_1 only");
    }
  }
}

}  // namespace kvasir::ops
