// The OpenAI API as a client of streams sees it.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/sampling_params.h"
#include "loadgen/sse.h"

namespace kvasir::loadgen {

// What an error body says: its message, else its beginning.
std::string ErrorMessage(int status, std::string_view body);

// Takes the body of an answer to a streaming request as it comes. Not thread-safe.
class CompletionStream {
 public:
  struct Answer {
    std::string text;
    std::vector<TokenId> ids;  // where the server gives them
    int64_t input_tokens = 0;
    int64_t cached_tokens = 0;
    int64_t output_tokens = 0;  // as the server counts, else the pieces
    bool done = false;          // the stream came to its proper end
  };

  // `on_output` is called for each piece that holds output, with its text, which may be empty.
  explicit CompletionStream(std::function<void(std::string_view text)> on_output);
  CompletionStream(const CompletionStream&) = delete;
  CompletionStream& operator=(const CompletionStream&) = delete;

  // `status` is the one of the HTTP answer.
  void Add(int status, std::string_view bytes);
  // At the end of the body: the answer, or what went wrong.
  StatusOr<Answer> Finish();

 private:
  void TakeEvent(std::string_view data);
  void TakeUsage(const nlohmann::json& usage);

  std::function<void(std::string_view)> on_output_;
  SseParser parser_;
  int status_ = 0;
  std::string error_body_;  // the first 64 KiB
  Status error_;
  int64_t pieces_ = 0;
  Answer answer_;
};

}  // namespace kvasir::loadgen
