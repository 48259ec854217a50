// The safetensors reader on arbitrary bytes.
#include "model/safetensors.h"

#include "views.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const uint8_t> bytes(data, size);
  const auto tensors = kvasir::model::ParseSafetensors(bytes);
  if (tensors.ok()) kvasir::fuzz::CheckViews(*tensors, bytes);
  return 0;
}
