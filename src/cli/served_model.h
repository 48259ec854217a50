// From the options of `kvasir serve` to a model that an engine can run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "core/engine_client.h"
#include "grammar/compiler.h"
#include "model/checkpoint.h"
#include "runtime/runner.h"
#include "text/chat_template.h"
#include "text/output_format.h"
#include "text/tokenizer.h"

namespace kvasir::cli {

struct ModelOptions {
  std::string path;           // plan, GGUF file or Hugging Face folder
  int32_t max_model_len = 0;  // 0: the model's own
  int32_t block_size = 16;
  int64_t kv_cache_bytes = 0;  // 0: what max_model_len x 8 takes, at most half the free memory
  int32_t max_batch_tokens = 2048;
  int threads = 0;  // 0: all cores
  std::string isa = "auto";
  std::string device = "cpu";        // or what ops::OpenAccelerator knows
  bool deterministic = false;        // of a device that is not the CPU, which always is
  double memory_share = 0.92;        // of that device's memory that may be used
  std::string activations = "int8";  // or "f32"; of the CPU
  std::string kv_dtype = "auto";     // the compiled model's, or a name that ops::KvTypeOf knows
  bool plan_cache = true;            // keep what was compiled for the next start
  bool skip_tokenizer = false;
  std::string tool_call_parser = "auto";  // or a name that text/output_format.h knows
  std::string reasoning_parser = "auto";
  std::string served_model_name;  // empty: from the file
  std::string chat_template_override;
};

struct ServedModel {
  std::unique_ptr<runtime::Runner> runner;
  ModelInfo info;
  std::unique_ptr<text::Tokenizer> tokenizer;         // null: ids only
  std::unique_ptr<text::ChatTemplate> chat_template;  // null: the model has none
  std::unique_ptr<grammar::Compiler> grammars;        // null without a tokenizer
  text::OutputFormat output_format;                   // of its chat answers
};

// The compute threads that an option asks for; 0: all cores.
int ComputeThreads(int wanted);

// NotFound where the model has none.
StatusOr<std::unique_ptr<text::Tokenizer>> MakeTokenizer(const model::TextFiles& text);

// Loads and compiles. Errors name the file or option at fault.
StatusOr<ServedModel> LoadModel(const ModelOptions& options);

// The same without a runner: of `info` the context, the block size and the numerics are not set.
StatusOr<ServedModel> LoadText(const ModelOptions& options);

}  // namespace kvasir::cli
