#include "base/float8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace kvasir {
namespace {

// By its definition: the finite values of positive codes, in order.
std::vector<double> Values() {
  std::vector<double> out;
  for (int code = 0; code <= 0x7e; ++code) {
    const int exponent = code >> 3, mantissa = code & 7;
    out.push_back(exponent == 0 ? std::ldexp(mantissa, -9)
                                : std::ldexp(8 + mantissa, exponent - 10));
  }
  return out;
}

// The code of the nearest value, the even one of two.
int Nearest(double x, const std::vector<double>& values) {
  int best = 0;
  for (int code = 1; code < static_cast<int>(values.size()); ++code) {
    const double now = std::abs(values[code] - x), before = std::abs(values[best] - x);
    if (now < before || (now == before && code % 2 == 0)) best = code;
  }
  return best;
}

TEST(Float8Test, EveryCodeIsItsValueAndBack) {
  const std::vector<double> values = Values();
  EXPECT_EQ(values.back(), kLargestFp8);
  for (int code = 0; code <= 0x7e; ++code) {
    const auto bits = static_cast<uint8_t>(code), negative = static_cast<uint8_t>(0x80 | code);
    EXPECT_EQ(ToFloat(Fp8{bits}), values[code]);
    EXPECT_EQ(ToFloat(Fp8{negative}), -values[code]);
    EXPECT_EQ(ToFp8(static_cast<float>(values[code])).bits, bits);
    EXPECT_EQ(ToFp8(static_cast<float>(-values[code])).bits, negative);
  }
}

TEST(Float8Test, RoundsToTheNearestAndToEven) {
  const std::vector<double> values = Values();
  for (size_t code = 0; code + 1 < values.size(); ++code) {
    const auto middle = static_cast<float>((values[code] + values[code + 1]) / 2);
    EXPECT_EQ(ToFp8(middle).bits, code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(ToFp8(std::nextafter(middle, 0.0f)).bits, code);
    EXPECT_EQ(ToFp8(std::nextafter(middle, 1e9f)).bits, code + 1);
  }
  std::mt19937 random(5);
  std::uniform_real_distribution<float> exponent(-14.0f, 9.0f);
  for (int i = 0; i < 2000; ++i) {
    const float x = std::exp2(exponent(random));
    EXPECT_EQ(ToFp8(x).bits, Nearest(x, values)) << x;
  }
}

TEST(Float8Test, KnowsItsTwoNans) {
  for (int bits = 0; bits < 256; ++bits) {
    EXPECT_EQ(IsNan(Fp8{static_cast<uint8_t>(bits)}), bits == 0x7f || bits == 0xff) << bits;
  }
}

TEST(Float8Test, StopsAtTheLargest) {
  for (const float x : {448.0f, 464.0f, 480.0f, 1e9f, INFINITY, NAN}) {
    EXPECT_EQ(ToFp8(x).bits, 0x7e) << x;
  }
  EXPECT_EQ(ToFp8(-INFINITY).bits, 0xfe);
}

}  // namespace
}  // namespace kvasir
