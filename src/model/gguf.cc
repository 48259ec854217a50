#include "model/gguf.h"

#include <absl/strings/match.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include <fmt/format.h>

#include "model/architecture.h"
#include "model/tensor_layout.h"

namespace kvasir::model {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read as it lies");

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMaxTensors = 1 << 20;
constexpr uint64_t kMaxMetadata = 1 << 16;
constexpr uint64_t kMaxDimensions = 4;

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

Status Malformed(absl::string_view what) { return absl::InvalidArgumentError(what); }

// A cursor that can't leave the bytes: after the first failed read every further one fails.
class Reader {
 public:
  explicit Reader(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }
  bool failed() const { return failed_; }

  template <typename T>
  T Read() {
    T value{};
    if (!Has(sizeof(T))) return value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  std::string ReadString() {
    const uint64_t size = Read<uint64_t>();
    if (!Has(size)) return {};
    std::string out(reinterpret_cast<const char*>(bytes_.data()) + position_, size);
    position_ += size;
    return out;
  }

  // True when `size` bytes are left.
  bool Has(uint64_t size) {
    if (failed_ || size > left()) failed_ = true;
    return !failed_;
  }

 private:
  absl::Span<const uint8_t> bytes_;
  size_t position_ = 0;
  bool failed_ = false;
};

bool IsInteger(uint32_t type) { return type <= kInt32 || type == kUint64 || type == kInt64; }

int64_t ReadInteger(Reader& reader, uint32_t type) {
  switch (type) {
    case kUint8:
      return reader.Read<uint8_t>();
    case kInt8:
      return reader.Read<int8_t>();
    case kUint16:
      return reader.Read<uint16_t>();
    case kInt16:
      return reader.Read<int16_t>();
    case kUint32:
      return reader.Read<uint32_t>();
    case kInt32:
      return reader.Read<int32_t>();
    default:
      return reader.Read<int64_t>();
  }
}

size_t ElementSize(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    default:
      return 8;  // a string takes at least its length
  }
}

StatusOr<GgufValue> ReadArray(Reader& reader) {
  const uint32_t type = reader.Read<uint32_t>();
  const uint64_t count = reader.Read<uint64_t>();
  if (type > kFloat64 || type == kArray) {
    return Malformed(absl::StrCat("array of unknown element type ", type));
  }
  if (reader.failed() || count > reader.left() / ElementSize(type)) {
    return Malformed(absl::StrCat("array of ", count, " elements runs past the end of the file"));
  }
  if (type == kString) {
    std::vector<std::string> out;
    out.reserve(count);
    for (uint64_t i = 0; i < count && !reader.failed(); ++i) out.push_back(reader.ReadString());
    return GgufValue(std::move(out));
  }
  if (type == kFloat32 || type == kFloat64) {
    std::vector<double> out(count);
    for (double& v : out) v = type == kFloat32 ? reader.Read<float>() : reader.Read<double>();
    return GgufValue(std::move(out));
  }
  std::vector<int64_t> out(count);
  for (int64_t& v : out) v = type == kBool ? reader.Read<uint8_t>() : ReadInteger(reader, type);
  return GgufValue(std::move(out));
}

StatusOr<GgufValue> ReadValue(Reader& reader) {
  const uint32_t type = reader.Read<uint32_t>();
  if (IsInteger(type)) return GgufValue(ReadInteger(reader, type));
  switch (type) {
    case kFloat32:
      return GgufValue(double{reader.Read<float>()});
    case kFloat64:
      return GgufValue(reader.Read<double>());
    case kBool:
      return GgufValue(reader.Read<uint8_t>() != 0);
    case kString:
      return GgufValue(reader.ReadString());
    case kArray:
      return ReadArray(reader);
    default:
      return Malformed(absl::StrCat("unknown value type ", type));
  }
}

std::optional<DType> TensorType(uint32_t ggml_type) {
  switch (ggml_type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 20:
      return DType::kIq4Nl;
    case 30:
      return DType::kBf16;
    case 39:
      return DType::kMxfp4;
    default:
      return std::nullopt;
  }
}

struct TensorHeader {
  std::string name;
  TensorView view;
  uint64_t offset = 0;  // from the start of the data section
  uint64_t size = 0;
};

StatusOr<TensorHeader> ReadTensorHeader(Reader& reader) {
  TensorHeader out;
  out.name = reader.ReadString();
  const uint32_t dimensions = reader.Read<uint32_t>();
  if (reader.failed() || dimensions == 0 || dimensions > kMaxDimensions) {
    return Malformed(absl::StrCat("tensor '", out.name, "' has ", dimensions, " dimensions"));
  }
  uint64_t cols = 1, rows = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const uint64_t extent = reader.Read<uint64_t>();
    if (reader.failed() || extent == 0 || extent > std::numeric_limits<int32_t>::max()) {
      return Malformed(absl::StrCat("tensor '", out.name, "' has a dimension of ", extent));
    }
    uint64_t& target = i == 0 ? cols : rows;
    if (__builtin_mul_overflow(target, extent, &target)) {
      return Malformed(absl::StrCat("tensor '", out.name, "' is too large"));
    }
  }
  const uint32_t ggml_type = reader.Read<uint32_t>();
  out.offset = reader.Read<uint64_t>();
  if (reader.failed()) return Malformed("the tensor table is cut off");
  const std::optional<DType> dtype = TensorType(ggml_type);
  if (!dtype) {
    return absl::UnimplementedError(absl::StrCat(
        "tensor '", out.name, "' has GGML type ", ggml_type,
        "; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL, "
        "MXFP4"));
  }
  const DTypeInfo info = Info(*dtype);
  if (cols % info.block_elements != 0) {
    return Malformed(absl::StrCat("tensor '", out.name, "': rows of ", cols,
                                  " elements are no whole number of ", info.name, " blocks"));
  }
  out.view = {*dtype, static_cast<int64_t>(rows), static_cast<int64_t>(cols), {}};
  if (__builtin_mul_overflow(rows, cols / info.block_elements * info.block_bytes, &out.size)) {
    return Malformed(absl::StrCat("tensor '", out.name, "' is too large"));
  }
  return out;
}

Status ReadTensors(Reader& reader, absl::Span<const uint8_t> bytes, uint64_t count,
                   GgufFile& file) {
  std::vector<TensorHeader> headers;
  for (uint64_t i = 0; i < count; ++i) {
    KVASIR_ASSIGN_OR_RETURN(TensorHeader header, ReadTensorHeader(reader));
    headers.push_back(std::move(header));
  }
  uint64_t alignment = 32;
  if (const auto it = file.metadata.find("general.alignment"); it != file.metadata.end()) {
    const int64_t* value = std::get_if<int64_t>(&it->second);
    if (value == nullptr || *value <= 0 || *value > (1 << 20) || (*value & (*value - 1)) != 0) {
      return Malformed("general.alignment is no power of two up to 1 MiB");
    }
    alignment = *value;
  }
  const uint64_t data = (reader.position() + alignment - 1) / alignment * alignment;
  for (TensorHeader& header : headers) {
    if (header.offset % alignment != 0) {
      return Malformed(absl::StrCat("tensor '", header.name, "' is not aligned"));
    }
    if (data > bytes.size() || header.offset > bytes.size() - data ||
        header.size > bytes.size() - data - header.offset) {
      return Malformed(absl::StrCat("tensor '", header.name,
                                    "' runs past the end of the file: it is truncated or damaged"));
    }
    header.view.bytes = bytes.subspan(data + header.offset, header.size);
    if (!file.tensors.emplace(header.name, header.view).second) {
      return Malformed(absl::StrCat("tensor '", header.name, "' occurs twice"));
    }
  }
  return absl::OkStatus();
}

// Typed access to metadata, with the key in every error.
class Metadata {
 public:
  explicit Metadata(const GgufFile& file) : map_(file.metadata) {}

  template <typename T>
  const T* Find(const std::string& key) const {
    const auto it = map_.find(key);
    return it == map_.end() ? nullptr : std::get_if<T>(&it->second);
  }

  StatusOr<std::string> String(const std::string& key) const {
    if (const auto* v = Find<std::string>(key)) return *v;
    return Malformed(absl::StrCat(key, ": missing, or no string"));
  }

  StatusOr<int32_t> Int(const std::string& key, int64_t low, int64_t high,
                        std::optional<int32_t> fallback = std::nullopt) const {
    const auto it = map_.find(key);
    if (it == map_.end() && fallback) return *fallback;
    const auto* v = Find<int64_t>(key);
    if (v == nullptr) return Malformed(absl::StrCat(key, ": missing, or no integer"));
    if (*v < low || *v > high) {
      return Malformed(absl::StrCat(key, ": ", *v, " is out of range [", low, ", ", high, "]"));
    }
    return static_cast<int32_t>(*v);
  }

  bool Bool(const std::string& key, bool fallback) const {
    const auto* v = Find<bool>(key);
    return v == nullptr ? fallback : *v;
  }

 private:
  const absl::flat_hash_map<std::string, GgufValue>& map_;
};

class GgufSource final : public ConfigSource {
 public:
  GgufSource(const GgufFile& file, std::string architecture)
      : file_(file), architecture_(std::move(architecture)) {}

  bool is_gguf() const override { return true; }

 protected:
  std::optional<ConfigValue> Find(FieldName field) const override {
    if (field.gguf == nullptr) return std::nullopt;
    const auto it = file_.metadata.find(Path(field));
    if (it == file_.metadata.end()) return std::nullopt;
    return it->second;
  }
  std::string Path(FieldName field) const override {
    return absl::StrCat(architecture_, ".", field.gguf);
  }

 private:
  const GgufFile& file_;
  const std::string architecture_;
};

// Factors of the rotation's frequencies, which are tensors; empty without one.
StatusOr<std::vector<float>> RopeFactors(const GgufFile& file, const char* name, int32_t width) {
  const auto it = file.tensors.find(name);
  if (it == file.tensors.end()) return std::vector<float>{};
  const TensorView& tensor = it->second;
  if (tensor.dtype != DType::kF32 || tensor.rows != 1 || tensor.cols != width / 2) {
    return Malformed(
        absl::StrCat("tensor '", name, "' is no F32 vector of half the rotated columns"));
  }
  std::vector<float> out(tensor.cols);
  std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  for (float f : out) {
    if (!(f > 0.0f) || !std::isfinite(f)) {
      return Malformed(
          absl::StrCat("tensor '", name, "' has a value that is not positive and finite"));
    }
  }
  return out;
}

Status ReadRopeFactors(const GgufFile& file, RopeConfig& rope) {
  KVASIR_ASSIGN_OR_RETURN(rope.long_factors,
                          RopeFactors(file, "rope_factors_long.weight", rope.width));
  if (rope.long_factors.empty()) {
    KVASIR_ASSIGN_OR_RETURN(rope.factors, RopeFactors(file, "rope_freqs.weight", rope.width));
    return absl::OkStatus();
  }
  rope.scaling = RopeScaling::kLongRope;
  KVASIR_ASSIGN_OR_RETURN(rope.factors, RopeFactors(file, "rope_factors_short.weight", rope.width));
  if (rope.factors.empty()) return Malformed("tensor 'rope_factors_short.weight' is missing");
  return absl::OkStatus();
}

}  // namespace

StatusOr<GgufFile> ParseGguf(absl::Span<const uint8_t> bytes) {
  Reader reader(bytes);
  if (reader.Read<uint32_t>() != kMagic || reader.failed()) {
    return Malformed("not a GGUF file: the magic number is missing");
  }
  const uint32_t version = reader.Read<uint32_t>();
  if (version != 2 && version != 3) {
    return Malformed(absl::StrCat("GGUF version ", version, " is not supported (2 and 3 are)"));
  }
  const uint64_t tensors = reader.Read<uint64_t>();
  const uint64_t entries = reader.Read<uint64_t>();
  if (reader.failed() || tensors > kMaxTensors || entries > kMaxMetadata) {
    return Malformed(
        absl::StrCat("the header claims ", tensors, " tensors and ", entries, " metadata entries"));
  }
  GgufFile file;
  for (uint64_t i = 0; i < entries; ++i) {
    const std::string key = reader.ReadString();
    StatusOr<GgufValue> value = ReadValue(reader);
    if (reader.failed()) return Malformed(absl::StrCat("metadata '", key, "' is cut off"));
    if (!value.ok()) {
      return Malformed(absl::StrCat("metadata '", key, "': ", value.status().message()));
    }
    if (!file.metadata.emplace(key, *std::move(value)).second) {
      return Malformed(absl::StrCat("metadata '", key, "' occurs twice"));
    }
  }
  KVASIR_RETURN_IF_ERROR(ReadTensors(reader, bytes, tensors, file));
  return file;
}

StatusOr<ModelConfig> GgufConfig(const GgufFile& file) {
  const Metadata meta(file);
  KVASIR_ASSIGN_OR_RETURN(const std::string name, meta.String("general.architecture"));
  const Architecture* architecture = FindGguf(name);
  if (architecture == nullptr) {
    return absl::UnimplementedError(
        fmt::format("general.architecture: '{}' is not supported ({} are)", name.substr(0, 64),
                    SupportedGguf()));
  }
  GgufSource source(file, name);
  KVASIR_ASSIGN_OR_RETURN(ModelConfig c, ReadConfig(*architecture, source));
  if (const auto* title = meta.Find<std::string>("general.name")) c.name = *title;
  KVASIR_RETURN_IF_ERROR(ReadRopeFactors(file, c.rope));
  const auto embed = file.tensors.find("token_embd.weight");
  if (embed == file.tensors.end()) return Malformed("tensor 'token_embd.weight' is missing");
  c.vocab = static_cast<int32_t>(embed->second.rows);
  KVASIR_ASSIGN_OR_RETURN(const int32_t eos,
                          meta.Int("tokenizer.ggml.eos_token_id", 0, c.vocab - 1, -1));
  if (eos >= 0) c.eos_ids.push_back(eos);
  KVASIR_ASSIGN_OR_RETURN(const int32_t eot,
                          meta.Int("tokenizer.ggml.eot_token_id", 0, c.vocab - 1, -1));
  if (eot >= 0 && eot != eos) c.eos_ids.push_back(eot);
  return c;
}

StatusOr<TextFiles> GgufText(const GgufFile& file) {
  const Metadata meta(file);
  TextFiles text;
  if (const auto* t = meta.Find<std::string>("tokenizer.chat_template")) text.chat_template = *t;
  const auto* tokens = meta.Find<std::vector<std::string>>("tokenizer.ggml.tokens");
  if (tokens == nullptr) return text;
  GgufVocab v;
  v.tokens = *tokens;
  KVASIR_ASSIGN_OR_RETURN(v.model, meta.String("tokenizer.ggml.model"));
  if (const auto* pre = meta.Find<std::string>("tokenizer.ggml.pre")) v.pre = *pre;
  if (const auto* s = meta.Find<std::vector<double>>("tokenizer.ggml.scores")) {
    v.scores.assign(s->begin(), s->end());
  }
  if (const auto* t = meta.Find<std::vector<int64_t>>("tokenizer.ggml.token_type")) {
    v.types.assign(t->begin(), t->end());
  }
  if (const auto* m = meta.Find<std::vector<std::string>>("tokenizer.ggml.merges")) v.merges = *m;
  const int64_t last = static_cast<int64_t>(v.tokens.size()) - 1;
  KVASIR_ASSIGN_OR_RETURN(v.bos_id, meta.Int("tokenizer.ggml.bos_token_id", 0, last, -1));
  KVASIR_ASSIGN_OR_RETURN(v.eos_id, meta.Int("tokenizer.ggml.eos_token_id", 0, last, -1));
  KVASIR_ASSIGN_OR_RETURN(v.unk_id, meta.Int("tokenizer.ggml.unknown_token_id", 0, last, -1));
  if (const bool* add = meta.Find<bool>("tokenizer.ggml.add_bos_token")) v.add_bos = *add;
  v.add_eos = meta.Bool("tokenizer.ggml.add_eos_token", false);
  v.add_space_prefix = meta.Bool("tokenizer.ggml.add_space_prefix", true);
  if (v.bos_id >= 0) text.bos_token = v.tokens[v.bos_id];
  if (v.eos_id >= 0) text.eos_token = v.tokens[v.eos_id];
  text.gguf_vocab = std::move(v);
  return text;
}

namespace {

// "x-00001-of-00003.gguf" -> the path of part `index` (from 1); nullopt when the name is no part's.
std::optional<std::string> SplitSibling(const std::string& path, int64_t index, int64_t count) {
  const std::string tail = fmt::format("-{:05}-of-{:05}.gguf", 1, count);
  if (!absl::EndsWith(path, tail)) return std::nullopt;
  return path.substr(0, path.size() - tail.size()) +
         fmt::format("-{:05}-of-{:05}.gguf", index, count);
}

Status AppendSplit(const std::string& path, GgufFile& whole,
                   std::vector<std::unique_ptr<MappedFile>>& files) {
  KVASIR_ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path));
  StatusOr<GgufFile> part = ParseGguf(mapped->bytes());
  if (!part.ok()) {
    return Status(part.status().code(), absl::StrCat(path, ": ", part.status().message()));
  }
  for (auto& [name, view] : part->tensors) {
    if (!whole.tensors.emplace(name, view).second) {
      return Malformed(absl::StrCat(path, ": tensor '", name, "' occurs in two files"));
    }
  }
  files.push_back(std::move(mapped));
  return absl::OkStatus();
}

StatusOr<Checkpoint> LoadParts(const std::string& path) {
  Checkpoint out;
  KVASIR_ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path));
  KVASIR_ASSIGN_OR_RETURN(GgufFile file, ParseGguf(mapped->bytes()));
  out.files.push_back(std::move(mapped));
  const Metadata meta(file);
  KVASIR_ASSIGN_OR_RETURN(const int32_t parts, meta.Int("split.count", 0, 9999, 1));
  KVASIR_ASSIGN_OR_RETURN(const int32_t number, meta.Int("split.no", 0, 9999, 0));
  if (number != 0) return Malformed("this is not the first file of the split: name that one");
  for (int32_t part = 2; part <= parts; ++part) {
    const auto sibling = SplitSibling(path, part, parts);
    if (!sibling) {
      return Malformed(
          fmt::format("is one of {0} files but is not named NAME-00001-of-{0:05}.gguf", parts));
    }
    KVASIR_RETURN_IF_ERROR(AppendSplit(*sibling, file, out.files));
  }
  KVASIR_ASSIGN_OR_RETURN(out.config, GgufConfig(file));
  KVASIR_ASSIGN_OR_RETURN(out.text, GgufText(file));
  out.tensors = std::move(file.tensors);
  KVASIR_RETURN_IF_ERROR(SplitTensors(out));
  return out;
}

}  // namespace

StatusOr<Checkpoint> LoadGguf(const std::string& path) {
  StatusOr<Checkpoint> out = LoadParts(path);
  if (out.ok() || absl::StartsWith(out.status().message(), path)) return out;
  return Status(out.status().code(), absl::StrCat(path, ": ", out.status().message()));
}

}  // namespace kvasir::model
