#include "cli/served_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <thread>
#include <utility>

#include "base/log.h"
#include "cli/compiled_model.h"
#include "compile/compiler.h"
#include "core/block_hash.h"
#include "grammar/deferred_compiler.h"
#include "ops/cpu/dispatch.h"
#include "ops/device_kernels.h"
#include "runtime/device_runner.h"
#include "runtime/plan_runner.h"

namespace kvasir::cli {
namespace {

constexpr int64_t kDefaultSequences = 8;  // of full length that the default KV cache holds

// `vocab` and `eos_ids` are the model's.
Status MakeText(const ModelOptions& options, const model::TextFiles& text, int32_t vocab,
                const std::vector<int32_t>& eos_ids, ServedModel& out) {
  if (options.skip_tokenizer) return absl::OkStatus();
  StatusOr<std::unique_ptr<text::Tokenizer>> tokenizer = MakeTokenizer(text);
  if (absl::IsNotFound(tokenizer.status())) {
    return absl::NotFoundError(
        "the model has no tokenizer; --skip-tokenizer-init serves it by token ids");
  }
  KVASIR_RETURN_IF_ERROR(tokenizer.status());
  out.tokenizer = *std::move(tokenizer);
  if (!eos_ids.empty()) {
    // It takes as long as all else together, and no request needs it at once.
    out.grammars = std::make_unique<grammar::DeferredCompiler>(
        [tokenizer = out.tokenizer.get(), vocab, eos_ids] {
          return grammar::MakeCompiler(*tokenizer, vocab, eos_ids, {});
        });
  }
  const std::string& source =
      options.chat_template_override.empty() ? text.chat_template : options.chat_template_override;
  if (source.empty()) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(
      out.output_format,
      text::MakeOutputFormat(options.tool_call_parser, options.reasoning_parser, source));
  KVASIR_ASSIGN_OR_RETURN(
      out.chat_template,
      text::ChatTemplate::Create(source, text.bos_token, text.eos_token, *out.tokenizer));
  return absl::OkStatus();
}

int64_t FreeMemory() { return int64_t{sysconf(_SC_AVPHYS_PAGES)} * sysconf(_SC_PAGESIZE); }

StatusOr<int32_t> ChooseBlocks(const ModelOptions& options, const plan::Plan& plan) {
  const int64_t block = plan.kv.block_bytes();
  const int64_t sequence_blocks =
      (plan.max_model_len + plan.kv.block_size - 1) / plan.kv.block_size;
  const int64_t free = FreeMemory();
  int64_t bytes = options.kv_cache_bytes;
  if (bytes == 0) bytes = std::min(kDefaultSequences * sequence_blocks * block, free / 2);
  if (bytes > free) {
    return absl::ResourceExhaustedError(fmt::format(
        "kv-cache-memory: a KV cache of {} MiB was asked for but only {} MiB of memory are free",
        bytes >> 20, free >> 20));
  }
  const int64_t blocks = std::min<int64_t>(bytes / block, 1 << 30);
  if (blocks < 2) {
    return absl::InvalidArgumentError(
        fmt::format("kv-cache-memory: {} bytes hold fewer than two blocks of {}", bytes, block));
  }
  return static_cast<int32_t>(blocks);
}

compile::CompileOptions MakeCompileOptions(const ModelOptions& options,
                                           const ops::CpuKernels* kernels) {
  const bool cpu = options.device == "cpu";
  const compile::Activations activations = !cpu ? compile::Activations::kBf16
                                           : options.activations == "f32"
                                               ? compile::Activations::kF32
                                               : compile::Activations::kNative;
  return {.kernels = kernels,
          .activations = activations,
          .kv_type = ops::KvTypeOf(options.kv_dtype),
          .block_size = options.block_size,
          .max_model_len = options.max_model_len,
          .max_batch_tokens = options.max_batch_tokens};
}

std::string ModelName(const ModelOptions& options, const plan::CompiledModel& model) {
  if (!options.served_model_name.empty()) return options.served_model_name;
  const std::filesystem::path path(options.path);
  const bool file = path.extension() == ".gguf" || path.extension() == ".kvplan";
  const std::string stem = file ? path.stem().string() : path.filename().string();
  return stem.empty() ? model.name : stem;
}

// Of what a compiled model knows.
ModelInfo InfoOf(const ModelOptions& options, const plan::CompiledModel& model) {
  return {.name = ModelName(options, model),
          .vocab_size = model.vocab,
          .eos_ids = model.eos_ids,
          .weights_fingerprint = model.fingerprint};
}

StatusOr<std::unique_ptr<runtime::Runner>> MakeCpuRunner(const ModelOptions& options,
                                                         plan::Plan plan,
                                                         std::unique_ptr<ThreadPool> pool) {
  KVASIR_ASSIGN_OR_RETURN(const int32_t blocks, ChooseBlocks(options, plan));
  return runtime::PlanRunner::Create(std::move(plan), blocks, std::move(pool));
}

StatusOr<std::unique_ptr<runtime::Runner>> MakeDeviceRunner(const ModelOptions& options,
                                                            plan::Plan plan,
                                                            std::unique_ptr<ThreadPool> pool,
                                                            ops::Accelerator accelerator) {
  const int64_t blocks = options.kv_cache_bytes / plan.kv.block_bytes();
  if (options.kv_cache_bytes > 0 && blocks < 2) {
    return absl::InvalidArgumentError(
        fmt::format("kv-cache-memory: {} bytes hold fewer than two blocks of {}",
                    options.kv_cache_bytes, plan.kv.block_bytes()));
  }
  return runtime::DeviceRunner::Create(
      std::move(plan),
      {.num_blocks = static_cast<int32_t>(std::min<int64_t>(blocks, 1 << 30)),
       .memory_share = options.memory_share},
      std::move(pool), std::move(accelerator));
}

}  // namespace

StatusOr<std::unique_ptr<text::Tokenizer>> MakeTokenizer(const model::TextFiles& text) {
  if (text.gguf_vocab) return text::Tokenizer::FromGguf(*text.gguf_vocab);
  if (text.tokenizer_json) return text::Tokenizer::FromHuggingFace(*text.tokenizer_json);
  return absl::NotFoundError("the model has no tokenizer");
}

int ComputeThreads(int wanted) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return wanted > 0 ? wanted : std::max(1, cores);
}

StatusOr<ServedModel> LoadText(const ModelOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(const ops::CpuKernels* kernels, ops::SelectKernels(options.isa));
  ThreadPool pool(ComputeThreads(options.threads));
  KVASIR_ASSIGN_OR_RETURN(const plan::CompiledModel model,
                          LoadCompiledModel(options.path, options.plan_cache,
                                            MakeCompileOptions(options, kernels), pool));
  ServedModel out;
  out.info = InfoOf(options, model);
  const Status made = MakeText(options, model.text, model.vocab, model.eos_ids, out);
  if (made.ok()) return out;
  return Status(made.code(), absl::StrCat(options.path, ": ", made.message()));
}

StatusOr<ServedModel> LoadModel(const ModelOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(const ops::CpuKernels* kernels, ops::SelectKernels(options.isa));
  const compile::CompileOptions compile_options = MakeCompileOptions(options, kernels);
  ops::Accelerator accelerator;
  if (options.device != "cpu") {
    KVASIR_ASSIGN_OR_RETURN(accelerator,
                            ops::OpenAccelerator(options.device, options.deterministic));
  }
  auto pool = std::make_unique<ThreadPool>(ComputeThreads(options.threads));
  KVASIR_ASSIGN_OR_RETURN(
      plan::CompiledModel model,
      LoadCompiledModel(options.path, options.plan_cache, compile_options, *pool));
  const auto with_path = [&](const Status& status) {
    return Status(status.code(), absl::StrCat(options.path, ": ", status.message()));
  };
  ServedModel out;
  out.info = InfoOf(options, model);
  // The vocabulary is built beside the tables of the plan.
  const model::TextFiles files = std::move(model.text);
  Status text;
  std::thread text_loader(
      [&] { text = MakeText(options, files, out.info.vocab_size, out.info.eos_ids, out); });
  StatusOr<plan::Plan> plan = compile::MakePlan(std::move(model), compile_options);
  text_loader.join();
  if (!text.ok()) return with_path(text);
  if (!plan.ok()) return with_path(plan.status());
  out.info.max_model_len = plan->max_model_len;
  out.info.block_size = plan->kv.block_size;
  out.info.numerics_id = plan->numerics_id;
  const int64_t block_bytes = plan->kv.block_bytes();
  const char* const kv_type = ops::Info(plan->kv.type).name;
  const int threads = pool->threads();
  std::string where = fmt::format("{} kernels", kernels->name);
  if (accelerator.device != nullptr) {
    where = accelerator.device->name();
    out.info.numerics_id =
        CacheRoot(plan->numerics_id, accelerator.kernels->numerics(), "", "").Hex();
    KVASIR_ASSIGN_OR_RETURN(out.runner, MakeDeviceRunner(options, *std::move(plan), std::move(pool),
                                                         std::move(accelerator)));
  } else {
    KVASIR_ASSIGN_OR_RETURN(out.runner, MakeCpuRunner(options, *std::move(plan), std::move(pool)));
  }
  spdlog::info("{}: {}, {} threads, {} KV blocks of {} tokens in {} ({} MiB)", out.info.name, where,
               threads, out.runner->num_blocks(), out.runner->block_size(), kv_type,
               out.runner->num_blocks() * block_bytes >> 20);
  return out;
}

}  // namespace kvasir::cli
