// What the routes work with, and the routes themselves, in groups.
#pragma once

#include <atomic>
#include <ctime>
#include <functional>
#include <memory>
#include <string>

#include "api/generate/prompt.h"
#include "api/http/exchange.h"
#include "api/http/router.h"
#include "api/metrics.h"
#include "api/protocol/error.h"
#include "api/protocol/json.h"
#include "api/protocol/openapi.h"
#include "api/text_pool.h"
#include "core/engine_client.h"

namespace kvasir::api {

// Lives as long as the server. Immutable apart from `draining`.
struct Service {
  EngineClient& engine;
  const ServedText text;
  Metrics& metrics;
  TextPool& text_pool;
  TextPool& constraint_pool;  // its work waits for compilations
  const Duration request_timeout;
  const Pooling pooling;  // of embeddings, where a client does not say
  const std::string version;
  const int64_t created = std::time(nullptr);  // of the model, as /v1/models tells it; Unix seconds
  OpenApi openapi{version};
  std::atomic<bool> draining{false};
};

// /v1/completions, /v1/chat/completions
void AddOpenAiRoutes(Service& service, Router& router);
// /v1/responses
void AddResponsesRoutes(Service& service, Router& router);
// /v1/messages, /v1/messages/count_tokens
void AddMessagesRoutes(Service& service, Router& router);
// /v1/embeddings, /v1/rerank, /score
void AddEmbeddingRoutes(Service& service, Router& router);
// /api/chat, /api/generate, /api/embed, /api/tags, /api/show, /api/ps, /api/version
void AddOllamaRoutes(Service& service, Router& router);
// /generate
void AddSglangRoutes(Service& service, Router& router);
// /tokenize, /detokenize
void AddTextRoutes(Service& service, Router& router);
// /v1/models, /health, /ready, /metrics, /version, /openapi.json
void AddServiceRoutes(Service& service, Router& router);

// A route, and its place in /openapi.json.
void AddRoute(Service& service, Router& router, Operation operation, Handler handler);

// How a protocol spells an error that comes instead of an answer.
using ErrorFunction = HttpResponse (*)(const ErrorObject& error);

// Runs `work`, which parses and tokenizes, here or, when the body is large, on the text pool, and
// then what it returned on the exchange's executor. An error is answered. With a full pool: 429.
using Continuation = std::function<void()>;
void PrepareThen(Service& service, const std::shared_ptr<Exchange>& exchange,
                 std::function<StatusOr<Continuation>()> work,
                 ErrorFunction error = &ErrorResponse);

// A handler that answers with what `function` makes of the body, or with its error.
using BodyFunction = StatusOr<Json> (*)(const Service& service, const Json& body);
Handler BodyHandler(Service& service, BodyFunction function, ErrorFunction error = &ErrorResponse);

// NotFound, with the code that OpenAI clients know, unless `model` is empty or the one we serve.
Status CheckModel(const Service& service, const std::string& model);

}  // namespace kvasir::api
