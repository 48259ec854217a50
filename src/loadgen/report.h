// What came of a load: per request, and summed up.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "loadgen/options.h"
#include "loadgen/stats.h"

namespace kvasir::loadgen {

// One request, timed by the client.
struct RequestRecord {
  TimePoint sent{};
  std::vector<TimePoint> chunks;  // arrivals of the pieces of the stream that held output
  TimePoint ended{};
  int64_t input_tokens = 0;  // as the server counts
  int64_t cached_tokens = 0;
  int64_t output_tokens = 0;
  std::string error;  // empty: it succeeded
};

// Times are in milliseconds, rates per second.
//  TTFT  from sending to the first output       E2E  from sending to the end of the stream
//  TPOT  (last output - first output) / (output tokens - 1), one a request
//  ITL   from one piece of output to the next, over all requests; a piece may hold several tokens
struct Report {
  Options options;
  std::string model;
  int64_t succeeded = 0;
  int64_t failed = 0;
  std::map<std::string, int64_t> errors;  // message to count
  double duration_s = 0;                  // from the first sending to the last end
  int64_t input_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t output_tokens = 0;
  Distribution ttft;
  Distribution tpot;
  Distribution itl;
  Distribution e2e;
  double request_rate = 0;
  double input_rate = 0;   // tokens
  double output_rate = 0;  // tokens
  int64_t good = 0;        // requests that met the SLOs
  double goodput = 0;      // of these
};

Report MakeReport(const Options& options, std::string model,
                  const std::vector<RequestRecord>& records);

// For a terminal; several lines.
std::string FormatTable(const Report& report);
nlohmann::json ToJson(const Report& report);

}  // namespace kvasir::loadgen
