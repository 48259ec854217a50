// The options that commands which run a model in this process have in common, and that model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "api/generate/prompt.h"
#include "base/clock.h"
#include "base/status.h"
#include "cli/command.h"
#include "cli/served_model.h"
#include "engine/local_engine.h"

namespace kvasir::cli {

inline constexpr const char* kModelHelp =
    "GGUF file, Hugging Face folder, what kvasir build made, hf:OWNER/REPO[:FILE], or 'default'";

struct ModelConfig {
  std::string model = "default";
  std::string served_model_name;
  std::string chat_template;  // path of a Jinja file
  std::string tool_call_parser = "auto";
  std::string reasoning_parser = "auto";
  bool skip_tokenizer_init = false;
  bool plan_cache = true;
  int32_t max_model_len = 0;
  int32_t threads = 0;
  std::string device = "cpu";
  bool deterministic = false;
  double gpu_memory_utilization = 0.92;
  std::string isa = "auto";
  std::string activations = "int8";
  std::string kv_cache_dtype = "auto";

  int32_t block_size = 16;
  int64_t kv_cache_memory = 0;  // bytes
  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 2048;
  int32_t max_queue = 1024;
  double max_queue_delay = 0;  // s; 0: the request's own deadline
  std::string draft_model;     // like model; empty: none
  int32_t max_drafts = 0;
  bool jump_forward = true;
  bool enable_prefix_caching = true;
  double itl_target = 50;        // ms
  std::string pooling = "mean";  // of embeddings, where a client does not say
};

// The heading of all of them.
inline constexpr const char* kModelOptions = "Model and engine";

// All of them but the model itself, which is a positional argument here and a flag there.
void AddModelOptions(Command& command, ModelConfig* config);

// --kv-cache-dtype
void AddKvCacheType(Command& command, std::string* type);

// Fetches what lies on a hub. Errors name the model.
StatusOr<std::string> ModelPath(const std::string& model);

inline api::ServedText TextOf(const ServedModel& model) {
  return {model.tokenizer.get(), model.chat_template.get(), model.output_format,
          model.grammars.get()};
}

// A model and the engine that runs it.
struct RunningModel {
  SteadyClock clock;
  ServedModel model;
  ServedModel draft;  // empty without a draft model
  std::unique_ptr<engine::LocalEngine> engine;

  api::ServedText text() const { return TextOf(model); }
};

// What the API takes of a model that is served here or elsewhere: its name, tokenizer, templates
// and grammars, and no runner. Compiles the model, if it is not yet in the cache, so that workers
// find it there.
StatusOr<ServedModel> LoadModelText(const ModelConfig& config);

// Loads, compiles and starts. Errors name the file or option at fault. `on_failure` and
// `kv_listener` are engine::EngineOptions's.
StatusOr<std::unique_ptr<RunningModel>> StartModel(
    const ModelConfig& config, std::function<void(const Status&)> on_failure = nullptr,
    kv::KvEventListener* kv_listener = nullptr);

Pooling PoolingOf(const ModelConfig& config);

}  // namespace kvasir::cli
