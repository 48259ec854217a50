// Reader of the GGUF container, versions 2 and 3, little endian.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/types/span.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/checkpoint.h"
#include "model/config_source.h"

namespace kvasir::model {

using GgufValue = ConfigValue;

struct GgufFile {
  absl::flat_hash_map<std::string, GgufValue> metadata;
  TensorMap tensors;  // views into the parsed bytes
};

// Parses the bytes of one file. Every offset, count and size is checked against `bytes`; the
// error names the field at fault, not the file. Tensors of types that Kvasir does not run are an
// error that names tensor and type.
StatusOr<GgufFile> ParseGguf(absl::Span<const uint8_t> bytes);

// A whole GGUF model: the file at `path` and, when it says that it is the first of a split, its
// siblings.
StatusOr<Checkpoint> LoadGguf(const std::string& path);

// Configuration and vocabulary out of the metadata; for LoadGguf and its tests.
StatusOr<ModelConfig> GgufConfig(const GgufFile& file);
StatusOr<TextFiles> GgufText(const GgufFile& file);

}  // namespace kvasir::model
