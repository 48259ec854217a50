// `kvasir eval`: perplexity of a model over a text, and its distance from a reference.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include <fmt/format.h>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/evaluate.h"
#include "cli/model_config.h"
#include "cli/progress_bar.h"
#include "cli/served_model.h"
#include "cli/text_tokens.h"

namespace kvasir::cli {
namespace {

struct EvalConfig {
  std::string model = "default";
  std::string text;
  std::string reference;
  int32_t context = 2048;
  int64_t max_tokens = 0;
  int32_t threads = 0;
  std::string kv_cache_dtype = "auto";
  bool json = false;
  std::string log_level = "warn";
};

// A model whose KV holds one window.
StatusOr<ServedModel> Load(const EvalConfig& config, const std::string& model, bool exact) {
  ModelOptions options{.max_batch_tokens = 256, .threads = config.threads};
  options.kv_dtype = exact ? "f32" : config.kv_cache_dtype;
  if (exact) {
    options.activations = "f32";
    options.plan_cache = false;  // expanded weights are large and seldom wanted
  }
  options.skip_tokenizer = exact;
  options.kv_cache_bytes = int64_t{1} << 30;
  KVASIR_ASSIGN_OR_RETURN(options.path, ModelPath(model));
  return LoadModel(options);
}

void Print(const EvalConfig& config, const Evaluation& e) {
  if (config.json) {
    nlohmann::json out = {{"tokens", e.tokens}, {"nll", e.nll}, {"perplexity", e.perplexity()}};
    if (!config.reference.empty()) {
      out["reference_perplexity"] = e.reference_perplexity();
      out["perplexity_ratio"] = e.perplexity() / e.reference_perplexity();
      out["kl"] = e.kl;
      out["same_best"] = e.same_best;
    }
    std::puts(out.dump().c_str());
    return;
  }
  std::string text = fmt::format(
      "tokens               {}\nmean NLL             {:.5f}\n"
      "perplexity           {:.4f}\n",
      e.tokens, e.nll, e.perplexity());
  if (!config.reference.empty()) {
    text += fmt::format(
        "reference            {:.4f}\nratio                {:.5f}\n"
        "mean KL              {:.6f}\nsame likeliest       {:.2f} %\n",
        e.reference_perplexity(), e.perplexity() / e.reference_perplexity(), e.kl,
        100 * e.same_best);
  }
  std::fputs(text.c_str(), stdout);
}

StatusOr<int> Eval(const EvalConfig& config) {
  KVASIR_RETURN_IF_ERROR(InitLog(config.log_level));
  KVASIR_ASSIGN_OR_RETURN(const ServedModel model, Load(config, config.model, false));
  ServedModel reference;
  if (!config.reference.empty()) {
    KVASIR_ASSIGN_OR_RETURN(reference, Load(config, config.reference, true));
  }
  int32_t context = std::min(config.context, model.info.max_model_len);
  if (reference.runner) context = std::min(context, reference.info.max_model_len);
  for (const runtime::Runner* runner : {model.runner.get(), reference.runner.get()}) {
    if (runner != nullptr) context = std::min(context, runner->num_blocks() * runner->block_size());
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                          ReadTokens("text", config.text, *model.tokenizer, config.max_tokens));
  ProgressBar bar(ProgressBar::Unit::kSteps);
  KVASIR_ASSIGN_OR_RETURN(
      const Evaluation result,
      Evaluate(*model.runner, reference.runner.get(), ids, context,
               [&](int64_t done, int64_t total) { bar.Show("evaluating", done, total); }));
  Print(config, result);
  return 0;
}

}  // namespace

std::unique_ptr<Command> EvalCommand(CLI::App& program) {
  auto config = std::make_shared<EvalConfig>();
  auto command = std::make_unique<Command>(
      program, "eval", "Measure how well a model predicts a text, and how far from a reference.",
      [config] { return Eval(*config); });
  command->AddPositional("model", &config->model, kModelHelp);
  command->Add("text", &config->text, "File of text in UTF-8")->required();
  command->Add("reference", &config->reference,
               "Model to compare with, computed in float: its weights expanded, activations and KV "
               "in F32");
  command->Add("context", &config->context, "Tokens of a window, each computed on its own")
      ->check(CLI::Range(2, 1 << 20));
  command->Add("max-tokens", &config->max_tokens, "Tokens of the text to take (0: all)")
      ->check(CLI::Range(int64_t{0}, INT64_MAX));
  command->Add("threads", &config->threads, "Compute threads (0: all cores)")
      ->check(CLI::Range(0, 1024));
  AddKvCacheType(*command, &config->kv_cache_dtype);
  command->AddSwitch("json", &config->json, "Print the figures as a line of JSON");
  command->Add("log-level", &config->log_level, "trace, debug, info, warn, error or off");
  return command;
}

}  // namespace kvasir::cli
