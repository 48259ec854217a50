// The GGUF reader on arbitrary bytes: container, configuration, vocabulary.
#include "model/gguf.h"

#include "views.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const uint8_t> bytes(data, size);
  const auto file = kvasir::model::ParseGguf(bytes);
  if (!file.ok()) return 0;
  kvasir::fuzz::CheckViews(file->tensors, bytes);
  kvasir::fuzz::CheckConfig(kvasir::model::GgufConfig(*file));
  kvasir::model::GgufText(*file).IgnoreError();
  return 0;
}
