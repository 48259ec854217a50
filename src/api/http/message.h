// HTTP messages as plain values, so that nothing above the server knows the HTTP library.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace kvasir::api {

struct Caller;  // api/access/caller.h
class Visit;    // api/access/budget.h

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// Its place in a distributed trace (W3C Trace Context).
struct TraceContext {
  std::string trace_id;      // 32 hex digits: the caller's, or fresh
  std::string span_id;       // 16 hex digits: ours
  std::string parent_id;     // the caller's span; empty when it named none
  std::string flags = "00";  // two hex digits
  std::string state;         // the caller's tracestate
};

struct HttpRequest {
  std::string id;  // X-Request-Id: the client's, or fresh
  TraceContext trace;
  std::shared_ptr<const Caller> caller;  // whose API key it bears; null where no keys are asked for
  std::shared_ptr<Visit> visit;          // against the caller's limits; null where it has none
  std::string method;                    // upper case
  std::string path;                      // percent-encoding kept, without the query
  std::string query;                     // after '?', or empty
  HttpHeaders headers;
  std::string body;
  TimePoint arrival{};  // when the last byte had been read

  // The first header of that name (any case), or "".
  std::string_view Header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers;
  std::string body;
};

}  // namespace kvasir::api
