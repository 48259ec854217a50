#include "core/engine_client.h"

namespace kvasir {
namespace {

constexpr double kQueueSeconds[] = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                    1,     2.5,   5,    10,    30,   60,  120};
constexpr double kStepSeconds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075,
                                   0.1,   0.15,   0.25,  0.5,  1,     2.5};
constexpr double kStepTokens[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
static_assert(std::size(kQueueSeconds) <= Histogram::kMostBounds);
static_assert(std::size(kStepSeconds) <= Histogram::kMostBounds);
static_assert(std::size(kStepTokens) <= Histogram::kMostBounds);

}  // namespace

EngineStats::EngineStats()
    : queue_seconds(kQueueSeconds), step_seconds(kStepSeconds), step_tokens(kStepTokens) {}

}  // namespace kvasir
