#include "cluster/kv_event_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

namespace kvasir::cluster {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kStored = "BlockStored";
constexpr std::string_view kRemoved = "BlockRemoved";
constexpr std::string_view kCleared = "AllBlocksCleared";
constexpr int32_t kMaxBlockSize = 1 << 20;

// Walks a payload without keeping any of it, as far as the limits allow: what is parsed into values
// afterwards is neither too deep for the stack nor too large for memory.
class Bounds final : public nlohmann::json_sax<Json> {
 public:
  explicit Bounds(const KvEventLimits& limits) : limits_(limits) {}

  const std::string& fault() const { return fault_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool key(string_t&) override { return true; }
  bool start_object(std::size_t size) override { return Open(size); }
  bool start_array(std::size_t size) override { return Open(size); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(std::size_t at, const std::string&,
                   const nlohmann::detail::exception&) override {
    fault_ = fmt::format("no msgpack at byte {}", at);
    return false;
  }

 private:
  bool Open(std::size_t size) {
    if (++depth_ > limits_.max_depth) {
      fault_ = fmt::format("more than {} levels", limits_.max_depth);
      return false;
    }
    if (size > static_cast<std::size_t>(limits_.max_values - values_)) {
      fault_ = fmt::format("more than {} values", limits_.max_values);
      return false;
    }
    values_ += static_cast<int64_t>(size);
    return true;
  }

  bool Close() {
    --depth_;
    return true;
  }

  const KvEventLimits limits_;
  int depth_ = 0;
  int64_t values_ = 0;
  std::string fault_;
};

Status Fault(const std::string& field, std::string_view wanted) {
  return absl::InvalidArgumentError(fmt::format("{}: {}", field, wanted));
}

StatusOr<Json> Parse(absl::Span<const uint8_t> payload, const KvEventLimits& limits) {
  if (payload.size() > limits.max_bytes) {
    return absl::InvalidArgumentError(
        fmt::format("KV events: {} bytes, of at most {}", payload.size(), limits.max_bytes));
  }
  Bounds bounds(limits);
  if (!Json::sax_parse(payload.begin(), payload.end(), &bounds, Json::input_format_t::msgpack)) {
    return Fault("KV events", bounds.fault());
  }
  Json value = Json::from_msgpack(payload.begin(), payload.end(), true, false);
  if (value.is_discarded()) return Fault("KV events", "no msgpack");
  return StatusOr<Json>(std::move(value));
}

// A record's fields, whether it is an array or a map, with their names for errors.
class Record {
 public:
  // REQUIRES: `value` is an array or an object.
  Record(const Json& value, std::string name) : value_(value), name_(std::move(name)) {}

  // Null where there is none, and where it is null.
  const Json* Find(size_t index, const char* key) const {
    const Json* field = nullptr;
    if (value_.is_array()) {
      if (index < value_.size()) field = &value_[index];
    } else if (const auto it = value_.find(key); it != value_.end()) {
      field = &*it;
    }
    return field == nullptr || field->is_null() ? nullptr : field;
  }

  StatusOr<const Json*> Array(size_t index, const char* key) const {
    const Json* field = Find(index, key);
    if (field == nullptr || !field->is_array()) return Fault(Name(key), "an array is wanted");
    return field;
  }

  std::string Name(const char* key) const {
    return name_.empty() ? key : absl::StrCat(name_, ".", key);
  }

 private:
  const Json& value_;
  const std::string name_;
};

bool IsRecord(const Json& value) { return value.is_array() || value.is_object(); }

StatusOr<int64_t> ReadInteger(const Json& value, const std::string& name, int64_t least,
                              int64_t most) {
  const auto fault = [&] {
    return Fault(name, fmt::format("an integer in [{}, {}] is wanted", least, most));
  };
  if (!value.is_number_integer()) return fault();
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return fault();
  }
  const int64_t number = value.get<int64_t>();
  if (number < least || number > most) return fault();
  return number;
}

// Leaves `out` as it is where the field is missing.
template <typename T>
Status ReadOptionalInteger(const Record& record, size_t index, const char* key,
                           std::optional<T>* out) {
  const Json* field = record.Find(index, key);
  if (field == nullptr) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(*out, ReadInteger(*field, record.Name(key), std::numeric_limits<T>::min(),
                                            std::numeric_limits<T>::max()));
  return absl::OkStatus();
}

Status ReadOptionalString(const Record& record, size_t index, const char* key,
                          std::optional<std::string>* out) {
  const Json* field = record.Find(index, key);
  if (field == nullptr) return absl::OkStatus();
  if (!field->is_string()) return Fault(record.Name(key), "a string is wanted");
  *out = field->get<std::string>();
  return absl::OkStatus();
}

StatusOr<ExternalHash> ReadHash(const Json& value, const std::string& name) {
  if (value.is_number_unsigned()) return ExternalHash(value.get<uint64_t>());
  if (value.is_number_integer()) return ExternalHash(static_cast<uint64_t>(value.get<int64_t>()));
  if (value.is_binary()) {
    StatusOr<ExternalHash> hash = ExternalHash::FromBytes(value.get_binary());
    if (hash.ok()) return hash;
  }
  return Fault(
      name, fmt::format("a hash is wanted: an integer, or 1 to {} bytes", ExternalHash::kMaxBytes));
}

StatusOr<std::vector<ExternalHash>> ReadHashes(const Record& record) {
  KVASIR_ASSIGN_OR_RETURN(const Json* field, record.Array(1, "block_hashes"));
  std::vector<ExternalHash> hashes;
  hashes.reserve(field->size());
  for (const Json& value : *field) {
    KVASIR_ASSIGN_OR_RETURN(hashes.emplace_back(), ReadHash(value, record.Name("block_hashes")));
  }
  return hashes;
}

Status ReadTokens(const Record& record, std::vector<TokenId>* out) {
  KVASIR_ASSIGN_OR_RETURN(const Json* field, record.Array(3, "token_ids"));
  out->reserve(field->size());
  for (const Json& value : *field) {
    KVASIR_ASSIGN_OR_RETURN(const int64_t id, ReadInteger(value, record.Name("token_ids"), 0,
                                                          std::numeric_limits<TokenId>::max()));
    out->push_back(static_cast<TokenId>(id));
  }
  return absl::OkStatus();
}

// An entry for each block, null where it has no such keys.
Status ReadExtraKeys(const Record& record, bool* out) {
  const Json* field = record.Find(8, "extra_keys");
  if (field == nullptr) return absl::OkStatus();
  if (!field->is_array()) return Fault(record.Name("extra_keys"), "an array is wanted");
  *out =
      std::any_of(field->begin(), field->end(), [](const Json& keys) { return !keys.is_null(); });
  return absl::OkStatus();
}

StatusOr<KvEvent> ReadStored(const Record& record) {
  StoredEvent event;
  KVASIR_ASSIGN_OR_RETURN(event.hashes, ReadHashes(record));
  if (const Json* parent = record.Find(2, "parent_block_hash")) {
    KVASIR_ASSIGN_OR_RETURN(event.parent, ReadHash(*parent, record.Name("parent_block_hash")));
  }
  KVASIR_RETURN_IF_ERROR(ReadTokens(record, &event.token_ids));
  const Json* size = record.Find(4, "block_size");
  KVASIR_ASSIGN_OR_RETURN(
      const int64_t block_size,
      ReadInteger(size == nullptr ? Json() : *size, record.Name("block_size"), 1, kMaxBlockSize));
  event.block_size = static_cast<int32_t>(block_size);
  KVASIR_RETURN_IF_ERROR(ReadOptionalInteger(record, 5, "lora_id", &event.lora_id));
  KVASIR_RETURN_IF_ERROR(ReadOptionalString(record, 6, "medium", &event.medium));
  KVASIR_RETURN_IF_ERROR(ReadOptionalString(record, 7, "lora_name", &event.lora_name));
  KVASIR_RETURN_IF_ERROR(ReadExtraKeys(record, &event.has_extra_keys));
  KVASIR_RETURN_IF_ERROR(ReadOptionalInteger(record, 9, "group_idx", &event.group));
  return event;
}

StatusOr<KvEvent> ReadRemoved(const Record& record) {
  RemovedEvent event;
  KVASIR_ASSIGN_OR_RETURN(event.hashes, ReadHashes(record));
  KVASIR_RETURN_IF_ERROR(ReadOptionalString(record, 2, "medium", &event.medium));
  KVASIR_RETURN_IF_ERROR(ReadOptionalInteger(record, 3, "group_idx", &event.group));
  return event;
}

Status ReadEvent(const Json& value, const std::string& name, std::vector<KvEvent>* out) {
  if (!IsRecord(value)) return Fault(name, "an array or a map is wanted");
  const Json* tag = Record(value, name).Find(0, "type");
  if (tag == nullptr || !tag->is_string()) return Fault(name, "the event's name is missing");
  const std::string& type = tag->get_ref<const std::string&>();
  const Record record(value, absl::StrCat(name, ".", type));
  if (type == kStored) {
    KVASIR_ASSIGN_OR_RETURN(out->emplace_back(), ReadStored(record));
  } else if (type == kRemoved) {
    KVASIR_ASSIGN_OR_RETURN(out->emplace_back(), ReadRemoved(record));
  } else if (type == kCleared) {
    out->emplace_back(ClearedEvent{});
  }
  return absl::OkStatus();
}

Json HashJson(const ExternalHash& hash, HashForm form) {
  if (form == HashForm::kInt64) return hash.Low64();
  return Json::binary({hash.bytes().begin(), hash.bytes().end()});
}

Json HashesJson(const std::vector<ExternalHash>& hashes, HashForm form) {
  Json out = Json::array();
  for (const ExternalHash& hash : hashes) out.push_back(HashJson(hash, form));
  return out;
}

template <typename T>
Json OptionalJson(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json EventJson(const StoredEvent& e, HashForm form) {
  return Json::array({kStored, HashesJson(e.hashes, form),
                      e.parent ? HashJson(*e.parent, form) : Json(), e.token_ids, e.block_size,
                      OptionalJson(e.lora_id), OptionalJson(e.medium), OptionalJson(e.lora_name)});
}

Json EventJson(const RemovedEvent& e, HashForm form) {
  return Json::array({kRemoved, HashesJson(e.hashes, form), OptionalJson(e.medium)});
}

Json EventJson(const ClearedEvent&, HashForm) { return Json::array({kCleared}); }

}  // namespace

StatusOr<KvEventBatch> DecodeKvEvents(absl::Span<const uint8_t> payload,
                                      const KvEventLimits& limits) {
  KVASIR_ASSIGN_OR_RETURN(const Json value, Parse(payload, limits));
  if (!IsRecord(value)) return Fault("KV events", "an array or a map is wanted");
  const Record record(value, "");
  KvEventBatch batch;
  const Json* timestamp = record.Find(0, "ts");
  if (timestamp == nullptr || !timestamp->is_number()) return Fault("ts", "a number is wanted");
  batch.timestamp = timestamp->get<double>();
  KVASIR_ASSIGN_OR_RETURN(const Json* events, record.Array(1, "events"));
  for (size_t i = 0; i < events->size(); ++i) {
    KVASIR_RETURN_IF_ERROR(ReadEvent((*events)[i], fmt::format("events[{}]", i), &batch.events));
  }
  KVASIR_RETURN_IF_ERROR(
      ReadOptionalInteger(record, 2, "data_parallel_rank", &batch.data_parallel_rank));
  return batch;
}

std::vector<uint8_t> EncodeKvEvents(const KvEventBatch& batch, HashForm form) {
  Json events = Json::array();
  for (const KvEvent& event : batch.events) {
    events.push_back(std::visit([&](const auto& e) { return EventJson(e, form); }, event));
  }
  Json out = Json::array({batch.timestamp, std::move(events)});
  if (batch.data_parallel_rank) out.push_back(*batch.data_parallel_rank);
  return Json::to_msgpack(out);
}

}  // namespace kvasir::cluster
