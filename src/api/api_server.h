// The OpenAI-compatible server: all of this folder put together over one EngineClient.
#pragma once

#include <prometheus/collectable.h>

#include <memory>
#include <string>
#include <vector>

#include "api/access/key_ring.h"
#include "api/generate/prompt.h"
#include "api/http/exchange.h"
#include "api/http/server.h"
#include "base/clock.h"
#include "base/status.h"
#include "core/engine_client.h"

namespace kvasir::api {

struct ApiOptions {
  HttpServerOptions http;
  KeyRingOptions keys;                                  // none: open to whoever can connect
  std::vector<std::string> allowed_origins;             // CORS; none by default
  Duration request_timeout = std::chrono::minutes(10);  // of a generation
  int text_threads = 1;                                 // for inputs over 8 KB
  size_t max_waiting_texts = 64;                        // more are answered 429
  Pooling pooling = Pooling::kMean;  // of embeddings, where a client does not say
  std::string version;               // what /version says
  std::string access_log;            // a path, "-" for stdout, "" for none
  std::vector<std::shared_ptr<const prometheus::Collectable>> more_metrics;  // for /metrics
};

class ApiServer {
 public:
  // `engine` and what `text` points to outlive the server.
  static StatusOr<std::unique_ptr<ApiServer>> Start(EngineClient& engine, ServedText text,
                                                    ApiOptions options);
  // The same without a socket: requests come through Handle alone.
  static StatusOr<std::unique_ptr<ApiServer>> Create(EngineClient& engine, ServedText text,
                                                     ApiOptions options);
  virtual ~ApiServer() = default;

  // Answers an exchange, on its executor. It ends before the server does.
  virtual void Handle(const std::shared_ptr<Exchange>& exchange) = 0;

  // What follows is for a server that listens.

  virtual uint16_t port() const = 0;

  // Stops accepting and lets the answers under way end, for up to `timeout`; then cancels the rest
  // and stops. /ready answers 503 meanwhile. Call once.
  virtual void Drain(Duration timeout) = 0;

  // Opens the access log's file anew, for log rotation, and reads the TLS files again. What fails
  // is logged, and stays as it was. Thread-safe.
  virtual void Reload() = 0;
};

}  // namespace kvasir::api
