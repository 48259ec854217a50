#include "cli/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "cli/cache_dir.h"
#include "cli/hub/pull.h"
#include "text/output_format.h"

namespace kvasir::cli {
namespace {

constexpr int kMany = 1 << 20;
constexpr int32_t kDraftsOfAModel = 4;  // in a pass, where nobody says
constexpr std::string_view kHubPrefix = "hf:";

StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) return absl::NotFoundError(fmt::format("cannot read {}", path));
  return std::move(text).str();
}

StatusOr<ModelOptions> MakeModelOptions(const ModelConfig& config) {
  ModelOptions options{.max_model_len = config.max_model_len,
                       .block_size = config.block_size,
                       .kv_cache_bytes = config.kv_cache_memory,
                       .max_batch_tokens = config.max_num_batched_tokens,
                       .threads = config.threads,
                       .isa = config.isa,
                       .device = config.device,
                       .deterministic = config.deterministic,
                       .memory_share = config.gpu_memory_utilization,
                       .activations = config.activations,
                       .kv_dtype = config.kv_cache_dtype,
                       .plan_cache = config.plan_cache,
                       .skip_tokenizer = config.skip_tokenizer_init,
                       .tool_call_parser = config.tool_call_parser,
                       .reasoning_parser = config.reasoning_parser,
                       .served_model_name = config.served_model_name};
  KVASIR_ASSIGN_OR_RETURN(options.path, ModelPath(config.model));
  if (!config.chat_template.empty()) {
    KVASIR_ASSIGN_OR_RETURN(options.chat_template_override, ReadTextFile(config.chat_template));
  }
  return options;
}

// Ids mean the same to both models. A vocabulary may be padded, so what has no text is not
// compared.
Status CompareVocabularies(const ServedModel& model, const ServedModel& draft) {
  if (model.tokenizer == nullptr || draft.tokenizer == nullptr) return absl::OkStatus();
  const int32_t most = std::min(model.tokenizer->vocab_size(), draft.tokenizer->vocab_size());
  for (TokenId id = 0; id < most; ++id) {
    if (model.tokenizer->TokenBytes(id) == draft.tokenizer->TokenBytes(id)) continue;
    return absl::InvalidArgumentError(
        fmt::format("draft-model: has another vocabulary: token {} differs", id));
  }
  return absl::OkStatus();
}

StatusOr<ServedModel> LoadDraftModel(const ModelConfig& config, const ServedModel& model) {
  ModelConfig smaller = config;
  smaller.model = config.draft_model;
  smaller.chat_template.clear();
  smaller.max_model_len = 0;
  smaller.kv_cache_memory = 0;
  KVASIR_ASSIGN_OR_RETURN(ModelOptions options, MakeModelOptions(smaller));
  KVASIR_ASSIGN_OR_RETURN(ServedModel draft, LoadModel(options));
  KVASIR_RETURN_IF_ERROR(CompareVocabularies(model, draft));
  return draft;
}

engine::EngineOptions MakeEngineOptions(const ModelConfig& config) {
  return {.max_num_seqs = config.max_num_seqs,
          .max_num_batched_tokens = config.max_num_batched_tokens,
          .max_queue = config.max_queue,
          .max_queue_delay =
              config.max_queue_delay == 0 ? Duration::max() : FromSeconds(config.max_queue_delay),
          .enable_prefix_caching = config.enable_prefix_caching,
          .jump_forward = config.jump_forward,
          .max_drafts = config.max_drafts,
          .itl_target = FromSeconds(config.itl_target / 1e3)};
}

template <size_t kCount>
std::vector<std::string> Names(const std::string_view (&names)[kCount]) {
  return {std::begin(names), std::end(names)};
}

void AddLoadOptions(Command& command, ModelConfig* config) {
  command.Add("served-model-name", &config->served_model_name,
              "Name of the model in the API (default: from the file)");
  command.Add("chat-template", &config->chat_template,
              "Jinja file to use instead of the model's own chat template");
  command
      .Add("tool-call-parser", &config->tool_call_parser,
           "Form of the model's tool calls (auto: by its chat template)")
      ->check(CLI::IsMember(Names(text::kToolParserNames)));
  command
      .Add("reasoning-parser", &config->reasoning_parser,
           "Form of the model's reasoning (auto: by its chat template)")
      ->check(CLI::IsMember(Names(text::kReasoningParserNames)));
  command.AddSwitch("plan-cache", &config->plan_cache,
                    "Keep the compiled model in the cache folder, for the next start");
  command.AddSwitch("skip-tokenizer-init", &config->skip_tokenizer_init,
                    "Load no tokenizer: prompts and answers are token ids");
  command
      .Add("max-model-len", &config->max_model_len,
           "Longest prompt and output together, in tokens (0: the model's own)")
      ->check(CLI::Range(0, INT32_MAX));
  command.Add("threads", &config->threads, "Compute threads (0: all cores)")
      ->check(CLI::Range(0, 1024));
  command.Add("device", &config->device, "cpu, cuda or cuda:N");
  command.AddSwitch("deterministic", &config->deterministic,
                    "On a GPU: answers do not depend on what else runs, at a lower speed");
  command
      .Add("gpu-memory-utilization", &config->gpu_memory_utilization,
           "Share of the GPU's free memory that weights, KV and all else may take")
      ->check(CLI::Range(0.05, 1.0));
  command.Add("isa", &config->isa, "Kernel family of the CPU")
      ->check(CLI::IsMember({"auto", "avx512_bf16", "avx512", "avx2", "scalar"}));
  command.Add("activations", &config->activations, "Type of activations in matrix products")
      ->check(CLI::IsMember({"int8", "f32"}));
  AddKvCacheType(command, &config->kv_cache_dtype);
}

void AddEngineOptions(Command& command, ModelConfig* config) {
  command.Add("block-size", &config->block_size, "Tokens a KV block, a multiple of 16")
      ->check(CLI::Range(16, 4096));
  command.AddBytes("kv-cache-memory", &config->kv_cache_memory,
                   "Memory of the KV cache, such as 4GiB (0: chosen by free memory)");
  command.Add("max-num-seqs", &config->max_num_seqs, "Sequences that run at once")
      ->check(CLI::Range(1, kMany));
  command.Add("max-num-batched-tokens", &config->max_num_batched_tokens, "Tokens of one step")
      ->check(CLI::Range(1, kMany));
  command.Add("max-queue", &config->max_queue, "Requests that wait before 429 is answered")
      ->check(CLI::Range(1, kMany));
  command
      .Add("max-queue-delay", &config->max_queue_delay,
           "Seconds that a request may be predicted to wait before 429 is answered (0: until its "
           "timeout)")
      ->check(CLI::Range(0.0, 1e6));
  command.Add("draft-model", &config->draft_model,
              "Smaller model of the same vocabulary that drafts tokens; answers stay the same");
  command
      .Add("max-drafts", &config->max_drafts,
           "Tokens that may be drafted for a sequence at a time, by the draft model or else by "
           "looking up what followed before (0: none, or 4 with a draft model)")
      ->check(CLI::Range(0, 64));
  command.AddSwitch("jump-forward", &config->jump_forward,
                    "Append the tokens that a constraint forces without computing them one by one");
  command.AddSwitch("enable-prefix-caching", &config->enable_prefix_caching,
                    "Keep the KV of prompts for later requests");
  command.Add("itl-target", &config->itl_target, "Milliseconds that a step with decodes may take")
      ->check(CLI::Range(1.0, 60000.0));
}

}  // namespace

void AddKvCacheType(Command& command, std::string* type) {
  command
      .Add("kv-cache-dtype", type,
           "Type of K and V in the cache (auto: what the plan was built with, or else bf16)")
      ->check(CLI::IsMember({"auto", "bf16", "f32", "int8", "fp8"}));
}

StatusOr<std::string> ModelPath(const std::string& model) {
  if (model.starts_with(kHubPrefix)) {
    KVASIR_ASSIGN_OR_RETURN(const std::filesystem::path path,
                            PullModel(std::string_view(model).substr(kHubPrefix.size())));
    return path.string();
  }
  if (model != "default") return model;
  const std::filesystem::path path = DefaultModelPath();
  if (std::filesystem::exists(path)) return path.string();
  return absl::NotFoundError(
      fmt::format("the default model is not at {}: scripts/fetch_default_model.sh fetches it, "
                  "and so does make serve",
                  path.string()));
}

void AddModelOptions(Command& command, ModelConfig* config) {
  command.SetGroup(kModelOptions);
  AddLoadOptions(command, config);
  AddEngineOptions(command, config);
  command
      .Add("pooling", &config->pooling,
           "What of a text's hidden states makes its embedding, where a client does not say")
      ->check(CLI::IsMember({"mean", "last"}));
  command.SetGroup("Options");
}

StatusOr<ServedModel> LoadModelText(const ModelConfig& config) {
  KVASIR_ASSIGN_OR_RETURN(const ModelOptions options, MakeModelOptions(config));
  return LoadText(options);
}

StatusOr<std::unique_ptr<RunningModel>> StartModel(const ModelConfig& config,
                                                   std::function<void(const Status&)> on_failure,
                                                   kv::KvEventListener* kv_listener) {
  KVASIR_ASSIGN_OR_RETURN(const ModelOptions options, MakeModelOptions(config));
  auto running = std::make_unique<RunningModel>();
  KVASIR_ASSIGN_OR_RETURN(running->model, LoadModel(options));
  ServedModel& model = running->model;
  engine::EngineOptions engine_options = MakeEngineOptions(config);
  engine_options.on_failure = std::move(on_failure);
  engine_options.kv_listener = kv_listener;
  if (!config.draft_model.empty()) {
    KVASIR_ASSIGN_OR_RETURN(running->draft, LoadDraftModel(config, model));
    engine_options.draft_runner = running->draft.runner.get();
    if (engine_options.max_drafts == 0) engine_options.max_drafts = kDraftsOfAModel;
  }
  KVASIR_ASSIGN_OR_RETURN(
      running->engine,
      engine::LocalEngine::Create(std::move(model.runner), model.info, std::move(engine_options),
                                  running->clock, model.grammars.get()));
  return StatusOr<std::unique_ptr<RunningModel>>(std::move(running));
}

Pooling PoolingOf(const ModelConfig& config) {
  return config.pooling == "last" ? Pooling::kLast : Pooling::kMean;
}

}  // namespace kvasir::cli
