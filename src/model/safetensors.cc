#include "model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <absl/strings/match.h>
#include <absl/strings/str_split.h>

#include <fmt/format.h>

#include "model/architecture.h"
#include "model/quantization.h"
#include "model/tensor_layout.h"

namespace kvasir::model {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100 << 20;
constexpr int kMaxJsonDepth = 64;

Status Malformed(absl::string_view what) { return absl::InvalidArgumentError(what); }

// Watches the keys of a parse for one that an object holds twice: the parser keeps the last in
// silence.
class RepeatedKey {
 public:
  void See(int depth, json::parse_event_t event, const json& parsed) {
    const size_t level = static_cast<size_t>(depth);
    if (event == json::parse_event_t::object_start) {
      keys_.resize(level + 2);
      keys_[level + 1].clear();  // an object's keys come one level deeper than its start
    } else if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys_[level].insert(key).second && !found_) found_ = key;
    }
  }

  const std::optional<std::string>& found() const { return found_; }

 private:
  std::vector<std::set<std::string>> keys_;  // of the innermost object of each level
  std::optional<std::string> found_;
};

// nullopt for invalid or too deeply nested JSON.
std::optional<json> ParseJson(absl::string_view text, RepeatedKey* repeated = nullptr) {
  const json::parser_callback_t watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxJsonDepth) return false;
    if (repeated != nullptr) repeated->See(depth, event, parsed);
    return true;
  };
  json out = json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (out.is_discarded()) return std::nullopt;
  return out;
}

StatusOr<std::string> ReadText(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::NotFoundError(absl::StrCat(path.string(), ": cannot be read"));
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::optional<DType> TypeOf(absl::string_view name) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBf16, DType::kF8E4M3, DType::kU8,
                           DType::kI8, DType::kI32, DType::kI64}) {
    if (name == Info(type).name) return type;
  }
  return std::nullopt;
}

StatusOr<TensorView> ReadTensor(const std::string& name, const json& entry,
                                absl::Span<const uint8_t> data) {
  const auto fail = [&](absl::string_view what) {
    return Malformed(absl::StrCat("tensor '", name, "': ", what));
  };
  if (!entry.is_object()) return fail("is no object");
  const auto dtype_it = entry.find("dtype");
  const auto shape_it = entry.find("shape");
  const auto offsets_it = entry.find("data_offsets");
  if (dtype_it == entry.end() || !dtype_it->is_string()) return fail("has no dtype");
  if (shape_it == entry.end() || !shape_it->is_array()) return fail("has no shape");
  const std::optional<DType> dtype = TypeOf(dtype_it->get_ref<const std::string&>());
  if (!dtype) {
    return absl::UnimplementedError(
        absl::StrCat("tensor '", name, "' has dtype ", dtype_it->get_ref<const std::string&>(),
                     "; supported are F32, F16, BF16, F8_E4M3, U8, I8, I32 and I64"));
  }
  uint64_t rows = 1, cols = 1;
  for (size_t i = 0; i < shape_it->size(); ++i) {
    const json& extent = (*shape_it)[i];
    if (!extent.is_number_unsigned() || extent.get<uint64_t>() == 0 ||
        extent.get<uint64_t>() > std::numeric_limits<int32_t>::max()) {
      return fail("has a dimension that is no positive 31-bit integer");
    }
    uint64_t& target = i + 1 == shape_it->size() ? cols : rows;
    if (__builtin_mul_overflow(target, extent.get<uint64_t>(), &target))
      return fail("is too large");
  }
  if (offsets_it == entry.end() || !offsets_it->is_array() || offsets_it->size() != 2 ||
      !(*offsets_it)[0].is_number_unsigned() || !(*offsets_it)[1].is_number_unsigned()) {
    return fail("has no data_offsets of two integers");
  }
  const uint64_t begin = (*offsets_it)[0].get<uint64_t>();
  const uint64_t end = (*offsets_it)[1].get<uint64_t>();
  if (begin > end || end > data.size()) {
    return fail("runs past the end of the file: it is truncated or damaged");
  }
  uint64_t size = 0;
  if (__builtin_mul_overflow(rows, cols, &size) ||
      __builtin_mul_overflow(size, Info(*dtype).block_bytes, &size) || size != end - begin) {
    return fail("has a shape that does not fit its data_offsets");
  }
  return TensorView{*dtype, static_cast<int64_t>(rows), static_cast<int64_t>(cols),
                    data.subspan(begin, size)};
}

// The format gives every byte to one tensor at most; a file that does otherwise is damaged.
Status CheckOverlaps(const TensorMap& tensors) {
  std::vector<const TensorMap::value_type*> sorted;
  sorted.reserve(tensors.size());
  for (const auto& entry : tensors) sorted.push_back(&entry);
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
    return a->second.bytes.data() < b->second.bytes.data();
  });
  for (size_t i = 1; i < sorted.size(); ++i) {
    const absl::Span<const uint8_t> before = sorted[i - 1]->second.bytes;
    if (before.data() + before.size() > sorted[i]->second.bytes.data()) {
      return Malformed(absl::StrCat("tensor '", sorted[i]->first, "' overlaps tensor '",
                                    sorted[i - 1]->first, "'"));
    }
  }
  return absl::OkStatus();
}

template <typename T>
std::vector<T> Items(const json& array) {
  std::vector<T> out;
  out.reserve(array.size());
  for (const json& item : array) out.push_back(item.get<T>());
  return out;
}

bool All(const json& array, bool (json::*is)() const noexcept) {
  return std::all_of(array.begin(), array.end(), [&](const json& item) { return (item.*is)(); });
}

std::optional<ConfigValue> ToValue(const json& value) {
  if (value.is_boolean()) return value.get<bool>();
  // What exceeds int64_t comes out negative, which no field allows.
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array() || value.empty()) return std::nullopt;
  if (All(value, &json::is_number_integer)) return Items<int64_t>(value);
  if (All(value, &json::is_number)) return Items<double>(value);
  if (All(value, &json::is_string)) return Items<std::string>(value);
  return std::nullopt;
}

class JsonSource final : public ConfigSource {
 public:
  explicit JsonSource(const json& root) : root_(root) {}

  bool is_gguf() const override { return false; }
  bool HasFields(FieldName field) const override {
    const json* at = At(field);
    return at != nullptr && at->is_object() && !at->empty();
  }

 protected:
  std::optional<ConfigValue> Find(FieldName field) const override {
    const json* at = At(field);
    return at == nullptr || at->is_null() ? std::nullopt : ToValue(*at);
  }
  std::string Path(FieldName field) const override {
    return absl::StrCat("config.json: ", field.hugging_face);
  }

 private:
  // Null where there is nothing.
  const json* At(FieldName field) const {
    if (field.hugging_face == nullptr) return nullptr;
    const json* at = &root_;
    for (const absl::string_view key : absl::StrSplit(field.hugging_face, '.')) {
      if (!at->is_object()) return nullptr;
      const auto it = at->find(std::string(key));
      if (it == at->end()) return nullptr;
      at = &*it;
    }
    return at;
  }

  const json& root_;
};

StatusOr<const Architecture*> ArchitectureOf(const json& root) {
  const auto it = root.find("architectures");
  const std::string name =
      it != root.end() && it->is_array() && !it->empty() && (*it)[0].is_string()
          ? (*it)[0].get<std::string>()
          : "";
  if (const Architecture* found = FindHuggingFace(name)) return found;
  return absl::UnimplementedError(
      fmt::format("config.json: architectures: '{}' is not supported ({} are)", name.substr(0, 64),
                  SupportedClasses()));
}

void CheckActivation(ConfigSource& source, graph::GateKind kind) {
  const bool gelu = kind == graph::GateKind::kGelu;
  const FieldName plain = {"hidden_act", nullptr};
  const FieldName of_gemma = {"hidden_activation", nullptr};
  const FieldName field = gelu && source.Has(of_gemma) ? of_gemma : plain;
  const char* expected = gelu ? "gelu_pytorch_tanh" : "silu";
  const std::string stated = source.String(field, expected);
  if (stated != expected) source.FailUnsupported(field, stated, absl::StrCat(expected, " is"));
}

void ReadEosIds(const json& root, ModelConfig& c) {
  const auto it = root.find("eos_token_id");
  if (it == root.end()) return;
  const auto add = [&](const json& id) {
    if (!id.is_number_integer()) return;
    const int64_t value = id.get<int64_t>();
    if (value < 0 || value >= c.vocab) return;
    if (std::find(c.eos_ids.begin(), c.eos_ids.end(), value) == c.eos_ids.end()) {
      c.eos_ids.push_back(static_cast<int32_t>(value));
    }
  };
  if (it->is_array()) {
    for (const json& id : *it) add(id);
  } else {
    add(*it);
  }
}

// The string at `key` of an object; empty when there is none.
std::string StringAt(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// The token's text out of a tokenizer_config.json entry, which is a string or an object.
std::string TokenText(const json& config, const char* key) {
  const auto it = config.find(key);
  if (it == config.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  return it->is_object() ? StringAt(*it, "content") : "";
}

// "chat_template" is a string, or an array of named ones, of which "default" counts.
std::string TemplateText(const json& config) {
  const auto it = config.find("chat_template");
  if (it == config.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_array()) return "";
  for (const json& entry : *it) {
    if (entry.is_object() && StringAt(entry, "name") == "default") {
      return StringAt(entry, "template");
    }
  }
  return "";
}

StatusOr<TextFiles> ReadTextFiles(const std::filesystem::path& folder) {
  TextFiles text;
  if (std::filesystem::exists(folder / "tokenizer.json")) {
    KVASIR_ASSIGN_OR_RETURN(text.tokenizer_json, ReadText(folder / "tokenizer.json"));
  }
  if (std::filesystem::exists(folder / "tokenizer_config.json")) {
    KVASIR_ASSIGN_OR_RETURN(const std::string content, ReadText(folder / "tokenizer_config.json"));
    const std::optional<json> config = ParseJson(content);
    if (!config || !config->is_object()) {
      return Malformed("tokenizer_config.json: is no JSON object");
    }
    text.bos_token = TokenText(*config, "bos_token");
    text.eos_token = TokenText(*config, "eos_token");
    text.chat_template = TemplateText(*config);
  }
  if (std::filesystem::exists(folder / "chat_template.jinja")) {
    KVASIR_ASSIGN_OR_RETURN(text.chat_template, ReadText(folder / "chat_template.jinja"));
  }
  return text;
}

constexpr const char* kIndex = "model.safetensors.index.json";

// The files that the index names; a folder may hold the same weights in another form too.
StatusOr<std::vector<std::filesystem::path>> IndexedFiles(const std::filesystem::path& folder) {
  KVASIR_ASSIGN_OR_RETURN(const std::string content, ReadText(folder / kIndex));
  const std::optional<json> root = ParseJson(content);
  if (!root || !root->is_object() || !root->contains("weight_map") ||
      !(*root)["weight_map"].is_object()) {
    return Malformed(absl::StrCat(kIndex, ": weight_map: missing, or no object"));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : (*root)["weight_map"].items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.find('/') != std::string::npos) {
      return Malformed(
          absl::StrCat(kIndex, ": weight_map: '", tensor, "' names no file beside it"));
    }
    names.insert(name);
  }
  std::vector<std::filesystem::path> paths;
  for (const std::string& name : names) paths.push_back(folder / name);
  return paths;
}

StatusOr<std::vector<std::filesystem::path>> TensorFiles(const std::filesystem::path& folder) {
  std::error_code error;
  if (std::filesystem::exists(folder / kIndex, error)) return IndexedFiles(folder);
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path());
  }
  if (paths.empty()) return absl::NotFoundError("has no .safetensors file");
  std::sort(paths.begin(), paths.end());
  return paths;
}

Status LoadTensors(const std::filesystem::path& folder, Checkpoint& out) {
  const Architecture& architecture = *FindArchitecture(out.config.architecture);
  KVASIR_ASSIGN_OR_RETURN(const auto paths, TensorFiles(folder));
  for (const auto& path : paths) {
    KVASIR_ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path.string()));
    auto tensors = ParseSafetensors(mapped->bytes());
    const std::string file = path.filename().string();
    if (!tensors.ok()) {
      return Status(tensors.status().code(), absl::StrCat(file, ": ", tensors.status().message()));
    }
    for (const auto& [name, view] : *tensors) {
      if (!out.tensors.emplace(CanonicalName(architecture, name), view).second) {
        return Malformed(absl::StrCat(file, ": tensor '", name, "' occurs in two files"));
      }
    }
    out.files.push_back(std::move(mapped));
  }
  KVASIR_RETURN_IF_ERROR(JoinQuantized(out));
  return SplitTensors(out);
}

StatusOr<Checkpoint> LoadFolder(const std::filesystem::path& folder) {
  Checkpoint out;
  KVASIR_ASSIGN_OR_RETURN(const std::string content, ReadText(folder / "config.json"));
  KVASIR_ASSIGN_OR_RETURN(out.config, HuggingFaceConfig(content));
  if (out.config.name.empty()) out.config.name = folder.filename().string();
  if (std::filesystem::exists(folder / "generation_config.json")) {
    KVASIR_ASSIGN_OR_RETURN(const std::string generation,
                            ReadText(folder / "generation_config.json"));
    const std::optional<json> root = ParseJson(generation);
    if (root && root->is_object()) ReadEosIds(*root, out.config);
  }
  KVASIR_RETURN_IF_ERROR(LoadTensors(folder, out));
  KVASIR_ASSIGN_OR_RETURN(out.text, ReadTextFiles(folder));
  return out;
}

}  // namespace

StatusOr<TensorMap> ParseSafetensors(absl::Span<const uint8_t> bytes) {
  uint64_t header_size = 0;
  if (bytes.size() < sizeof(header_size)) return Malformed("is too short for a safetensors file");
  std::memcpy(&header_size, bytes.data(), sizeof(header_size));
  if (header_size > kMaxHeader || header_size > bytes.size() - sizeof(header_size)) {
    return Malformed(absl::StrCat("claims a header of ", header_size,
                                  " bytes: it is truncated or no safetensors file"));
  }
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof(header_size),
                               header_size);
  RepeatedKey repeated;
  const std::optional<json> header = ParseJson(text, &repeated);
  if (!header || !header->is_object()) return Malformed("has a header that is no JSON object");
  if (repeated.found()) {
    return Malformed(
        absl::StrCat("has a header that holds the key '", *repeated.found(), "' twice"));
  }
  const absl::Span<const uint8_t> data = bytes.subspan(sizeof(header_size) + header_size);
  TensorMap out;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    KVASIR_ASSIGN_OR_RETURN(const TensorView view, ReadTensor(name, entry, data));
    out.emplace(name, view);
  }
  KVASIR_RETURN_IF_ERROR(CheckOverlaps(out));
  return out;
}

StatusOr<ModelConfig> HuggingFaceConfig(std::string_view text) {
  const std::optional<json> root = ParseJson({text.data(), text.size()});
  if (!root || !root->is_object()) return Malformed("config.json: is no JSON object");
  KVASIR_ASSIGN_OR_RETURN(const Architecture* architecture, ArchitectureOf(*root));
  JsonSource source(*root);
  KVASIR_ASSIGN_OR_RETURN(ModelConfig c, ReadConfig(*architecture, source));
  c.vocab = source.Int({"vocab_size", nullptr}, 1, 1 << 24);
  CheckActivation(source, c.gate.kind);
  ReadQuantization(source, &c);
  KVASIR_RETURN_IF_ERROR(source.status());
  ReadEosIds(*root, c);
  return c;
}

StatusOr<Checkpoint> LoadHuggingFace(const std::string& folder) {
  StatusOr<Checkpoint> out = LoadFolder(folder);
  if (out.ok() || absl::StartsWith(out.status().message(), folder)) return out;
  return Status(out.status().code(), absl::StrCat(folder, ": ", out.status().message()));
}

}  // namespace kvasir::model
