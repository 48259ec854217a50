// Bodies that ask for embeddings, or for what is made of them: OpenAI's /v1/embeddings, Jina's and
// Cohere's /v1/rerank, vLLM's /score.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/protocol/request.h"

namespace kvasir::api {

struct EmbeddingRequest {
  GenerationOptions options;
  TextOrIdsList input;
  std::optional<Pooling> pooling;  // none: the server's
  bool normalize = true;           // to length 1
  bool base64 = false;             // of little-endian floats, instead of an array
};

struct RerankRequest {
  GenerationOptions options;
  std::optional<Pooling> pooling;
  std::string query;
  std::vector<std::string> documents;
  std::optional<int32_t> top_n;  // none: all
  bool return_documents = true;
};

// Pairs of texts. Of the two lists one may hold a single text, which then goes with all of the
// other.
struct ScoreRequest {
  GenerationOptions options;
  std::optional<Pooling> pooling;
  std::vector<std::string> first, second;
};

void ReadEmbeddingRequest(FieldReader& reader, EmbeddingRequest* request);
void ReadRerankRequest(FieldReader& reader, RerankRequest* request);
void ReadScoreRequest(FieldReader& reader, ScoreRequest* request);

std::string Base64(const std::vector<float>& values);

}  // namespace kvasir::api
