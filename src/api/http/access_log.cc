#include "api/http/access_log.h"

#include <fmt/format.h>

#include <cmath>
#include <ctime>

#include "api/access/caller.h"
#include "api/protocol/json.h"

namespace kvasir::api {
namespace {

constexpr size_t kMaxPath = 1024;

// RFC 3339 in UTC: 2026-01-31T23:59:59.123Z
std::string Rfc3339(std::chrono::system_clock::time_point at) {
  const auto since = std::chrono::floor<std::chrono::milliseconds>(at.time_since_epoch());
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(since).count();
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return fmt::format(
      "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
      utc.tm_hour, utc.tm_min, utc.tm_sec,
      since.count() - std::chrono::milliseconds(std::chrono::seconds(seconds)).count());
}

// To the microsecond.
double Milliseconds(Duration d) { return std::round(ToSeconds(d) * 1e6) / 1e3; }

}  // namespace

std::string AccessLogLine(const HttpRequest& request, const ExchangeRecord& record,
                          std::chrono::system_clock::time_point now) {
  Json line;
  line["time"] = Rfc3339(now);
  line["request_id"] = request.id;
  line["trace_id"] = request.trace.trace_id;
  line["method"] = record.method;
  line["path"] = request.path.substr(0, kMaxPath);
  line["status"] = record.status;
  line["aborted"] = record.aborted;
  line["bytes_in"] = record.bytes_in;
  line["bytes_out"] = record.bytes_out;
  line["duration_ms"] = Milliseconds(record.duration);
  line["peer"] = record.peer;
  if (request.caller != nullptr) line["key"] = request.caller->name;
  const auto add = [&](const char* name, const std::optional<int64_t>& value) {
    if (value) line[name] = *value;
  };
  add("prompt_tokens", record.prompt_tokens);
  add("cached_tokens", record.cached_tokens);
  add("completion_tokens", record.completion_tokens);
  if (record.time_to_first_token) line["ttft_ms"] = Milliseconds(*record.time_to_first_token);
  return Dump(line);
}

}  // namespace kvasir::api
