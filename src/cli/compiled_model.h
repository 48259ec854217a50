// From what a user names to a compiled model: a plan that was built, one that is in the cache, or
// the model's own files, compiled now.
#pragma once

#include <string>

#include "base/status.h"
#include "base/thread_pool.h"
#include "compile/compiler.h"
#include "plan/plan.h"

namespace kvasir::cli {

// `kvasir build -o DIR` writes DIR/model.kvplan.
std::string PlanPath(const std::string& folder);

// `path` is a plan, a folder that holds one, a GGUF file or a Hugging Face folder. Compiling shows
// a progress bar. With `cache`, what is compiled is kept for the next start, and taken from there
// as long as the model's files have not changed; that it cannot be kept is only logged. Errors name
// the file.
StatusOr<plan::CompiledModel> LoadCompiledModel(const std::string& path, bool cache,
                                                const compile::CompileOptions& options,
                                                ThreadPool& pool);

// Compiles a GGUF file or a Hugging Face folder into `plan_path`, showing a progress bar. The
// options' KV type becomes the plan's.
Status BuildPlan(const std::string& path, const std::string& plan_path,
                 const compile::CompileOptions& options, ThreadPool& pool);

}  // namespace kvasir::cli
