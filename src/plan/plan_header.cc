#include "plan/plan_header.h"

#include <cmath>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

namespace kvasir::plan {
namespace {

using nlohmann::json;

// Both directions go over one list of fields: `Fields(archive, value)` calls archive(name, member)
// for each. All are there.

struct BadField {
  std::string what;
};

// Numbers, strings and lists of them, and records that have Fields.
class Writer {
 public:
  template <typename T>
  void operator()(const char* name, const T& value) {
    out_[name] = Convert(value);
  }
  template <typename E, size_t N>
  void Enum(const char* name, const E& value, const char* const (&names)[N]) {
    out_[name] = names[static_cast<size_t>(value)];
  }
  // By the name that `name_of` gives to each up to `last`.
  template <typename E, typename NameOf>
  void Enum(const char* name, const E& value, E, const NameOf& name_of) {
    out_[name] = name_of(value);
  }
  json Take() { return std::move(out_); }

  template <typename T>
  static json Convert(const T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else if constexpr (requires { value.has_value(); }) {
      return value ? Convert(*value) : json();
    } else if constexpr (requires { value.begin(); }) {
      json list = json::array();
      for (const auto& item : value) list.push_back(Convert(item));
      return list;
    } else {
      Writer inner;
      Fields(inner, const_cast<T&>(value));  // which only reads it
      return std::move(inner.out_);
    }
  }

 private:
  json out_ = json::object();
};

class Reader {
 public:
  Reader(const json& in, std::string path) : in_(in), path_(std::move(path)) {
    if (!in_.is_object()) Fail("is no object");
  }

  template <typename T>
  void operator()(const char* name, T& value) {
    Read(Find(name), path_ + "." + name, value);
  }
  template <typename E, size_t N>
  void Enum(const char* name, E& value, const char* const (&names)[N]) {
    const json& found = Find(name);
    for (size_t i = 0; i < N; ++i) {
      if (found == names[i]) {
        value = static_cast<E>(i);
        return;
      }
    }
    throw BadField{fmt::format("{}.{}: has an unknown value", path_, name)};
  }
  template <typename E, typename NameOf>
  void Enum(const char* name, E& value, E last, const NameOf& name_of) {
    const json& found = Find(name);
    for (int i = 0; i <= static_cast<int>(last); ++i) {
      if (found == name_of(static_cast<E>(i))) {
        value = static_cast<E>(i);
        return;
      }
    }
    throw BadField{fmt::format("{}.{}: has an unknown value", path_, name)};
  }

  template <typename T>
  static void Read(const json& in, const std::string& path, T& value) {
    const auto fail = [&](const char* what) { throw BadField{path + ": " + what}; };
    if constexpr (std::is_same_v<T, bool>) {
      if (!in.is_boolean()) fail("is no boolean");
      value = in.get<bool>();
    } else if constexpr (std::is_integral_v<T>) {
      if (!in.is_number_integer()) fail("is no integer");
      const int64_t number = in.get<int64_t>();
      const bool wraps = in.is_number_unsigned() && number < 0;
      if (wraps || number < std::numeric_limits<T>::min() ||
          number > std::numeric_limits<T>::max()) {
        fail("is out of range");
      }
      value = static_cast<T>(number);
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!in.is_number()) fail("is no number");
      const double number = in.get<double>();
      if (!(std::abs(number) <= std::numeric_limits<T>::max())) fail("is out of range");
      value = static_cast<T>(number);
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!in.is_string()) fail("is no string");
      value = in.get<std::string>();
    } else if constexpr (requires { value.has_value(); }) {
      value.reset();
      if (!in.is_null()) Read(in, path, value.emplace());
    } else if constexpr (requires { value.begin(); }) {
      if (!in.is_array()) fail("is no list");
      value.clear();
      value.reserve(in.size());
      for (const json& item : in) {
        typename T::value_type one{};
        Read(item, path, one);
        value.push_back(std::move(one));
      }
    } else {
      Reader inner(in, path);
      Fields(inner, value);
    }
  }

 private:
  const json& Find(const char* name) const {
    const auto it = in_.find(name);
    if (it == in_.end()) Fail(fmt::format("has no {}", name));
    return *it;
  }
  [[noreturn]] void Fail(const std::string& what) const { throw BadField{path_ + ": " + what}; }

  const json& in_;
  const std::string path_;
};

// ---- The fields ----

constexpr const char* kRows[] = {"tokens", "output", "heads", "routed"};
constexpr const char* kValueTypes[] = {"f32", "int8", "bf16"};
constexpr const char* kGates[] = {"silu", "gelu", "clamped"};
constexpr const char* kScores[] = {"softmax", "sigmoid"};
constexpr const char* kScalings[] = {"none", "linear", "dynamic", "yarn", "llama3", "longrope"};
static_assert(std::size(kScalings) == static_cast<size_t>(model::RopeScaling::kLongRope) + 1);

template <typename A>
void Fields(A& a, SourceFile& f) {
  a("path", f.path);
  a("bytes", f.bytes);
  a("modified", f.modified);
}

template <typename A>
void Fields(A& a, Section& s) {
  a("offset", s.offset);
  a("bytes", s.bytes);
}

template <typename A>
void Fields(A& a, graph::Operand& o) {
  a("value", o.value);
  a("column", o.column);
  a("width", o.width);
}

template <typename A>
void Fields(A& a, graph::Gate& g) {
  a.Enum("kind", g.kind, kGates);
  a("alpha", g.alpha);
  a("limit", g.limit);
}

template <typename A>
void Fields(A& a, graph::Routing& r) {
  a("experts", r.experts);
  a("used", r.used);
  a("groups", r.groups);
  a("groups_used", r.groups_used);
  a.Enum("score", r.score, kScores);
  a("normalize", r.normalize);
  a("scale", r.scale);
}

template <typename A>
void Fields(A& a, graph::Value& v) {
  a("name", v.name);
  a.Enum("rows", v.rows, kRows);
  a.Enum("type", v.type, kValueTypes);
  a("width", v.width);
  a("copies", v.copies);
}

template <typename A>
void Fields(A& a, PlanNode& n) {
  a.Enum("op", n.op, graph::Op::kRopeKvWrite, [](graph::Op op) { return graph::Name(op); });
  a("inputs", n.inputs);
  a("output", n.output);
  a("matrix", n.matrix);
  a("vector", n.vector);
  a("bias", n.bias);
  a("order", n.order);
  a("layer", n.layer);
  a("scale", n.scale);
  a("residual", n.residual);
  a("parts", n.parts);
  a("head_width", n.head_width);
  a("column", n.column);
  a("table", n.table);
  a("window", n.window);
  a("softcap", n.softcap);
  a("gate", n.gate);
  a("routing", n.routing);
}

template <typename A>
void Fields(A& a, model::RopeConfig& r) {
  a("theta", r.theta);
  a("width", r.width);
  a.Enum("scaling", r.scaling, kScalings);
  a("factor", r.factor);
  a("original_context", r.original_context);
  a("attention_factor", r.attention_factor);
  a("low_frequency", r.low_frequency);
  a("high_frequency", r.high_frequency);
  a("beta_fast", r.beta_fast);
  a("beta_slow", r.beta_slow);
  a("mscale", r.mscale);
  a("mscale_all", r.mscale_all);
  a("truncate", r.truncate);
  a("factors", r.factors);
  a("long_factors", r.long_factors);
}

template <typename A>
void Fields(A& a, ops::PackedMatrix& m) {
  a.Enum("format", m.view.format, ops::PanelFormat::kInt8Zero,
         [](ops::PanelFormat format) { return ops::Name(format); });
  a("group", m.view.group);
  a("rows", m.view.rows);
  a("cols", m.view.cols);
}

template <typename A>
void Fields(A& a, EmbeddingTable& e) {
  a.Enum("type", e.dtype, DType::kMxfp4, [](DType type) { return Info(type).name; });
  a("rows", e.rows);
  a("cols", e.cols);
}

template <typename A>
void Fields(A& a, CompiledModel& m) {
  a("architecture", m.architecture);
  a("name", m.name);
  a("fingerprint", m.fingerprint);
  a("activations", m.activations);
  a("eos_ids", m.eos_ids);
  a("layers", m.layers);
  a("hidden", m.hidden);
  a("heads", m.heads);
  a("kv_heads", m.kv_heads);
  a("k_dim", m.k_dim);
  a("v_dim", m.v_dim);
  a("v_in_k", m.v_in_k);
  a("vocab", m.vocab);
  a("context_length", m.context_length);
  a("rms_eps", m.rms_eps);
  a("ropes", m.ropes);
  a.Enum("kv_type", m.kv_type, ops::KvType::kFp8,
         [](ops::KvType type) { return ops::Info(type).name; });
  a("values", m.values);
  a("nodes", m.nodes);
  a("logits", m.logits);
  a("embedding", m.embedding);
}

template <typename A>
void Fields(A& a, CompiledModel& m, PlanHeader& h) {
  a("model", m);
  a("matrices", m.matrices);
  a("sources", h.sources);
  a("matrix_sections", h.matrices);
  a("vector_sections", h.vectors);
  a("order_sections", h.orders);
  a("embedding_section", h.embedding);
  a("text_section", h.text);
  a("file_bytes", h.file_bytes);
}

template <typename A>
void Fields(A& a, PlanHeader& h) {
  Fields(a, h.model, h);
}

template <typename A>
void Fields(A& a, GgufVocab& v) {
  a("model", v.model);
  a("pre", v.pre);
  a("tokens", v.tokens);
  a("scores", v.scores);
  a("types", v.types);
  a("merges", v.merges);
  a("bos_id", v.bos_id);
  a("eos_id", v.eos_id);
  a("unk_id", v.unk_id);
  a("add_bos", v.add_bos);
  a("add_eos", v.add_eos);
  a("add_space_prefix", v.add_space_prefix);
}

template <typename A>
void Fields(A& a, model::TextFiles& t) {
  a("gguf_vocab", t.gguf_vocab);
  a("tokenizer_json", t.tokenizer_json);
  a("chat_template", t.chat_template);
  a("bos_token", t.bos_token);
  a("eos_token", t.eos_token);
}

template <typename T>
StatusOr<T> ReadRecord(const json& root, const char* name) {
  try {
    T out{};
    Reader::Read(root, name, out);
    return out;
  } catch (const BadField& bad) {
    return absl::InvalidArgumentError(bad.what);
  }
}

}  // namespace

json WriteHeader(const CompiledModel& model, const PlanHeader& header) {
  Writer writer;
  Fields(writer, const_cast<CompiledModel&>(model), const_cast<PlanHeader&>(header));
  return writer.Take();
}

StatusOr<PlanHeader> ReadHeader(const json& root) { return ReadRecord<PlanHeader>(root, "header"); }

json WriteText(const model::TextFiles& text) { return Writer::Convert(text); }

StatusOr<model::TextFiles> ReadText(const json& root) {
  return ReadRecord<model::TextFiles>(root, "text");
}

}  // namespace kvasir::plan
