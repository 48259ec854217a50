// `kvasir build`: compiles a model ahead of time.
#include <cstdio>

#include <fmt/format.h>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/compiled_model.h"
#include "cli/model_config.h"
#include "cli/served_model.h"
#include "cli/text_calibration.h"
#include "cli/text_tokens.h"
#include "model/checkpoint.h"
#include "ops/cpu/dispatch.h"

namespace kvasir::cli {
namespace {

struct BuildConfig {
  std::string model = "default";
  std::string output;
  std::string isa = "auto";
  std::string weights = "stored";
  int32_t group_size = 0;
  std::string calibrate;
  int64_t calibration_tokens = 8192;
  std::string activations = "int8";
  std::string kv = "bf16";
  int32_t max_batch_tokens = 2048;
  int32_t threads = 0;
  bool explain = false;
  std::string log_level = "info";
};

StatusOr<std::unique_ptr<TextCalibration>> ReadCalibration(const BuildConfig& config,
                                                           const std::string& path,
                                                           const compile::CompileOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(model::Checkpoint loaded, model::LoadCheckpoint(path));
  auto checkpoint = std::make_shared<const model::Checkpoint>(std::move(loaded));
  KVASIR_ASSIGN_OR_RETURN(const auto tokenizer, MakeTokenizer(checkpoint->text));
  KVASIR_ASSIGN_OR_RETURN(
      std::vector<TokenId> ids,
      ReadTokens("calibrate", config.calibrate, *tokenizer, config.calibration_tokens));
  return TextCalibration::Create(std::move(checkpoint), std::move(ids), options,
                                 ComputeThreads(config.threads));
}

StatusOr<int> Build(const BuildConfig& config) {
  KVASIR_RETURN_IF_ERROR(InitLog(config.log_level));
  compile::CompileOptions options;
  KVASIR_ASSIGN_OR_RETURN(options.kernels, ops::SelectKernels(config.isa));
  if (config.activations == "f32") options.activations = compile::Activations::kF32;
  if (config.weights == "int8") options.weights = compile::Weights::kInt8;
  if (config.weights == "int4") options.weights = compile::Weights::kInt4;
  if (config.weights == "fp8") options.weights = compile::Weights::kFp8;
  const bool integers = config.weights == "int8" || config.weights == "int4";
  if (config.group_size != 0 && !integers) {
    return absl::InvalidArgumentError("group-size: is for weights of int8 and int4");
  }
  options.group_size = config.group_size;
  if (!config.calibrate.empty() && !integers) {
    return absl::InvalidArgumentError("calibrate: is for weights of int8 and int4");
  }
  if (config.weights != "stored" && config.activations == "f32") {
    return absl::InvalidArgumentError("weights: activations in f32 take them as they are stored");
  }
  options.kv_type = ops::KvTypeOf(config.kv);
  options.max_batch_tokens = config.max_batch_tokens;
  if (!config.explain && config.output.empty()) {
    return absl::InvalidArgumentError("output: name the folder that the plan goes to");
  }
  KVASIR_ASSIGN_OR_RETURN(const std::string path, ModelPath(config.model));
  if (config.explain) {
    KVASIR_ASSIGN_OR_RETURN(const model::Checkpoint checkpoint, model::LoadCheckpoint(path));
    KVASIR_ASSIGN_OR_RETURN(const std::string text, compile::Explain(checkpoint, options));
    std::fputs(text.c_str(), stdout);
  }
  if (config.output.empty()) return 0;
  std::unique_ptr<TextCalibration> calibration;
  if (!config.calibrate.empty()) {
    KVASIR_ASSIGN_OR_RETURN(calibration, ReadCalibration(config, path, options));
    options.calibration = calibration.get();
  }
  ThreadPool pool(ComputeThreads(config.threads));
  const std::string plan = PlanPath(config.output);
  KVASIR_RETURN_IF_ERROR(BuildPlan(path, plan, options, pool));
  std::puts(plan.c_str());
  return 0;
}

}  // namespace

std::unique_ptr<Command> BuildCommand(CLI::App& program) {
  auto config = std::make_shared<BuildConfig>();
  auto command = std::make_unique<Command>(
      program, "build", "Compile a model into a plan that `kvasir serve` maps and runs.",
      [config] { return Build(*config); });
  command->AddPositional("model", &config->model,
                         "GGUF file, Hugging Face folder, hf:OWNER/REPO[:FILE], or 'default'");
  command->Add("output", &config->output, "Folder that the plan goes to", "o");
  command->Add("isa", &config->isa, "Kernel family to compile for")
      ->check(CLI::IsMember({"auto", "avx512_bf16", "avx512", "avx2", "scalar"}));
  command
      ->Add("weights", &config->weights,
            "What the matrices become: as they are stored, or rounded to integers of 8 or 4 bits "
            "or to floats of 8 bits (E4M3)")
      ->check(CLI::IsMember({"stored", "int8", "int4", "fp8"}));
  command
      ->Add("group-size", &config->group_size,
            "Columns that share a scale of int8 or int4, a multiple of 32 (0: of int8 a row, of "
            "int4 128)")
      ->check(CLI::Range(0, 1 << 20));
  command->Add("calibrate", &config->calibrate,
               "File of text that the model reads, so that rounding to int8 or int4 changes least "
               "of what it computes");
  command
      ->Add("calibration-tokens", &config->calibration_tokens,
            "Tokens of that text to take (0: all)")
      ->check(CLI::Range(int64_t{0}, INT64_MAX));
  command->Add("activations", &config->activations, "Type of activations in matrix products")
      ->check(CLI::IsMember({"int8", "f32"}));
  command
      ->Add("kv", &config->kv,
            "Type of K and V in the cache where `kvasir serve` is not told another")
      ->check(CLI::IsMember({"bf16", "f32", "int8", "fp8"}));
  command
      ->Add("max-batch-tokens", &config->max_batch_tokens,
            "Tokens of one step that --explain plans memory for")
      ->check(CLI::Range(16, 65536));
  command->Add("threads", &config->threads, "Compute threads (0: all cores)")
      ->check(CLI::Range(0, 1024));
  command->AddSwitch("explain", &config->explain,
                     "Print the graph before and after the passes, and what its plan needs");
  command->Add("log-level", &config->log_level, "trace, debug, info, warn, error or off");
  return command;
}

}  // namespace kvasir::cli
