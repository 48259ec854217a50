// What the device that KVASIR_TEST_DEVICE names draws from rows of logits is what the sampler
// draws.
#include <cmath>
#include <cstdlib>
#include <random>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "ops/device_kernels.h"
#include "sample/sampler.h"

namespace kvasir::cli {
namespace {

// Rows of all kinds: coarse ones have many equal logits, zeros of both signs among them.
std::vector<float> Logits(int64_t rows, int32_t vocab, std::mt19937& random) {
  std::vector<float> out(rows * vocab);
  std::normal_distribution<float> normal;
  for (int64_t r = 0; r < rows; ++r) {
    const bool coarse = r % 3 == 0;
    const float spread = r % 2 == 0 ? 4.0f : 0.5f;
    for (int32_t i = 0; i < vocab; ++i) {
      const float x = spread * normal(random);
      out[r * vocab + i] = coarse ? std::round(2 * x) / 2 : x;
    }
  }
  return out;
}

// Draws that fall upon the first token that is kept and the last of them, among others.
RowDraw AnyDraw(int32_t vocab, std::mt19937& random) {
  const auto one_of = [&](auto... values) {
    const std::common_type_t<decltype(values)...> all[] = {values...};
    return all[random() % sizeof...(values)];
  };
  SamplingParams params;
  params.temperature = one_of(0.0f, 0.2f, 0.5f, 0.8f, 1.0f, 1.7f);
  params.min_p = one_of(0.0f, 0.0f, 0.05f);
  params.top_k = one_of(0, 0, 1, 2, 7, 40, 1000, vocab - 1, vocab + 5);
  params.top_p = one_of(1.0f, 1.0f, 0.05f, 0.5f, 0.9f, 0.95f, 0.9999f);
  params.seed = random();
  RowDraw draw = sample::DrawOf(params, 1, 2);
  draw.noise = one_of(draw.noise, draw.noise, uint64_t{0}, UINT64_MAX);
  return draw;
}

TEST(DeviceDraw, DrawsTheTokensOfTheSampler) {
  const char* name = std::getenv("KVASIR_TEST_DEVICE");
  if (name == nullptr) GTEST_SKIP() << "KVASIR_TEST_DEVICE names no device";
  StatusOr<ops::Accelerator> opened = ops::OpenAccelerator(name, true);
  ASSERT_TRUE(opened.ok()) << opened.status();
  device::Device& device = *opened->device;
  std::mt19937 random(3);
  for (const int32_t vocab : {1, 50, 1000, 49152, 128256}) {
    const int64_t rows = vocab > 10000 ? 200 : 2000;
    const std::vector<float> logits = Logits(rows, vocab, random);
    std::vector<RowDraw> draws;
    std::vector<ops::DeviceDraw> device_draws;
    for (int64_t r = 0; r < rows; ++r) {
      const RowDraw& draw = draws.emplace_back(AnyDraw(vocab, random));
      device_draws.push_back(
          {draw.temperature, draw.min_weight, draw.top_k, draw.top_p, draw.noise});
    }
    const auto in = device.Allocate(static_cast<int64_t>(logits.size() * sizeof(float)));
    const auto how = device.Allocate(rows * sizeof(ops::DeviceDraw));
    const auto out = device.Allocate(rows * sizeof(int32_t));
    ASSERT_TRUE(in.ok() && how.ok() && out.ok());
    device.CopyIn(in->bytes(), logits.data(), in->size());
    device.CopyIn(how->bytes(), device_draws.data(), how->size());
    opened->kernels->Draw(rows, {in->bytes(), false, vocab, vocab}, how->as<ops::DeviceDraw>(),
                          out->as<int32_t>());
    std::vector<int32_t> drawn(rows);
    device.CopyOut(drawn.data(), out->bytes(), out->size());
    ASSERT_TRUE(device.Synchronize().ok());
    sample::Sampler sampler;
    for (int64_t r = 0; r < rows; ++r) {
      const absl::Span<const float> row(logits.data() + r * vocab, vocab);
      ASSERT_EQ(drawn[r], sampler.Draw(row, draws[r]))
          << vocab << ", " << r << ": temperature " << draws[r].temperature << ", top_k "
          << draws[r].top_k << ", top_p " << draws[r].top_p << ", noise " << draws[r].noise;
    }
  }
}

}  // namespace
}  // namespace kvasir::cli
