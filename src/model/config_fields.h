// Fields of configurations that several architectures share.
#pragma once

#include <string>

#include "model/config.h"
#include "model/config_source.h"

namespace kvasir::model {

// A window over all layers, or none.
void ReadUniformWindow(ConfigSource& source, ModelConfig* config);

// A window over the layers from max_window_layers on, where use_sliding_window says so.
void ReadQwenWindow(ConfigSource& source, ModelConfig* config);

// A window over the layers that layer_types names; where it names none, over all but each
// `full_layer`-th of `period`.
void ReadLayerWindows(ConfigSource& source, int32_t period, int32_t full_layer,
                      ModelConfig* config);

// How many experts there are and how many a token takes; none where GGUF says nothing of them.
void ReadExperts(ConfigSource& source, ModelConfig* config);

// The rotation, out of the object of config.json at `path`.
void ReadRopeObject(ConfigSource& source, const std::string& path, int32_t head_dim,
                    RopeConfig* rope);

}  // namespace kvasir::model
