#include "api/access/keys_file.h"

#include <absl/strings/ascii.h>
#include <absl/strings/escaping.h>
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <utility>

namespace kvasir::api {
namespace {

constexpr int64_t kMaxLimit = int64_t{1} << 40;
constexpr size_t kMaxName = 128;

// One table of [[keys]]. The first error is kept and makes every later read a no-op.
class KeyReader {
 public:
  KeyReader(const toml::table& table, const std::string& path, size_t index)
      : table_(table), path_(path), index_(index) {}

  StatusOr<ApiKey> Read() {
    ApiKey key;
    ReadText("name", &key.name);
    if (key.name.empty()) Fail("name", table_, "is missing");
    if (key.name.size() > kMaxName || HasControl(key.name)) {
      Fail("name", table_, fmt::format("must be at most {} printable bytes", kMaxName));
    }
    ReadDigest(&key.digest);
    ReadPriority(&key.priority);
    ReadLimit("requests_per_minute", &key.limits.requests_per_minute);
    ReadLimit("tokens_per_minute", &key.limits.tokens_per_minute);
    ReadLimit("max_concurrent", &key.limits.max_concurrent);
    ReadText("cache_salt", &key.cache_salt);
    RefuseUnknown();
    if (!status_.ok()) return status_;
    return key;
  }

 private:
  static bool HasControl(const std::string& text) {
    return std::any_of(text.begin(), text.end(),
                       [](unsigned char c) { return c < ' ' || c == 127; });
  }

  void Fail(std::string_view field, const toml::node& at, std::string_view what) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(fmt::format("{}: line {}: keys[{}].{}: {}", path_,
                                                     at.source().begin.line, index_, field, what));
  }

  const toml::node* Get(std::string_view field) {
    known_.insert(std::string(field));
    return table_.get(field);
  }

  void ReadText(std::string_view field, std::string* out) {
    const toml::node* node = Get(field);
    if (node == nullptr) return;
    const toml::value<std::string>* text = node->as_string();
    if (text == nullptr || text->get().empty()) {
      return Fail(field, *node, "must be a string that is not empty");
    }
    *out = text->get();
  }

  bool ReadInteger(std::string_view field, int64_t low, int64_t high, int64_t* out) {
    const toml::node* node = Get(field);
    if (node == nullptr) return false;
    const toml::value<int64_t>* number = node->as_integer();
    if (number == nullptr || number->get() < low || number->get() > high) {
      Fail(field, *node, fmt::format("must be a whole number from {} to {}", low, high));
      return false;
    }
    *out = number->get();
    return true;
  }

  void ReadPriority(std::optional<int32_t>* out) {
    int64_t value = 0;
    constexpr std::numeric_limits<int32_t> kInt;
    if (ReadInteger("priority", kInt.min(), kInt.max(), &value)) *out = static_cast<int32_t>(value);
  }

  void ReadLimit(std::string_view field, int64_t* out) { ReadInteger(field, 1, kMaxLimit, out); }

  void ReadDigest(std::string* out) {
    std::string key;
    std::string hex;
    ReadText("key", &key);
    ReadText("key_sha256", &hex);
    if (key.empty() == hex.empty()) {
      return Fail("key", table_, "give either key or key_sha256");
    }
    if (!key.empty()) {
      *out = KeyDigest(key);
      return;
    }
    const auto digit = [](unsigned char c) { return absl::ascii_isxdigit(c); };
    if (hex.size() != 64 || !std::all_of(hex.begin(), hex.end(), digit)) {
      return Fail("key_sha256", *table_.get("key_sha256"), "must be 64 hexadecimal digits");
    }
    *out = absl::HexStringToBytes(hex);
  }

  void RefuseUnknown() {
    for (const auto& [name, node] : table_) {
      if (!known_.contains(std::string(name.str()))) Fail(name.str(), node, "is not known");
    }
  }

  const toml::table& table_;
  const std::string& path_;
  const size_t index_;
  std::set<std::string> known_;
  Status status_;
};

}  // namespace

StatusOr<std::vector<ApiKey>> ParseKeys(std::string_view text, const std::string& path) {
  const auto fail = [&](const toml::source_region& at, std::string_view what) {
    return absl::InvalidArgumentError(fmt::format("{}: line {}: {}", path, at.begin.line, what));
  };
  toml::table file;
  try {
    file = toml::parse(text);
  } catch (const toml::parse_error& e) {
    return fail(e.source(), e.description());
  }
  std::vector<ApiKey> keys;
  for (const auto& [name, node] : file) {
    if (name.str() != "keys") {
      return fail(node.source(), fmt::format("unknown key '{}'", name.str()));
    }
    const toml::array* tables = node.as_array();
    if (tables == nullptr) return fail(node.source(), "keys: must be written as [[keys]] tables");
    for (const toml::node& item : *tables) {
      const toml::table* table = item.as_table();
      if (table == nullptr) return fail(item.source(), "keys: must be written as [[keys]] tables");
      KVASIR_ASSIGN_OR_RETURN(ApiKey key, KeyReader(*table, path, keys.size()).Read());
      keys.push_back(std::move(key));
    }
  }
  if (keys.empty()) return absl::InvalidArgumentError(fmt::format("{}: no [[keys]]", path));
  return keys;
}

StatusOr<std::vector<ApiKey>> ReadKeysFile(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) return absl::NotFoundError(fmt::format("cannot read {}", path));
  return ParseKeys(text.str(), path);
}

}  // namespace kvasir::api
