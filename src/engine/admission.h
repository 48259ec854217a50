// What an engine refuses before it takes a request. Pure.
#pragma once

#include "core/engine_client.h"
#include "core/request.h"
#include "engine/options.h"
#include "runtime/runner.h"

namespace kvasir::engine {

// InvalidArgument when an option is out of range.
Status CheckOptions(const EngineOptions& options);

// `model` with its context cut to what the runner's KV blocks hold. InvalidArgument when model and
// runner contradict each other.
StatusOr<ModelInfo> FitModel(ModelInfo model, const runtime::Runner& runner);

// InvalidArgument when the options' draft model cannot draft for `model`.
Status CheckDraftRunner(const ModelInfo& model, const EngineOptions& options);

// InvalidArgument when `request` can never run on `model` under these options; the message starts
// with the field.
Status CheckRequest(const Request& request, const ModelInfo& model, const EngineOptions& options);

}  // namespace kvasir::engine
