// The GGUF reader on arbitrary bytes: container, configuration, vocabulary, the tensors taken apart
// and the graph made of them.
#include "model/gguf.h"

#include <utility>

#include "model/architecture.h"
#include "model/tensor_layout.h"
#include "views.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::Span<const uint8_t> bytes(data, size);
  auto file = kvasir::model::ParseGguf(bytes);
  if (!file.ok()) return 0;
  kvasir::fuzz::CheckViews(file->tensors, bytes);
  auto config = kvasir::model::GgufConfig(*file);
  kvasir::fuzz::CheckConfig(config);
  kvasir::model::GgufText(*file).IgnoreError();
  if (!config.ok()) return 0;
  kvasir::model::Checkpoint checkpoint;
  checkpoint.config = *std::move(config);
  checkpoint.tensors = std::move(file->tensors);
  if (!kvasir::model::SplitTensors(checkpoint).ok()) return 0;
  kvasir::fuzz::CheckViews(checkpoint.tensors, bytes);
  kvasir::model::BuildGraph(checkpoint).IgnoreError();
  return 0;
}
