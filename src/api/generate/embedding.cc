#include "api/generate/embedding.h"

#include <cmath>
#include <utility>

#include "api/generate/submission.h"

namespace kvasir::api {
namespace {

class Embedding final : public Submission {
 public:
  Embedding(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
            EmbeddingJob job)
      : Submission(engine, metrics, std::move(exchange), job.requests),
        job_(std::move(job)),
        unfinished_(job_.requests.size()) {
    embeddings_.vectors.resize(unfinished_);
    for (const auto& request : job_.requests) {
      embeddings_.prompt_tokens += static_cast<int64_t>(request->prompt_ids.size());
    }
  }

 private:
  void Handle(Arrived arrived) override {
    if (const Status early = EndedEarly(arrived); !early.ok()) return Fail(early);
    if (!arrived.event.embedding.empty()) {
      embeddings_.vectors[arrived.prompt] = std::move(arrived.event.embedding);
    }
    if (!arrived.event.finish || --unfinished_ > 0) return;
    Conclude(0);
    exchange().Respond({.body = Dump(job_.answer(std::move(embeddings_)))});
  }

  void AnswerError(const Status& status) override {
    exchange().Respond(job_.error(ToErrorObject(status)));
  }

  const EmbeddingJob job_;
  size_t unfinished_;
  Embeddings embeddings_;
};

}  // namespace

void StartEmbedding(EngineClient& engine, Metrics& metrics, std::shared_ptr<Exchange> exchange,
                    EmbeddingJob job) {
  std::make_shared<Embedding>(engine, metrics, std::move(exchange), std::move(job))->Start();
}

void Normalize(std::vector<float>* vector) {
  double squares = 0;
  for (const float v : *vector) squares += double{v} * v;
  if (squares == 0) return;
  const double scale = 1 / std::sqrt(squares);
  for (float& v : *vector) v = static_cast<float>(v * scale);
}

double Cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * b[i];
  return sum;
}

}  // namespace kvasir::api
