// The architectures, one file each under architectures/: what their configuration says beyond what
// all have in common, and how their tensors are named. A decoder's graph follows from the
// configuration (decoder.h).
#pragma once

#include <absl/types/span.h>

#include <string_view>

#include "base/status.h"
#include "graph/graph.h"
#include "model/checkpoint.h"
#include "model/config_source.h"

namespace kvasir::model {

// A part of a tensor's name in Hugging Face checkpoints, after "model.layers.N.", and what stands
// for it in ours, after "blk.N.".
struct TensorName {
  std::string_view hugging_face;
  std::string_view ours;
};

struct Architecture {
  const char* name;          // general.architecture of GGUF
  const char* hugging_face;  // the class in config.json
  void (*configure)(ConfigSource& source, ModelConfig* config);
  absl::Span<const TensorName> tensors = {};  // tried before those that all have in common
  bool in_gguf = true;                        // false: GGUF knows it under another's name
};

absl::Span<const Architecture* const> Architectures();

// Null where there is none.
const Architecture* FindGguf(std::string_view name);
const Architecture* FindHuggingFace(std::string_view class_name);
const Architecture* FindArchitecture(std::string_view name);

// What an error about an unknown one lists.
std::string SupportedClasses();
std::string SupportedGguf();

// Everything that the configuration says, but for what lies in tensors. `source` tells errors.
StatusOr<ModelConfig> ReadConfig(const Architecture& architecture, ConfigSource& source);

// Builds the graph of the checkpoint after checking that the configuration makes sense and that
// every tensor exists with the shape that the configuration asks for; the error names the tensor,
// the expected and the found shape.
StatusOr<graph::Graph> BuildGraph(const Checkpoint& checkpoint);

}  // namespace kvasir::model
