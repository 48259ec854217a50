// The safetensors reader on arbitrary bytes, and what joins the tensors of quantised matrices:
// those that it accepts are expanded.
#include "model/safetensors.h"

#include <vector>

#include "model/quantization.h"
#include "ops/packing.h"
#include "views.h"

namespace {

using kvasir::model::Checkpoint;
using kvasir::model::QuantMethod;
using kvasir::model::TensorMap;

void JoinAndExpand(const TensorMap& tensors, QuantMethod method) {
  Checkpoint checkpoint;
  checkpoint.config.quantization = {method, 1};
  checkpoint.tensors = tensors;
  if (!kvasir::model::JoinQuantized(checkpoint).ok()) return;
  for (const auto& [name, view] : checkpoint.tensors) {
    if (view.scaled == nullptr) continue;
    const kvasir::ops::MatrixSource source{view.dtype, view.rows, view.cols, view.bytes.data(),
                                           view.scaled.get()};
    std::vector<float> row(view.cols);
    for (const int64_t index : {int64_t{0}, view.rows / 2, view.rows - 1}) {
      kvasir::ops::LoadRow(source, index, row.data());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const uint8_t> bytes(data, size);
  const auto tensors = kvasir::model::ParseSafetensors(bytes);
  if (!tensors.ok()) return 0;
  kvasir::fuzz::CheckViews(*tensors, bytes);
  for (const QuantMethod method : {QuantMethod::kAwq, QuantMethod::kGptq,
                                   QuantMethod::kCompressedTensors, QuantMethod::kFp8}) {
    JoinAndExpand(*tensors, method);
  }
  return 0;
}
