// The reader of a Hugging Face config.json on arbitrary text.
#include "model/safetensors.h"
#include "views.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvasir::fuzz::CheckConfig(
      kvasir::model::HuggingFaceConfig({reinterpret_cast<const char*>(data), size}));
  return 0;
}
