// One conversation with a server: what its next request holds, turn by turn.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/sampling_params.h"
#include "loadgen/http_client.h"
#include "loadgen/options.h"
#include "loadgen/protocol.h"
#include "loadgen/workload.h"

namespace kvasir::loadgen {

// Not thread-safe.
class ConversationState {
 public:
  // `options` must outlive this. An empty `model` is left out of the requests.
  ConversationState(const Options& options, std::string model, const Content& prefix);

  HttpRequest NextRequest(const Turn& turn);

  // What the server said to the last request becomes part of the next one. FailedPrecondition when
  // the load speaks in token ids and the server gave none.
  Status Add(const CompletionStream::Answer& answer);

 private:
  void AddInput(const Content& input);

  const Options& options_;
  const std::string model_;
  std::vector<TokenId> ids_;
  std::string text_;
  nlohmann::json messages_ = nlohmann::json::array();
};

}  // namespace kvasir::loadgen
