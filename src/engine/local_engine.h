// An engine in this process: an engine::Core and the one thread that drives it. Requests reach the
// thread through a bounded mailbox; it sleeps while there is nothing to do.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/engine_client.h"
#include "engine/options.h"
#include "grammar/compiler.h"
#include "runtime/runner.h"

namespace kvasir::engine {

// Every method is thread-safe. A ResourceExhausted status says when to try again
// (core/retry_after.h). When the runner fails for good, the engine ends: every request with
// its error, Submit gives Unavailable, and Healthy() is false. The destructor cancels what is in
// flight, so that every sink has had its finish events when it returns.
class LocalEngine final : public EngineClient {
 public:
  // Submit compiles constraints with `compiler`, on the caller's thread; null: there are none here.
  // InvalidArgument when the options or `model` contradict the runner. `clock` must outlive the
  // engine. Model().max_model_len is lowered to what the runner's KV blocks hold.
  static StatusOr<std::unique_ptr<LocalEngine>> Create(std::unique_ptr<runtime::Runner> runner,
                                                       ModelInfo model, EngineOptions options,
                                                       const Clock& clock,
                                                       grammar::Compiler* compiler = nullptr);
  ~LocalEngine() override;

  const ModelInfo& Model() const override;
  Status Submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink) override;
  void Cancel(const std::string& request_id, std::optional<int32_t> choice) override;
  EngineStats Stats() const override;
  bool Healthy() const override;

  // Stops admission (Submit gives Unavailable from now on), waits up to `grace` for what is in
  // flight, cancels the rest, and checks that no block leaked: Internal if one did. Where the
  // runner failed, its error. The engine's thread has ended when it returns.
  Status Drain(Duration grace);

 private:
  class Impl;
  explicit LocalEngine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir::engine
