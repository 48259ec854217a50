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
    // The bytes cover the last element that the strides reach.
    const bool dense = view.row_stride == 0;
    Require(dense || info.block_elements == 1);
    const uint64_t elements =
        dense ? static_cast<uint64_t>(view.rows) * (view.cols / info.block_elements)
              : (view.rows - 1) * view.row_stride + (view.cols - 1) * view.col_stride + 1;
    Require(dense ? view.bytes.size() == elements * info.block_bytes
                  : view.bytes.size() >= elements * info.block_bytes);
    Require(view.bytes.data() >= file.data() &&
            view.bytes.data() + view.bytes.size() <= file.data() + file.size());
  }
}

inline void CheckConfig(const StatusOr<model::ModelConfig>& config) {
  if (!config.ok()) return;
  Require(config->layers > 0 && config->hidden > 0 && config->heads > 0 && config->kv_heads > 0);
  Require(config->head_dim > 0 && config->ffn > 0 && config->vocab > 0);
  Require(std::isfinite(config->rms_eps) && config->rms_eps > 0);
  for (const model::RopeConfig* rope : {&config->rope, &config->window_rope}) {
    if (rope == &config->window_rope && !config->has_window_rope) continue;
    Require(std::isfinite(rope->theta) && rope->theta > 0);
    for (const std::vector<float>* factors : {&rope->factors, &rope->long_factors}) {
      Require(factors->empty() || factors->size() == static_cast<size_t>(rope->width) / 2);
      for (float factor : *factors) Require(std::isfinite(factor) && factor > 0);
    }
  }
  for (int32_t id : config->eos_ids) Require(id >= 0 && id < config->vocab);
}

}  // namespace kvasir::fuzz
