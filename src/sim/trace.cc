#include "sim/trace.h"

#include <absl/container/flat_hash_map.h>
#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace kvasir::sim {
namespace {

using nlohmann::json;

constexpr int64_t kMostTokens = int64_t{1} << 30;
constexpr int64_t kMostMilliseconds = int64_t{1} << 40;  // decades
constexpr int64_t kMostId = std::numeric_limits<int64_t>::max();

// The bytes of a block's hash are those of its id.
Hash128 HashOf(int64_t id) {
  Hash128 hash;
  std::memcpy(hash.bytes.data(), &id, sizeof(id));
  return hash;
}

StatusOr<int64_t> Integer(const json& value, const std::string& what, int64_t least, int64_t most) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number >= static_cast<uint64_t>(least) && number <= static_cast<uint64_t>(most)) {
      return static_cast<int64_t>(number);
    }
  }
  return absl::InvalidArgumentError(
      fmt::format("{} must be an integer from {} to {}", what, least, most));
}

StatusOr<int64_t> Field(const json& object, const char* name, int64_t least, int64_t most) {
  const auto it = object.find(name);
  if (it == object.end()) return absl::InvalidArgumentError(fmt::format("{} is missing", name));
  return Integer(*it, name, least, most);
}

class Reader {
 public:
  explicit Reader(int32_t block_tokens) { trace_.block_tokens = block_tokens; }

  Status AddLine(const std::string& line) {
    const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) return absl::InvalidArgumentError("not a JSON object");
    TraceRequest request;
    KVASIR_ASSIGN_OR_RETURN(const int64_t ms, Field(object, "timestamp", 0, kMostMilliseconds));
    KVASIR_ASSIGN_OR_RETURN(request.input_tokens, Field(object, "input_length", 1, kMostTokens));
    KVASIR_ASSIGN_OR_RETURN(request.output_tokens, Field(object, "output_length", 0, kMostTokens));
    request.arrival = TimePoint(std::chrono::milliseconds(ms));
    if (!trace_.requests.empty() && request.arrival < trace_.requests.back().arrival) {
      return absl::InvalidArgumentError("timestamp is before the one of the line above");
    }
    KVASIR_RETURN_IF_ERROR(ReadBlocks(object, &request));
    trace_.requests.push_back(std::move(request));
    return absl::OkStatus();
  }

  Trace Take() { return std::move(trace_); }

 private:
  Status ReadBlocks(const json& object, TraceRequest* request) {
    const auto ids = object.find("hash_ids");
    if (ids == object.end() || !ids->is_array()) {
      return absl::InvalidArgumentError("hash_ids must be an array");
    }
    const int64_t blocks = (request->input_tokens + trace_.block_tokens - 1) / trace_.block_tokens;
    if (static_cast<int64_t>(ids->size()) != blocks) {
      return absl::InvalidArgumentError(
          fmt::format("{} hash_ids for {} tokens in blocks of {}: expected {}", ids->size(),
                      request->input_tokens, trace_.block_tokens, blocks));
    }
    std::optional<int64_t> parent;
    for (const json& value : *ids) {
      KVASIR_ASSIGN_OR_RETURN(const int64_t id, Integer(value, "an id of hash_ids", 0, kMostId));
      const auto [known, is_new] = parents_.try_emplace(id, parent);
      if (!is_new && known->second != parent) {
        return absl::InvalidArgumentError(
            fmt::format("block {} follows another block than it did before", id));
      }
      request->blocks.push_back(HashOf(id));
      parent = id;
    }
    return absl::OkStatus();
  }

  Trace trace_;
  absl::flat_hash_map<int64_t, std::optional<int64_t>> parents_;
};

}  // namespace

StatusOr<Trace> ReadTrace(std::istream& in, const std::string& name, int32_t block_tokens) {
  Reader reader(block_tokens);
  std::string line;
  int64_t number = 0;
  while (std::getline(in, line)) {
    ++number;
    if (const Status status = reader.AddLine(line); !status.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("{}:{}: {}", name, number, std::string(status.message())));
    }
  }
  if (in.bad()) return absl::InvalidArgumentError(fmt::format("{}: cannot be read", name));
  if (number == 0) return absl::InvalidArgumentError(fmt::format("{}: holds no request", name));
  return reader.Take();
}

StatusOr<Trace> ReadTrace(const std::string& path, int32_t block_tokens) {
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(fmt::format("{}: cannot be opened", path));
  return ReadTrace(in, path, block_tokens);
}

}  // namespace kvasir::sim
