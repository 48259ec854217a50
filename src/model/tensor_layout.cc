#include "model/tensor_layout.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <fmt/format.h>

#include <memory>
#include <optional>
#include <utility>

#include "model/quantization.h"

namespace kvasir::model {
namespace {

constexpr TensorName kTop[] = {
    {"model.embed_tokens.", "token_embd."},
    {"model.norm.", "output_norm."},
    {"lm_head.", "output."},
};

constexpr TensorName kLayer[] = {
    {"input_layernorm.", "attn_norm."},      {"self_attn.q_proj.", "attn_q."},
    {"self_attn.k_proj.", "attn_k."},        {"self_attn.v_proj.", "attn_v."},
    {"self_attn.o_proj.", "attn_output."},   {"self_attn.q_norm.", "attn_q_norm."},
    {"self_attn.k_norm.", "attn_k_norm."},   {"post_attention_layernorm.", "ffn_norm."},
    {"mlp.gate_proj.", "ffn_gate."},         {"mlp.up_proj.", "ffn_up."},
    {"mlp.down_proj.", "ffn_down."},         {"mlp.experts.*.gate_proj.", "ffn_gate.*."},
    {"mlp.experts.*.up_proj.", "ffn_up.*."}, {"mlp.experts.*.down_proj.", "ffn_down.*."},
};

// `name` with its beginning replaced, where it begins so; '*' stands for a number in both.
std::optional<std::string> Replace(const TensorName& rule, std::string_view name) {
  std::string_view number;
  std::string_view pattern = rule.hugging_face;
  const size_t star = pattern.find('*');
  if (star != std::string_view::npos) {
    if (name.substr(0, star) != pattern.substr(0, star)) return std::nullopt;
    name.remove_prefix(star);
    pattern.remove_prefix(star + 1);
    number = name.substr(0, name.find_first_not_of("0123456789"));
    if (number.empty()) return std::nullopt;
    name.remove_prefix(number.size());
  }
  if (name.substr(0, pattern.size()) != pattern) return std::nullopt;
  std::string out(rule.ours);
  if (star != std::string_view::npos) out.replace(out.find('*'), 1, number);
  return out + std::string(name.substr(pattern.size()));
}

// Takes apart what one layer's tensors hold together.
class Splitter {
 public:
  Splitter(Checkpoint& checkpoint, int32_t layer)
      : c_(checkpoint.config), tensors_(checkpoint.tensors), layer_(layer) {}

  Status Run() {
    SplitProjections();
    if (c_.HasExperts(layer_)) {
      SplitGptOss();
      for (const char* name : {"ffn_gate", "ffn_up", "ffn_down"}) {
        SplitStack(std::string(name) + "_exps.weight", name, ".weight");
        SplitStack(std::string(name) + "_exps.bias", name, ".bias");
      }
    }
    if (c_.latent.rank > 0) SplitLatent();
    if (c_.interleaved_rope) MarkRotated();
    return status_;
  }

 private:
  std::string Of(const std::string& name) const { return fmt::format("blk.{}.{}", layer_, name); }

  const TensorView* Find(const std::string& name) const {
    const auto it = tensors_.find(Of(name));
    return it == tensors_.end() ? nullptr : &it->second;
  }

  // Takes it out, having checked its size.
  std::optional<TensorView> Take(const std::string& name, int64_t rows, int64_t cols) {
    const auto it = tensors_.find(Of(name));
    if (it == tensors_.end()) return std::nullopt;
    const TensorView view = it->second;
    if (!HasShape(view, Of(name), rows, cols)) return std::nullopt;
    tensors_.erase(it);
    return view;
  }

  bool HasShape(const TensorView& view, const std::string& name, int64_t rows, int64_t cols) {
    if (view.rows == rows && view.cols == cols) return true;
    Fail(fmt::format("tensor '{}' has shape [{}, {}] but the configuration asks for [{}, {}]", name,
                     view.rows, view.cols, rows, cols));
    return false;
  }

  void Put(const std::string& name, const TensorView& view) {
    if (!tensors_.emplace(Of(name), view).second) {
      Fail(fmt::format("tensor '{}' is there twice", Of(name)));
    }
  }

  // QKV, and gate and up, of Phi 3.
  void SplitProjections() {
    const int64_t q = int64_t{c_.heads} * c_.head_dim, kv = int64_t{c_.kv_heads} * c_.head_dim;
    if (Find("attn_qkv.weight") != nullptr) {
      if (const auto view = Take("attn_qkv.weight", q + 2 * kv, c_.hidden)) {
        Put("attn_q.weight", RowsOf(*view, 0, q));
        Put("attn_k.weight", RowsOf(*view, q, kv));
        Put("attn_v.weight", RowsOf(*view, q + kv, kv));
      }
    }
    const TensorView* up = Find("ffn_up.weight");
    if (up == nullptr || Find("ffn_gate.weight") != nullptr) return;
    if (const auto view = Take("ffn_up.weight", 2 * int64_t{c_.ffn}, c_.hidden)) {
      Put("ffn_gate.weight", RowsOf(*view, 0, c_.ffn));
      Put("ffn_up.weight", RowsOf(*view, c_.ffn, c_.ffn));
    }
  }

  // [experts][rows] of GGUF; biases are a row for each.
  void SplitStack(const std::string& stack, const std::string& name, const char* kind) {
    const TensorView* found = Find(stack);
    if (found == nullptr) return;
    const int64_t experts = c_.moe.routing.experts;
    const int64_t rows = name == "ffn_down" ? c_.hidden : c_.moe.ffn;
    const int64_t cols = name == "ffn_down" ? c_.moe.ffn : c_.hidden;
    const bool bias = std::string_view(kind) == ".bias";
    const auto view = bias ? Take(stack, experts, rows) : Take(stack, experts * rows, cols);
    if (!view) return;
    for (int64_t e = 0; e < experts; ++e) {
      Put(fmt::format("{}.{}{}", name, e, kind),
          bias ? RowsOf(*view, e, 1) : RowsOf(*view, e * rows, rows));
    }
  }

  // Those of gpt-oss lie [experts][in][out], gate and up alternating; GGUF calls its norm before
  // the experts another's name.
  void SplitGptOss() {
    if (c_.architecture != "gpt-oss") return;
    if (Find("ffn_norm.weight") == nullptr) {
      if (const auto norm = Take("post_attention_norm.weight", 1, c_.hidden)) {
        Put("ffn_norm.weight", *norm);
      }
    }
    const int64_t experts = c_.moe.routing.experts, ffn = c_.moe.ffn, hidden = c_.hidden;
    SplitMxfp4();
    if (FindRaw("gate_up_proj") != nullptr) {
      const auto view = TakeRaw("gate_up_proj", experts * hidden, 2 * ffn);
      for (int64_t e = 0; view && e < experts; ++e) {
        for (int64_t side = 0; side < 2; ++side) {
          Put(fmt::format("{}.{}.weight", side == 0 ? "ffn_gate" : "ffn_up", e),
              Strided(*view, e * hidden * 2 * ffn + side, ffn, hidden, 2, 2 * ffn));
        }
      }
    }
    if (FindRaw("down_proj") != nullptr) {
      const auto view = TakeRaw("down_proj", experts * ffn, hidden);
      for (int64_t e = 0; view && e < experts; ++e) {
        Put(fmt::format("ffn_down.{}.weight", e),
            Strided(*view, e * ffn * hidden, hidden, ffn, 1, hidden));
      }
    }
    if (FindRaw("gate_up_proj_bias") != nullptr) {
      const auto view = TakeRaw("gate_up_proj_bias", experts, 2 * ffn);
      for (int64_t e = 0; view && e < experts; ++e) {
        Put(fmt::format("ffn_gate.{}.bias", e), Strided(*view, e * 2 * ffn, 1, ffn, 0, 2));
        Put(fmt::format("ffn_up.{}.bias", e), Strided(*view, e * 2 * ffn + 1, 1, ffn, 0, 2));
      }
    }
    if (FindRaw("down_proj_bias") != nullptr) {
      const auto view = TakeRaw("down_proj_bias", experts, hidden);
      for (int64_t e = 0; view && e < experts; ++e) {
        Put(fmt::format("ffn_down.{}.bias", e), RowsOf(*view, e, 1));
      }
    }
  }

  // In MXFP4 the experts of gpt-oss lie [experts][out][in].
  void SplitMxfp4() {
    const int64_t experts = c_.moe.routing.experts, ffn = c_.moe.ffn, hidden = c_.hidden;
    if (FindRaw("gate_up_proj_blocks") != nullptr) {
      const auto [blocks, scales] = TakeMxfp4("gate_up_proj", experts * 2 * ffn, hidden);
      for (int64_t e = 0; blocks && scales && e < experts; ++e) {
        for (int64_t side = 0; side < 2; ++side) {
          Put(fmt::format("{}.{}.weight", side == 0 ? "ffn_gate" : "ffn_up", e),
              Mxfp4View(*blocks, *scales, {e, 2 * ffn, hidden, side, 2}));
        }
      }
    }
    if (FindRaw("down_proj_blocks") != nullptr) {
      const auto [blocks, scales] = TakeMxfp4("down_proj", experts * hidden, ffn);
      for (int64_t e = 0; blocks && scales && e < experts; ++e) {
        Put(fmt::format("ffn_down.{}.weight", e),
            Mxfp4View(*blocks, *scales, {e, hidden, ffn, 0, 1}));
      }
    }
  }

  // The two tensors of [rows, cols] in MXFP4.
  std::pair<std::optional<TensorView>, std::optional<TensorView>> TakeMxfp4(const std::string& name,
                                                                            int64_t rows,
                                                                            int64_t cols) {
    const int64_t groups = cols / 32;
    const auto take = [&](const std::string& part, int64_t r, int64_t c) {
      std::optional<TensorView> out;
      const auto it = tensors_.find(RawName(part));
      if (it == tensors_.end()) {
        Fail(fmt::format("tensor '{}' is missing", RawName(part)));
      } else if (it->second.dtype != DType::kU8) {
        Fail(fmt::format("tensor '{}' has type {} but should have U8", RawName(part),
                         Info(it->second.dtype).name));
      } else if (HasShape(it->second, RawName(part), r, c)) {
        out = it->second;
        tensors_.erase(it);
      }
      return out;
    };
    if (cols % 32 != 0)
      Fail(
          fmt::format("tensor '{}_blocks': {} columns are no multiple of 32", RawName(name), cols));
    return {take(name + "_blocks", rows * groups, 16), take(name + "_scales", rows, groups)};
  }

  void Fail(const std::string& what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(what);
  }

  // The two products that take a head's query into the latent's space and values out of it.
  void SplitLatent() {
    const LatentConfig& l = c_.latent;
    const int64_t heads = c_.heads;
    if (const TensorView* both = Find("attn_kv_b.weight")) {
      if (!Float(*both, Of("attn_kv_b.weight"))) return;
      const int64_t head = l.nope + l.value;
      const auto view = Take("attn_kv_b.weight", heads * head, l.rank);
      for (int64_t h = 0; view && h < heads; ++h) {
        Put(fmt::format("attn_k_b.{}.weight", h),
            Strided(*view, h * head * l.rank, l.rank, l.nope, 1, l.rank));
        Put(fmt::format("attn_v_b.{}.weight", h), RowsOf(*view, h * head + l.nope, l.value));
      }
      return;
    }
    const auto k = Take("attn_k_b.weight", heads * l.rank, l.nope);
    const auto v = Take("attn_v_b.weight", heads * l.value, l.rank);
    for (int64_t h = 0; k && v && h < heads; ++h) {
      Put(fmt::format("attn_k_b.{}.weight", h), RowsOf(*k, h * l.rank, l.rank));
      Put(fmt::format("attn_v_b.{}.weight", h), RowsOf(*v, h * l.value, l.value));
    }
  }

  void MarkRotated() {
    const LatentConfig& l = c_.latent;
    if (l.rank > 0) {
      const InterleavedRows query{l.nope + l.rope, l.nope, l.rope};
      Mark("attn_q_b.weight", query);
      Mark("attn_q.weight", query);
      Mark("attn_kv_a_mqa.weight", {l.rank + l.rope, l.rank, l.rope});
      Mark("attn_kv_a_mqa.bias", {l.rank + l.rope, l.rank, l.rope});
      return;
    }
    for (const char* name : {"attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias"}) {
      Mark(name, {c_.head_dim, 0, c_.rope.width});
    }
  }

  void Mark(const std::string& name, const InterleavedRows& rows) {
    const auto it = tensors_.find(Of(name));
    if (it != tensors_.end()) it->second.interleaved = rows;
  }

  // ---- Names of experts that no rule covers ----

  const TensorView* FindRaw(const std::string& name) const {
    const auto it = tensors_.find(RawName(name));
    return it == tensors_.end() ? nullptr : &it->second;
  }
  // Takes one of a float type out, having checked its size.
  std::optional<TensorView> TakeRaw(const std::string& name, int64_t rows, int64_t cols) {
    const auto it = tensors_.find(RawName(name));
    const TensorView view = it->second;
    tensors_.erase(it);
    if (!HasShape(view, RawName(name), rows, cols) || !Float(view, RawName(name))) {
      return std::nullopt;
    }
    return view;
  }
  std::string RawName(const std::string& name) const {
    return fmt::format("model.layers.{}.mlp.experts.{}", layer_, name);
  }

  bool Float(const TensorView& view, const std::string& name) {
    if (!IsQuantized(view.dtype)) return true;
    if (status_.ok()) {
      status_ = absl::UnimplementedError(
          fmt::format("tensor '{}' of type {} would have to be transposed: only float types can be",
                      name, Info(view.dtype).name));
    }
    return false;
  }

  static TensorView RowsOf(const TensorView& view, int64_t first, int64_t rows) {
    TensorView out = view;
    out.rows = rows;
    if (view.scaled != nullptr && view.dtype != DType::kF8E4M3) {
      ops::ScaledMatrix part = *view.scaled;
      part.first_row += first * part.row_step;
      out.scaled = std::make_shared<const ops::ScaledMatrix>(std::move(part));
      return out;
    }
    const DTypeInfo info = Info(view.dtype);
    const int64_t row_bytes = view.cols / info.block_elements * info.block_bytes;
    out.bytes = view.bytes.subspan(first * row_bytes, rows * row_bytes);
    return out;
  }

  static TensorView Strided(const TensorView& view, int64_t first, int64_t rows, int64_t cols,
                            int64_t row_stride, int64_t col_stride) {
    const int64_t element = Info(view.dtype).block_bytes;
    const int64_t last = (rows - 1) * row_stride + (cols - 1) * col_stride;
    TensorView out = view;
    out.rows = rows;
    out.cols = cols;
    out.row_stride = row_stride;
    out.col_stride = col_stride;
    out.bytes = view.bytes.subspan(first * element, (last + 1) * element);
    return out;
  }

  const ModelConfig& c_;
  TensorMap& tensors_;
  const int32_t layer_;
  Status status_;
};

}  // namespace

std::string CanonicalName(const Architecture& architecture, std::string_view name) {
  for (const TensorName& rule : kTop) {
    if (auto out = Replace(rule, name)) return *out;
  }
  constexpr std::string_view kLayers = "model.layers.";
  if (name.substr(0, kLayers.size()) != kLayers) return std::string(name);
  std::string_view rest = name.substr(kLayers.size());
  const size_t dot = rest.find('.');
  if (dot == std::string_view::npos) return std::string(name);
  const std::string layer(rest.substr(0, dot));
  rest.remove_prefix(dot + 1);
  for (const absl::Span<const TensorName> rules :
       {architecture.tensors, absl::Span<const TensorName>(kLayer)}) {
    for (const TensorName& rule : rules) {
      if (const auto out = Replace(rule, rest)) return fmt::format("blk.{}.{}", layer, *out);
    }
  }
  return std::string(name);
}

Status SplitTensors(Checkpoint& checkpoint) {
  for (int32_t layer = 0; layer < checkpoint.config.layers; ++layer) {
    KVASIR_RETURN_IF_ERROR(Splitter(checkpoint, layer).Run());
  }
  return absl::OkStatus();
}

}  // namespace kvasir::model
