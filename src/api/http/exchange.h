// One HTTP request and the way back to its client: what a route handler sees of the server.
//
// Each connection is served by one I/O thread, its executor. Post() may be called from any thread;
// everything else only from the executor, where handlers and posted work run.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api/http/message.h"

namespace kvasir::api {

// What came of an exchange, for whoever counts and logs.
struct ExchangeRecord {
  // Filled in by the server, complete when the exchange has ended.
  std::string method;    // as sent: HEAD too, which handlers see as GET
  int status = 0;        // 0: no answer was begun
  bool aborted = false;  // ended before the client had taken the whole answer
  int64_t bytes_in = 0;
  int64_t bytes_out = 0;
  Duration duration{};  // from the first byte read to the last one written
  std::string peer;     // ADDRESS:PORT

  // Filled in by the route, as far as it knows them.
  std::optional<int64_t> prompt_tokens;
  std::optional<int64_t> cached_tokens;
  std::optional<int64_t> completion_tokens;
  std::optional<Duration> time_to_first_token;  // from the request's arrival
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const HttpRequest& request() const = 0;

  // Before the route sees it.
  virtual void SetCaller(std::shared_ptr<const Caller> caller, std::shared_ptr<Visit> visit) = 0;

  // For the route to fill in its part.
  virtual ExchangeRecord& log() = 0;

  // Frees the request's body, once it has been read: it counts against the server's budget.
  virtual void ReleaseBody() = 0;

  // Runs `work` on the executor; drops it when the server has stopped.
  virtual void Post(std::function<void()> work) = 0;

  // A header for the answer's head, whichever it will be.
  virtual void AddHeader(std::string name, std::string value) = 0;

  // The whole answer. Ends the exchange.
  virtual void Respond(HttpResponse response) = 0;

  // A streamed answer: the head (its body is ignored), pieces, the end. What the client is too slow
  // to take is queued up to the server's cap; past it the connection is closed.
  virtual void BeginStream(const HttpResponse& head) = 0;
  virtual void Write(std::string_view piece) = 0;
  virtual void End() = 0;

  // `callback` runs once, on the executor, if the exchange dies before its answer is complete: the
  // client has gone, was too slow, or the server closes; at once, if that has happened already. It
  // is dropped when the answer is complete.
  virtual void OnGone(std::function<void()> callback) = 0;
};

using Handler = std::function<void(std::shared_ptr<Exchange>)>;

}  // namespace kvasir::api
