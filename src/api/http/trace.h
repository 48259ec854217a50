// The names by which a request is found again: its id and its place in a distributed trace.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "api/http/message.h"

namespace kvasir::api {

// The client's X-Request-Id, if it is 1 to 128 printable ASCII characters without spaces; else a
// fresh random one.
std::string RequestId(const HttpRequest& request);

// What a traceparent header of version 00 says, or the part of a later version's that is the same;
// nothing when it breaks the rules of W3C Trace Context.
struct TraceParent {
  std::string trace_id;
  std::string parent_id;
  std::string flags;
};
std::optional<TraceParent> ParseTraceParent(std::string_view header);

// The caller's trace, or a fresh one where its headers name none, with a span of our own.
TraceContext Trace(const HttpRequest& request);

// The traceparent header that passes the trace on: our span is the parent of what follows.
std::string TraceParentHeader(const TraceContext& trace);

}  // namespace kvasir::api
