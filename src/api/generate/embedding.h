// One HTTP request's embeddings: its inputs, from submission to the answer.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "api/http/exchange.h"
#include "api/metrics.h"
#include "api/protocol/error.h"
#include "api/protocol/json.h"
#include "core/engine_client.h"

namespace kvasir::api {

struct Embeddings {
  std::vector<std::vector<float>> vectors;  // of each request, as the engine gave them
  int64_t prompt_tokens = 0;
};

struct EmbeddingJob {
  std::vector<std::shared_ptr<const Request>> requests;  // each with a pooling
  std::function<Json(Embeddings embeddings)> answer;
  HttpResponse (*error)(const ErrorObject&) = &ErrorResponse;
};

// As StartGeneration.
void StartEmbedding(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
                    EmbeddingJob job);

// Scales to length 1; a vector of zeros stays one.
void Normalize(std::vector<float>* vector);
// Of vectors of length 1.
double Cosine(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace kvasir::api
