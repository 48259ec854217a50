#include "model/safetensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <absl/strings/match.h>
#include <absl/strings/strip.h>

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

std::optional<DType> FloatType(absl::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBf16;
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
  const std::optional<DType> dtype = FloatType(dtype_it->get_ref<const std::string&>());
  if (!dtype) {
    return absl::UnimplementedError(absl::StrCat("tensor '", name, "' has dtype ",
                                                 dtype_it->get_ref<const std::string&>(),
                                                 "; supported are F32, F16 and BF16"));
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

// Reads typed fields of config.json; the first error is kept.
class ConfigReader {
 public:
  explicit ConfigReader(const json& object) : object_(object) {}

  const Status& status() const { return status_; }

  int32_t Int(const char* key, int64_t low, int64_t high, std::optional<int32_t> fallback = {}) {
    const auto it = object_.find(key);
    if ((it == object_.end() || it->is_null()) && fallback) return *fallback;
    if (it == object_.end() || !it->is_number_integer()) return Fail(key, "missing, or no integer");
    const int64_t value = it->get<int64_t>();
    if (value < low || value > high) return Fail(key, absl::StrCat(value, " is out of range"));
    return static_cast<int32_t>(value);
  }

  float Float(const char* key, std::optional<float> fallback = {}) {
    const auto it = object_.find(key);
    if ((it == object_.end() || it->is_null()) && fallback) return *fallback;
    // Bounded so that the float is neither zero nor infinite.
    const double value = it != object_.end() && it->is_number() ? it->get<double>() : 0.0;
    if (!(value >= std::numeric_limits<float>::min() && value < 1e12)) {
      return static_cast<float>(Fail(key, "missing, or no positive number"));
    }
    return static_cast<float>(value);
  }

  std::string String(const char* key, std::string fallback) {
    const auto it = object_.find(key);
    return it != object_.end() && it->is_string() ? it->get<std::string>() : fallback;
  }

  bool Bool(const char* key) const {
    const auto it = object_.find(key);
    return it != object_.end() && it->is_boolean() && it->get<bool>();
  }

 private:
  int32_t Fail(const char* key, absl::string_view what) {
    if (status_.ok()) status_ = Malformed(absl::StrCat("config.json: ", key, ": ", what));
    return 1;
  }

  const json& object_;
  Status status_;
};

// The rotation scaling of Llama 3.1: long wavelengths are divided by `factor`, short ones kept,
// those between interpolated.
std::vector<float> Llama3Factors(int32_t head_dim, double theta, double factor, double low,
                                 double high, double original_context) {
  std::vector<float> out(head_dim / 2);
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    const double frequency = std::pow(theta, -2.0 * i / head_dim);
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    if (wavelength < original_context / high) {
      out[i] = 1.0f;
    } else if (wavelength > original_context / low) {
      out[i] = static_cast<float>(factor);
    } else {
      const double smooth = (original_context / wavelength - low) / (high - low);
      out[i] = static_cast<float>(1.0 / ((1.0 - smooth) / factor + smooth));
    }
  }
  return out;
}

// Fills theta and factors from `rope_parameters` (new) or `rope_theta` and `rope_scaling` (old).
Status ReadRope(const json& root, ModelConfig& c) {
  const auto find_object = [&](const char* key) -> const json* {
    const auto it = root.find(key);
    return it != root.end() && it->is_object() ? &*it : nullptr;
  };
  const json* rope = find_object("rope_parameters");
  ConfigReader old(root);
  c.rope_theta = old.Float("rope_theta", 10000.0f);
  if (rope == nullptr) rope = find_object("rope_scaling");
  KVASIR_RETURN_IF_ERROR(old.status());
  if (rope == nullptr) return absl::OkStatus();
  ConfigReader reader(*rope);
  c.rope_theta = reader.Float("rope_theta", c.rope_theta);
  const std::string type = reader.String("rope_type", reader.String("type", "default"));
  if (type == "linear") {
    c.rope_factors.assign(c.head_dim / 2, reader.Float("factor"));
  } else if (type == "llama3") {
    const float factor = reader.Float("factor");
    const float low = reader.Float("low_freq_factor");
    const float high = reader.Float("high_freq_factor");
    const int32_t original = reader.Int("original_max_position_embeddings", 1, 1 << 24);
    KVASIR_RETURN_IF_ERROR(reader.status());
    if (!(low < high)) {
      return Malformed("config.json: high_freq_factor: is not above low_freq_factor");
    }
    c.rope_factors = Llama3Factors(c.head_dim, c.rope_theta, factor, low, high, original);
  } else if (type != "default") {
    return absl::UnimplementedError(
        absl::StrCat("config.json: rope_type: '", type, "' is not supported"));
  }
  return reader.status();
}

StatusOr<std::string> Architecture(const json& root) {
  const auto it = root.find("architectures");
  const std::string name =
      it != root.end() && it->is_array() && !it->empty() && (*it)[0].is_string()
          ? (*it)[0].get<std::string>()
          : "";
  if (name == "LlamaForCausalLM" || name == "MistralForCausalLM") return std::string("llama");
  if (name == "Qwen2ForCausalLM") return std::string("qwen2");
  return absl::UnimplementedError(absl::StrCat(
      "config.json: architectures: '", name,
      "' is not supported (LlamaForCausalLM, MistralForCausalLM and Qwen2ForCausalLM are)"));
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

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"; unknown names stay.
std::string CanonicalName(absl::string_view name) {
  static constexpr std::pair<absl::string_view, absl::string_view> kTop[] = {
      {"model.embed_tokens.", "token_embd."},
      {"model.norm.", "output_norm."},
      {"lm_head.", "output."},
  };
  static constexpr std::pair<absl::string_view, absl::string_view> kLayer[] = {
      {"input_layernorm.", "attn_norm."},    {"self_attn.q_proj.", "attn_q."},
      {"self_attn.k_proj.", "attn_k."},      {"self_attn.v_proj.", "attn_v."},
      {"self_attn.o_proj.", "attn_output."}, {"post_attention_layernorm.", "ffn_norm."},
      {"mlp.gate_proj.", "ffn_gate."},       {"mlp.up_proj.", "ffn_up."},
      {"mlp.down_proj.", "ffn_down."},
  };
  for (const auto& [from, to] : kTop) {
    absl::string_view rest = name;
    if (absl::ConsumePrefix(&rest, from)) return absl::StrCat(to, rest);
  }
  absl::string_view rest = name;
  if (!absl::ConsumePrefix(&rest, "model.layers.")) return std::string(name);
  const size_t dot = rest.find('.');
  if (dot == absl::string_view::npos) return std::string(name);
  const absl::string_view layer = rest.substr(0, dot);
  rest.remove_prefix(dot + 1);
  for (const auto& [from, to] : kLayer) {
    if (absl::ConsumePrefix(&rest, from)) return absl::StrCat("blk.", layer, ".", to, rest);
  }
  return std::string(name);
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

Status LoadTensors(const std::filesystem::path& folder, Checkpoint& out) {
  std::vector<std::filesystem::path> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path());
  }
  if (paths.empty()) return absl::NotFoundError("has no .safetensors file");
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    KVASIR_ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path.string()));
    auto tensors = ParseSafetensors(mapped->bytes());
    const std::string file = path.filename().string();
    if (!tensors.ok()) {
      return Status(tensors.status().code(), absl::StrCat(file, ": ", tensors.status().message()));
    }
    for (const auto& [name, view] : *tensors) {
      if (!out.tensors.emplace(CanonicalName(name), view).second) {
        return Malformed(absl::StrCat(file, ": tensor '", name, "' occurs in two files"));
      }
    }
    out.files.push_back(std::move(mapped));
  }
  return absl::OkStatus();
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
  ModelConfig c;
  KVASIR_ASSIGN_OR_RETURN(c.architecture, Architecture(*root));
  ConfigReader reader(*root);
  c.layers = reader.Int("num_hidden_layers", 1, 4096);
  c.hidden = reader.Int("hidden_size", 1, 1 << 20);
  c.heads = reader.Int("num_attention_heads", 1, 4096);
  c.kv_heads = reader.Int("num_key_value_heads", 1, 4096, c.heads);
  c.head_dim = reader.Int("head_dim", 1, 4096, c.hidden / std::max(c.heads, 1));
  c.ffn = reader.Int("intermediate_size", 1, 1 << 24);
  c.vocab = reader.Int("vocab_size", 1, 1 << 24);
  c.context_length = reader.Int("max_position_embeddings", 1, 1 << 24, 2048);
  c.rms_eps = reader.Float("rms_norm_eps", 1e-6f);
  const std::string activation = reader.String("hidden_act", "silu");
  const bool windowed = c.architecture != "qwen2" || reader.Bool("use_sliding_window");
  if (windowed) c.sliding_window = reader.Int("sliding_window", 0, 1 << 24, 0);
  KVASIR_RETURN_IF_ERROR(reader.status());
  if (c.head_dim == 0) {
    return Malformed("config.json: head_dim: missing, and hidden_size is below the head count");
  }
  if (activation != "silu") {
    return absl::UnimplementedError(
        absl::StrCat("config.json: hidden_act: '", activation, "' is not supported (silu is)"));
  }
  KVASIR_RETURN_IF_ERROR(ReadRope(*root, c));
  ReadEosIds(*root, c);
  return c;
}

StatusOr<Checkpoint> LoadHuggingFace(const std::string& folder) {
  StatusOr<Checkpoint> out = LoadFolder(folder);
  if (out.ok() || absl::StartsWith(out.status().message(), folder)) return out;
  return Status(out.status().code(), absl::StrCat(folder, ": ", out.status().message()));
}

}  // namespace kvasir::model
