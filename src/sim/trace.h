// Request traces in Mooncake's format (Qin et al., FAST 2025): a JSON object a line with
// `timestamp` (ms), `input_length`, `output_length` (tokens) and `hash_ids`, one for each block of
// the prompt, a partial last one included. An id names a block and all before it.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/hash128.h"
#include "base/status.h"

namespace kvasir::sim {

struct TraceRequest {
  TimePoint arrival{};
  int64_t input_tokens = 0;  // at least one
  int64_t output_tokens = 0;
  std::vector<Hash128> blocks;  // as kv::PrefixIndex takes them
};

struct Trace {
  int32_t block_tokens = 0;
  std::vector<TraceRequest> requests;  // in the order of their arrivals; at least one
};

// Strict: an error names file, line and what is wrong with it. Arrivals must not go back, there are
// as many ids as the input has blocks, and the block before an id is the same wherever it occurs.
StatusOr<Trace> ReadTrace(const std::string& path, int32_t block_tokens);
StatusOr<Trace> ReadTrace(std::istream& in, const std::string& name, int32_t block_tokens);

}  // namespace kvasir::sim
