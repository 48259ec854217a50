#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "api/generate/embedding.h"
#include "api/protocol/embedding_request.h"
#include "api/protocol/ollama_api.h"
#include "api/routes/prepare.h"
#include "api/routes/service.h"

namespace kvasir::api {
namespace {

// One request a prompt. Without a pooling the server's counts.
StatusOr<EmbeddingJob> PrepareEmbedding(const Service& service, const HttpRequest& http,
                                        GenerationOptions options, std::optional<Pooling> pooling,
                                        std::vector<PromptIds> prompts,
                                        std::function<Json(Embeddings)> answer) {
  options.pooling = pooling.value_or(service.pooling);
  options.max_tokens = 0;
  KVASIR_RETURN_IF_ERROR(CompleteOptions(service, &options));
  KVASIR_ASSIGN_OR_RETURN(
      GenerationJob job,
      PreparePrompts(service, http, NewId("embd-"), std::move(options), std::move(prompts), 0));
  return EmbeddingJob{.requests = std::move(job.requests), .answer = std::move(answer)};
}

StatusOr<EmbeddingJob> PrepareEmbeddings(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(EmbeddingRequest request, ReadBody(json, &ReadEmbeddingRequest));
  KVASIR_ASSIGN_OR_RETURN(
      std::vector<PromptIds> prompts,
      EncodePrompts(service, request.input, request.options.add_special_tokens, "input"));
  const auto answer = [model = service.engine.Model().name, normalize = request.normalize,
                       base64 = request.base64](Embeddings embeddings) {
    Json body = {{"object", "list"}, {"data", Json::array()}, {"model", model}};
    for (std::vector<float>& vector : embeddings.vectors) {
      if (normalize) Normalize(&vector);
      body["data"].push_back({{"object", "embedding"},
                              {"index", body["data"].size()},
                              {"embedding", base64 ? Json(Base64(vector)) : Json(vector)}});
    }
    body["usage"] = {{"prompt_tokens", embeddings.prompt_tokens},
                     {"total_tokens", embeddings.prompt_tokens}};
    return body;
  };
  return PrepareEmbedding(service, http, std::move(request.options), request.pooling,
                          std::move(prompts), answer);
}

TextOrIdsList AsList(const std::vector<std::string>& texts) {
  TextOrIdsList list{.batch = true};
  for (const std::string& text : texts) list.items.emplace_back(text);
  return list;
}

struct Ranked {
  size_t index = 0;
  double score = 0;
};

// How near each vector is to the first, the nearest first.
std::vector<Ranked> Rank(Embeddings* embeddings, std::optional<int32_t> top_n) {
  for (std::vector<float>& vector : embeddings->vectors) Normalize(&vector);
  std::vector<Ranked> ranked;
  for (size_t i = 1; i < embeddings->vectors.size(); ++i) {
    ranked.push_back({i - 1, Cosine(embeddings->vectors[0], embeddings->vectors[i])});
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const Ranked& a, const Ranked& b) { return a.score > b.score; });
  if (top_n && static_cast<size_t>(*top_n) < ranked.size()) ranked.resize(*top_n);
  return ranked;
}

StatusOr<EmbeddingJob> PrepareRerank(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(RerankRequest request, ReadBody(json, &ReadRerankRequest));
  const bool special = request.options.add_special_tokens;
  KVASIR_ASSIGN_OR_RETURN(std::vector<PromptIds> prompts,
                          EncodePrompts(service, {{request.query}}, special, "query"));
  KVASIR_ASSIGN_OR_RETURN(std::vector<PromptIds> documents,
                          EncodePrompts(service, AsList(request.documents), special, "documents"));
  std::move(documents.begin(), documents.end(), std::back_inserter(prompts));
  const auto answer = [id = NewId("rerank-"), model = service.engine.Model().name,
                       texts = std::move(request.documents), top_n = request.top_n,
                       show = request.return_documents](Embeddings embeddings) {
    Json body = {
        {"id", id},
        {"model", model},
        {"usage",
         {{"prompt_tokens", embeddings.prompt_tokens}, {"total_tokens", embeddings.prompt_tokens}}},
        {"results", Json::array()}};
    for (const Ranked& ranked : Rank(&embeddings, top_n)) {
      Json result = {{"index", ranked.index}, {"relevance_score", ranked.score}};
      if (show) result["document"] = {{"text", texts[ranked.index]}};
      body["results"].push_back(std::move(result));
    }
    return body;
  };
  return PrepareEmbedding(service, http, std::move(request.options), request.pooling,
                          std::move(prompts), answer);
}

StatusOr<EmbeddingJob> PrepareScore(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(ScoreRequest request, ReadBody(json, &ReadScoreRequest));
  const bool special = request.options.add_special_tokens;
  KVASIR_ASSIGN_OR_RETURN(std::vector<PromptIds> prompts,
                          EncodePrompts(service, AsList(request.first), special, "text_1"));
  KVASIR_ASSIGN_OR_RETURN(std::vector<PromptIds> others,
                          EncodePrompts(service, AsList(request.second), special, "text_2"));
  const size_t first = prompts.size(), second = others.size();
  std::move(others.begin(), others.end(), std::back_inserter(prompts));
  const auto answer = [id = NewId("score-"), model = service.engine.Model().name,
                       created = service.created, first, second](Embeddings embeddings) {
    std::vector<std::vector<float>>& vectors = embeddings.vectors;
    for (std::vector<float>& vector : vectors) Normalize(&vector);
    Json data = Json::array();
    for (size_t i = 0; i < std::max(first, second); ++i) {
      const double score =
          Cosine(vectors[first == 1 ? 0 : i], vectors[first + (second == 1 ? 0 : i)]);
      data.push_back({{"index", i}, {"object", "score"}, {"score", score}});
    }
    return Json{{"id", id},
                {"object", "list"},
                {"created", created},
                {"model", model},
                {"data", std::move(data)},
                {"usage",
                 {{"prompt_tokens", embeddings.prompt_tokens},
                  {"total_tokens", embeddings.prompt_tokens}}}};
  };
  return PrepareEmbedding(service, http, std::move(request.options), request.pooling,
                          std::move(prompts), answer);
}

StatusOr<EmbeddingJob> PrepareOllamaEmbed(const Service& service, const HttpRequest& http) {
  KVASIR_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(http.body));
  KVASIR_ASSIGN_OR_RETURN(OllamaEmbed request, ReadBody(json, &ReadOllamaEmbed));
  GenerationOptions options;
  options.model = std::move(request.model);
  if (request.truncate) options.truncate_prompt = -1;
  KVASIR_ASSIGN_OR_RETURN(std::vector<PromptIds> prompts,
                          EncodePrompts(service, AsList(request.input), true, "input"));
  const auto answer = [model = service.engine.Model().name](Embeddings embeddings) {
    Json body = {{"model", model}, {"embeddings", Json::array()}};
    for (std::vector<float>& vector : embeddings.vectors) {
      Normalize(&vector);
      body["embeddings"].push_back(vector);
    }
    body["prompt_eval_count"] = embeddings.prompt_tokens;
    return body;
  };
  return PrepareEmbedding(service, http, std::move(options), std::nullopt, std::move(prompts),
                          answer);
}

using PrepareEmbeddingFunction = StatusOr<EmbeddingJob> (*)(const Service&, const HttpRequest&);

Handler EmbeddingHandler(Service& service, PrepareEmbeddingFunction prepare, ErrorFunction error) {
  return [&service, prepare, error](const std::shared_ptr<Exchange>& exchange) {
    const auto work = [&service, exchange, prepare, error]() -> StatusOr<Continuation> {
      KVASIR_ASSIGN_OR_RETURN(EmbeddingJob prepared, prepare(service, exchange->request()));
      prepared.error = error;
      auto job = std::make_shared<EmbeddingJob>(std::move(prepared));
      return [&service, exchange, job] {
        StartEmbedding(service.engine, service.metrics, exchange, std::move(*job));
      };
    };
    PrepareThen(service, exchange, work, error);
  };
}

}  // namespace

void AddEmbeddingRoutes(Service& service, Router& router) {
  const auto add = [&](const char* path, const char* summary, Json body,
                       PrepareEmbeddingFunction prepare, ErrorFunction error = & ErrorResponse) {
    AddRoute(service, router,
             {.method = "POST",
              .path = path,
              .summary = summary,
              .body = std::move(body),
              .errors = {404, 408}},
             EmbeddingHandler(service, prepare, error));
  };
  add("/v1/embeddings", "vectors that stand for texts", DescribeBody(&ReadEmbeddingRequest),
      &PrepareEmbeddings);
  for (const char* path : {"/v1/rerank", "/rerank"}) {
    add(path, "documents by how near their embeddings are to that of a query",
        DescribeBody(&ReadRerankRequest), &PrepareRerank);
  }
  for (const char* path : {"/v1/score", "/score"}) {
    add(path, "how near the embeddings of two texts are", DescribeBody(&ReadScoreRequest),
        &PrepareScore);
  }
  add("/api/embed", "vectors that stand for texts, in Ollama's shapes",
      DescribeBody(&ReadOllamaEmbed), &PrepareOllamaEmbed, &OllamaError);
}

}  // namespace kvasir::api
