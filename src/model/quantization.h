// Checkpoints that are quantised already: what config.json says of it, and how the several tensors
// of a quantised matrix become one view that keeps every bit.
#pragma once

#include "base/status.h"
#include "model/checkpoint.h"
#include "model/config_source.h"

namespace kvasir::model {

// Out of quantization_config: awq, gptq (also of format v2), compressed-tensors, fp8 and mxfp4.
// Which matrices are quantised, with how many bits and in which groups their tensors say.
void ReadQuantization(ConfigSource& source, ModelConfig* config);

// Replaces the tensors of each quantised matrix ("blk.0.attn_q.qweight", ".scales", ...) by one of
// the matrix' own name ("blk.0.attn_q.weight"). An error names the tensor that is missing or does
// not fit.
Status JoinQuantized(Checkpoint& checkpoint);

// The MXFP4 weights of `rows` rows and `cols` columns in a tensor of blocks, of 16 bytes, and one
// of powers of two; of them the rows `first_row`, `first_row` + `row_step`, ... from the matrix
// `index` of several.
struct Mxfp4Slice {
  int64_t index = 0;
  int64_t rows = 0;  // of a whole matrix
  int64_t cols = 0;
  int64_t first_row = 0;
  int64_t row_step = 1;
};
TensorView Mxfp4View(const TensorView& blocks, const TensorView& scales, const Mxfp4Slice& slice);

}  // namespace kvasir::model
