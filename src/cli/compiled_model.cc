#include "cli/compiled_model.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>
#include <fmt/format.h>

#include "base/log.h"
#include "cli/cache_dir.h"
#include "cli/progress_bar.h"
#include "core/block_hash.h"
#include "model/checkpoint.h"
#include "plan/plan_file.h"

namespace kvasir::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kExtension = ".kvplan";

// The plan that `path` is or holds; empty: none.
std::string PlanAt(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    const std::string inside = PlanPath(path);
    return fs::exists(inside, error) ? inside : "";
  }
  return fs::path(path).extension() == kExtension ? path : "";
}

// What a compiled model is made from: this program, and the model's files; of a folder all, for
// another tokenizer is another model.
StatusOr<std::vector<plan::SourceFile>> SourcesOf(const std::string& path,
                                                  const std::vector<std::string>& files) {
  std::vector<std::string> paths = files;
  std::error_code error;
  if (fs::is_directory(path, error)) {
    paths.clear();
    for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
      if (entry.is_regular_file(error)) paths.push_back(entry.path().string());
    }
  }
  paths.push_back(fs::read_symlink("/proc/self/exe", error).string());
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  std::vector<plan::SourceFile> out;
  for (const std::string& file : paths) {
    KVASIR_ASSIGN_OR_RETURN(plan::SourceFile source, plan::DescribeFile(file));
    out.push_back(std::move(source));
  }
  return out;
}

struct Compiled {
  plan::CompiledModel model;
  std::vector<plan::SourceFile> sources;
};

StatusOr<Compiled> CompileFiles(const std::string& path, const compile::CompileOptions& options,
                                ThreadPool& pool) {
  KVASIR_ASSIGN_OR_RETURN(model::Checkpoint loaded, model::LoadCheckpoint(path));
  auto checkpoint = std::make_shared<const model::Checkpoint>(std::move(loaded));
  std::vector<std::string> files;
  for (const auto& file : checkpoint->files) files.push_back(file->path());
  Compiled out;
  KVASIR_ASSIGN_OR_RETURN(out.sources, SourcesOf(path, files));
  ProgressBar bar(ProgressBar::Unit::kSteps);
  StatusOr<plan::CompiledModel> model = compile::CompileModel(
      std::move(checkpoint), options, pool,
      [&](int64_t done, int64_t total) { bar.Show("compiling", done, total); });
  if (!model.ok()) {
    return Status(model.status().code(), absl::StrCat(path, ": ", model.status().message()));
  }
  out.model = *std::move(model);
  return out;
}

Status Write(const Compiled& compiled, const std::string& plan_path) {
  std::error_code error;
  fs::create_directories(fs::path(plan_path).parent_path(), error);
  ProgressBar bar;
  return plan::WritePlan(
      compiled.model, compiled.sources, plan_path,
      [&](int64_t done, int64_t total) { bar.Show("writing the plan", done, total); });
}

// One for each path and way to compile, so that a changed model replaces its old plan.
std::string CachePath(const std::string& path, const compile::CompileOptions& options) {
  std::error_code error;
  const std::string whole = fs::absolute(path, error).string();
  const std::string text = fmt::format("{}:{}:{}", whole, static_cast<int>(options.activations),
                                       options.kernels->bf16_pairs);
  const std::string name = CacheRoot(text, "", "", "").Hex() + std::string(kExtension);
  return (CacheDir() / "plans" / name).string();
}

// Why a plan in the cache no longer stands for the model; empty: it does.
StatusOr<std::string> Stale(const std::string& path, const plan::PlanFile& file) {
  std::vector<std::string> paths;
  for (const plan::SourceFile& source : file.sources) paths.push_back(source.path);
  KVASIR_ASSIGN_OR_RETURN(const auto now, SourcesOf(path, paths));
  if (now.size() != file.sources.size()) return "files came or went";
  for (size_t i = 0; i < now.size(); ++i) {
    if (now[i] != file.sources[i]) return fmt::format("{} changed", now[i].path);
  }
  return "";
}

StatusOr<plan::CompiledModel> LoadCached(const std::string& path, const std::string& cached) {
  KVASIR_ASSIGN_OR_RETURN(plan::PlanFile file, plan::ReadPlan(cached));
  KVASIR_ASSIGN_OR_RETURN(const std::string why, Stale(path, file));
  if (!why.empty()) return absl::FailedPreconditionError(why);
  return std::move(file.model);
}

StatusOr<plan::CompiledModel> LoadBuilt(const std::string& plan_path,
                                        const compile::CompileOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(plan::PlanFile file, plan::ReadPlan(plan_path));
  const char* wanted = compile::Name(options.activations);
  if (file.model.activations != wanted) {
    return absl::FailedPreconditionError(fmt::format("{}: was built for activations '{}', not '{}'",
                                                     plan_path, file.model.activations, wanted));
  }
  return std::move(file.model);
}

}  // namespace

std::string PlanPath(const std::string& folder) {
  return (fs::path(folder) / "model").string() + std::string(kExtension);
}

StatusOr<plan::CompiledModel> LoadCompiledModel(const std::string& path, bool cache,
                                                const compile::CompileOptions& options,
                                                ThreadPool& pool) {
  const std::string built = PlanAt(path);
  if (!built.empty()) return LoadBuilt(built, options);
  std::error_code error;
  if (!cache || !fs::exists(path, error)) {
    KVASIR_ASSIGN_OR_RETURN(Compiled compiled, CompileFiles(path, options, pool));
    return std::move(compiled.model);
  }
  const std::string cached = CachePath(path, options);
  if (fs::exists(cached, error)) {
    StatusOr<plan::CompiledModel> model = LoadCached(path, cached);
    if (model.ok()) return model;
    spdlog::info("compiling again: {}", std::string(model.status().message()));
  }
  KVASIR_ASSIGN_OR_RETURN(Compiled compiled, CompileFiles(path, options, pool));
  const Status written = Write(compiled, cached);
  if (!written.ok()) spdlog::warn("the plan is not kept: {}", std::string(written.message()));
  return std::move(compiled.model);
}

Status BuildPlan(const std::string& path, const std::string& plan_path,
                 const compile::CompileOptions& options, ThreadPool& pool) {
  KVASIR_ASSIGN_OR_RETURN(Compiled compiled, CompileFiles(path, options, pool));
  if (options.kv_type) compiled.model.kv_type = *options.kv_type;
  return Write(compiled, plan_path);
}

}  // namespace kvasir::cli
