// Reader of the safetensors container and of Hugging Face model folders.
// Format: https://github.com/huggingface/safetensors#format
#pragma once

#include <absl/types/span.h>

#include <string>

#include "base/status.h"
#include "model/checkpoint.h"

namespace kvasir::model {

// Parses the bytes of one file into views by the file's own tensor names. Every offset is checked
// against `bytes`, and the header against a nesting and a size limit.
StatusOr<TensorMap> ParseSafetensors(absl::Span<const uint8_t> bytes);

// A folder of config.json, one or more safetensors files, and optionally tokenizer.json,
// tokenizer_config.json, chat_template.jinja and generation_config.json.
StatusOr<Checkpoint> LoadHuggingFace(const std::string& folder);

// For LoadHuggingFace, its tests and the fuzz targets: `json` is the content of config.json.
StatusOr<ModelConfig> HuggingFaceConfig(std::string_view json);

}  // namespace kvasir::model
