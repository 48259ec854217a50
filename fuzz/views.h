// What must hold of every model file that the readers accept.
#pragma once

#include <absl/types/span.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "base/dtype.h"
#include "base/status.h"
#include "model/checkpoint.h"

namespace kvasir::fuzz {

// abort() rather than a check macro: the fuzzer reports it whatever the build defines.
inline void Require(bool holds) {
  if (!holds) std::abort();
}

inline void CheckViews(const model::TensorMap& tensors, absl::Span<const uint8_t> file) {
  for (const auto& [name, view] : tensors) {
    const DTypeInfo info = Info(view.dtype);
    Require(view.rows > 0 && view.cols > 0 && view.cols % info.block_elements == 0);
    Require(view.bytes.size() == static_cast<uint64_t>(view.rows) *
                                     (view.cols / info.block_elements) * info.block_bytes);
    Require(view.bytes.data() >= file.data() &&
            view.bytes.data() + view.bytes.size() <= file.data() + file.size());
  }
}

inline void CheckConfig(const StatusOr<model::ModelConfig>& config) {
  if (!config.ok()) return;
  Require(config->layers > 0 && config->hidden > 0 && config->heads > 0 && config->kv_heads > 0);
  Require(config->head_dim > 0 && config->ffn > 0 && config->vocab > 0);
  Require(std::isfinite(config->rms_eps) && config->rms_eps > 0);
  Require(std::isfinite(config->rope_theta) && config->rope_theta > 0);
  Require(config->rope_factors.empty() ||
          config->rope_factors.size() == static_cast<size_t>(config->head_dim) / 2);
  for (float factor : config->rope_factors) Require(std::isfinite(factor) && factor > 0);
  for (int32_t id : config->eos_ids) Require(id >= 0 && id < config->vocab);
}

}  // namespace kvasir::fuzz
