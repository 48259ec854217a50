// One HTTP request and the way back to its client: what a route handler sees of the server.
//
// Each connection is served by one I/O thread, its executor. Post() may be called from any thread;
// everything else only from the executor, where handlers and posted work run.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "api/http/message.h"

namespace kvasir::api {

class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const HttpRequest& request() const = 0;

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
