#include "api/http/trace.h"

#include <absl/strings/match.h>
#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <vector>

namespace kvasir::api {
namespace {

constexpr size_t kMaxRequestId = 128;
constexpr size_t kMaxTraceState = 512;

bool AllOf(std::string_view text, char first, char last) {
  return std::all_of(text.begin(), text.end(), [=](char c) { return c >= first && c <= last; });
}

bool IsLowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsId(std::string_view text) {
  return IsLowerHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

uint64_t RandomBits() {
  thread_local std::random_device device;
  return uint64_t{device()} << 32 | device();
}

// Not zero: an id of zeros is none.
std::string RandomSpanId() { return fmt::format("{:016x}", std::max<uint64_t>(1, RandomBits())); }
std::string RandomTraceId() { return fmt::format("{:016x}", RandomBits()) + RandomSpanId(); }

std::vector<std::string_view> Headers(const HttpRequest& request, std::string_view name) {
  std::vector<std::string_view> values;
  for (const auto& [key, value] : request.headers) {
    if (absl::EqualsIgnoreCase({key.data(), key.size()}, {name.data(), name.size()})) {
      values.push_back(value);
    }
  }
  return values;
}

// Several headers are one list. Too long a state is dropped whole, as the specification allows.
std::string TraceState(const HttpRequest& request) {
  std::string state;
  for (const std::string_view value : Headers(request, "tracestate")) {
    if (!state.empty() && !value.empty()) state += ',';
    state += value;
  }
  return state.size() <= kMaxTraceState && AllOf(state, ' ', '~') ? state : "";
}

}  // namespace

std::string RequestId(const HttpRequest& request) {
  const std::string_view sent = request.Header("X-Request-Id");
  if (!sent.empty() && sent.size() <= kMaxRequestId && AllOf(sent, '!', '~')) {
    return std::string(sent);
  }
  return RandomTraceId();
}

std::optional<TraceParent> ParseTraceParent(std::string_view header) {
  constexpr size_t kLength = 55;  // 00-TRACE-PARENT-FLAGS: 2, 32, 16 and 2 digits
  if (header.size() < kLength || header[2] != '-' || header[35] != '-' || header[52] != '-') {
    return std::nullopt;
  }
  const std::string_view version = header.substr(0, 2);
  const std::string_view trace_id = header.substr(3, 32);
  const std::string_view parent_id = header.substr(36, 16);
  const std::string_view flags = header.substr(53, 2);
  if (!IsLowerHex(version) || version == "ff") return std::nullopt;
  if (header.size() > kLength && (version == "00" || header[kLength] != '-')) return std::nullopt;
  if (!IsId(trace_id) || !IsId(parent_id) || !IsLowerHex(flags)) return std::nullopt;
  // Of the flags only "sampled" and "random" are defined; the others are passed on as zero.
  const int defined = (flags[1] <= '9' ? flags[1] - '0' : flags[1] - 'a' + 10) & 3;
  return TraceParent{std::string(trace_id), std::string(parent_id), fmt::format("{:02x}", defined)};
}

TraceContext Trace(const HttpRequest& request) {
  const auto sent = Headers(request, "traceparent");
  const std::optional<TraceParent> parent =
      sent.size() == 1 ? ParseTraceParent(sent[0]) : std::nullopt;
  if (!parent) return {.trace_id = RandomTraceId(), .span_id = RandomSpanId()};
  return {.trace_id = parent->trace_id,
          .span_id = RandomSpanId(),
          .parent_id = parent->parent_id,
          .flags = parent->flags,
          .state = TraceState(request)};
}

std::string TraceParentHeader(const TraceContext& trace) {
  return fmt::format("00-{}-{}-{}", trace.trace_id, trace.span_id, trace.flags);
}

}  // namespace kvasir::api
