// What the device that KVASIR_TEST_DEVICE names draws from rows of logits is what the sampler
// draws.
#include <cstdlib>
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "ops/device_kernels.h"
#include "sample/sampler.h"

namespace kvasir::cli {
namespace {

TEST(DeviceDraw, DrawsTheTokensOfTheSampler) {
  const char* name = std::getenv("KVASIR_TEST_DEVICE");
  if (name == nullptr) GTEST_SKIP() << "KVASIR_TEST_DEVICE names no device";
  StatusOr<ops::Accelerator> opened = ops::OpenAccelerator(name, true);
  ASSERT_TRUE(opened.ok()) << opened.status();
  device::Device& device = *opened->device;
  std::mt19937 random(3);
  for (const int32_t vocab : {50, 1000, 49152, 128256}) {
    constexpr int64_t kRows = 60;
    std::vector<float> logits(kRows * vocab);
    for (float& x : logits) x = 4 * std::normal_distribution<float>()(random);
    std::vector<SamplingParams> params(kRows);
    std::vector<ops::DeviceDraw> draws;
    for (int64_t r = 0; r < kRows; ++r) {
      params[r].temperature = r % 6 == 0 ? 0.0f : 0.2f * static_cast<float>(r % 6);
      params[r].min_p = r % 4 == 0 ? 0.05f : 0.0f;
      params[r].seed = random();
      const std::optional<RowDraw> draw = sample::DrawOf(params[r], 1, static_cast<int32_t>(r));
      ASSERT_TRUE(draw.has_value());
      draws.push_back({draw->temperature, draw->min_weight, draw->noise});
    }
    const auto in = device.Allocate(static_cast<int64_t>(logits.size() * sizeof(float)));
    const auto how = device.Allocate(kRows * sizeof(ops::DeviceDraw));
    const auto out = device.Allocate(kRows * sizeof(int32_t));
    ASSERT_TRUE(in.ok() && how.ok() && out.ok());
    device.CopyIn(in->bytes(), logits.data(), in->size());
    device.CopyIn(how->bytes(), draws.data(), how->size());
    opened->kernels->Draw(kRows, {in->bytes(), false, vocab, vocab}, how->as<ops::DeviceDraw>(),
                          out->as<int32_t>());
    std::vector<int32_t> drawn(kRows);
    device.CopyOut(drawn.data(), out->bytes(), out->size());
    ASSERT_TRUE(device.Synchronize().ok());
    sample::Sampler sampler;
    for (int64_t r = 0; r < kRows; ++r) {
      const absl::Span<const float> row(logits.data() + r * vocab, vocab);
      const auto expected =
          sampler.Sample(row, params[r], {.choice = 1, .index = static_cast<int32_t>(r)});
      ASSERT_TRUE(expected.ok()) << expected.status();
      EXPECT_EQ(drawn[r], expected->id) << vocab << ", " << r;
    }
  }
}

}  // namespace
}  // namespace kvasir::cli
