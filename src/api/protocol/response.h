// Answers as JSON, in the shapes of the OpenAI API with vLLM's additions (token_ids, stop_reason).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/generate/choice_stream.h"
#include "api/protocol/json.h"
#include "core/engine_client.h"
#include "text/tokenizer.h"

namespace kvasir::api {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;  // prompt tokens that were not computed
};

Json UsageJson(const Usage& usage);

// What every chunk of one answer repeats, and how it is written.
struct AnswerHead {
  std::string id;
  int64_t created = 0;  // Unix seconds
  std::string model;
  bool logprobs = false;
  bool token_ids = false;
  const text::Tokenizer* tokenizer = nullptr;  // names the tokens of logprobs; may be null
};

// One choice, or a piece of one.
struct AnswerPart {
  int32_t index = 0;
  const std::vector<TokenId>* prompt_ids = nullptr;
  const ChoiceDelta* delta = nullptr;
};

// Writes one endpoint's answers. Not thread-safe: it counts the text offsets of streamed logprobs.
class AnswerWriter {
 public:
  explicit AnswerWriter(AnswerHead head) : head_(std::move(head)) {}
  virtual ~AnswerWriter() = default;

  const AnswerHead& head() const { return head_; }

  virtual Json Whole(const std::vector<AnswerPart>& choices, const Usage& usage) = 0;
  // The first chunk of a choice carries its prompt ids; a chat starts with a chunk of its own that
  // names the role, which may be null where the endpoint has none.
  virtual Json Opening(const AnswerPart& part) = 0;
  virtual Json Chunk(const AnswerPart& part, bool first) = 0;
  // The last chunk of a stream: no choices, only usage.
  Json UsageChunk(const Usage& usage) const;

 protected:
  virtual const char* ChunkObject() const = 0;
  Json Head(const char* object) const;

  AnswerHead head_;
};

std::unique_ptr<AnswerWriter> ChatAnswer(AnswerHead head);
std::unique_ptr<AnswerWriter> CompletionAnswer(AnswerHead head);

Json ModelJson(const ModelInfo& model, int64_t created);
Json TokenIdsJson(const std::vector<TokenId>& ids);

}  // namespace kvasir::api
