#include "model/quantization.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include <absl/strings/ascii.h>
#include <fmt/format.h>

#include "ops/panel_format.h"

namespace kvasir::model {
namespace {

using ops::ScaledMatrix;

// ---- Configuration ----

constexpr const char* kMethodName = "quantization_config.quant_method";

void ReadAwq(ConfigSource& source) {
  for (const char* name : {"quantization_config.bits", "quantization_config.w_bit"}) {
    const FieldName field = {name, nullptr};
    const int32_t bits = source.Int(field, 1, 64, 4);
    if (bits != 4) source.FailUnsupported(field, fmt::format("{}", bits), "4 is");
  }
  const FieldName version = {"quantization_config.version", nullptr};
  const std::string stated = source.String(version, "gemm");
  if (absl::AsciiStrToLower(stated) != "gemm") source.FailUnsupported(version, stated, "gemm is");
  const FieldName zero = {"quantization_config.zero_point", nullptr};
  if (!source.Bool(zero, true)) source.FailUnsupported(zero, "false", "true is");
}

void ReadGptq(ConfigSource& source, ModelConfig* c) {
  const FieldName field = {"quantization_config.bits", nullptr};
  const int32_t bits = source.Int(field, 1, 64);
  if (bits != 4 && bits != 8) {
    source.FailUnsupported(field, fmt::format("{}", bits), "4 and 8 are");
  }
  const FieldName format = {"quantization_config.checkpoint_format", nullptr};
  const std::string stated = source.String(format, "gptq");
  if (stated != "gptq" && stated != "gptq_v2") {
    source.FailUnsupported(format, stated, "gptq and gptq_v2 are");
  }
  // The first format stores zero points less one.
  c->quantization.zero_offset = stated == "gptq" ? 1 : 0;
}

void ReadCompressedTensors(ConfigSource& source) {
  const FieldName format = {"quantization_config.format", nullptr};
  const std::string stated = source.String(format, "");
  const char* supported[] = {"pack-quantized", "int-quantized", "float-quantized",
                             "mixed-precision"};
  if (std::find(std::begin(supported), std::end(supported), stated) == std::end(supported)) {
    source.FailUnsupported(
        format, stated, "pack-quantized, int-quantized, float-quantized and mixed-precision are");
  }
  const FieldName sparsity = {"quantization_config.sparsity_config.format", nullptr};
  const std::string sparse = source.String(sparsity, "dense");
  if (sparse != "dense") source.FailUnsupported(sparsity, sparse, "dense is");
  const FieldName transform = {"quantization_config.transform_config", nullptr};
  if (source.HasFields(transform)) source.FailUnsupported(transform, "it", "none is");
}

void ReadFp8(ConfigSource& source) {
  const FieldName block = {"quantization_config.weight_block_size", nullptr};
  const std::vector<float> size = source.Floats(block);
  if (!size.empty() && size != std::vector<float>{128, 128}) {
    source.FailUnsupported(block, fmt::format("{} numbers from {}", size.size(), size[0]),
                           "[128, 128] is");
  }
  const FieldName format = {"quantization_config.fmt", nullptr};
  const std::string stated = source.String(format, "e4m3");
  if (stated != "e4m3" && stated != "float8_e4m3fn") {
    source.FailUnsupported(format, stated, "e4m3 is");
  }
}

// ---- Tensors ----

std::string ShapeOf(const TensorView& view) {
  return fmt::format("[{}, {}]", view.rows, view.cols);
}

// Joins the tensors of one matrix; the first failure is kept.
class Joiner {
 public:
  Joiner(TensorMap& tensors, const QuantizationConfig& config, std::string name)
      : tensors_(tensors), config_(config), name_(std::move(name)) {}

  Status Gptq() {
    const auto q = Take("qweight", DType::kI32), zeros = Take("qzeros", DType::kI32);
    const auto scales = Take("scales", std::nullopt);
    if (!status_.ok()) return status_;
    const int64_t rows = q->cols, groups = scales->rows;
    const int32_t bits = Bits(32 * zeros->cols, rows, "qzeros", *zeros);
    if (!status_.ok()) return status_;
    const int64_t cols = q->rows * (32 / bits);
    ScaledMatrix m = Grouped("scales", cols, groups);
    ExpectShape("scales", *scales, groups, rows);
    ExpectShape("qzeros", *zeros, groups, rows * bits / 32);
    m.scale = {scales->dtype, scales->bytes, 1, rows};
    m.q = {.bytes = q->bytes, .bits = bits, .word_stride = rows, .other_stride = 1};
    m.zero = {.bytes = zeros->bytes,
              .bits = bits,
              .down_rows = true,
              .word_stride = 1,
              .other_stride = zeros->cols};
    m.zero_offset = config_.zero_offset;
    Order("g_idx", cols, groups, m);
    return Put(bits == 4 ? DType::kInt4 : DType::kInt8, rows, cols, q->bytes, std::move(m));
  }

  Status Awq() {
    const auto q = Take("qweight", DType::kI32), zeros = Take("qzeros", DType::kI32);
    const auto scales = Take("scales", std::nullopt);
    if (!status_.ok()) return status_;
    const int64_t rows = q->cols * 8, cols = q->rows, groups = scales->rows;
    ScaledMatrix m = Grouped("scales", cols, groups);
    ExpectShape("scales", *scales, groups, rows);
    ExpectShape("qzeros", *zeros, groups, rows / 8);
    m.scale = {scales->dtype, scales->bytes, 1, rows};
    m.q = {.bytes = q->bytes,
           .down_rows = true,
           .awq_order = true,
           .word_stride = 1,
           .other_stride = q->cols};
    m.zero = m.q;
    m.zero.bytes = zeros->bytes;
    return Put(DType::kInt4, rows, cols, q->bytes, std::move(m));
  }

  // compressed-tensors, pack-quantized.
  Status Packed() {
    const auto q = Take("weight_packed", DType::kI32), shape = Take("weight_shape", DType::kI64);
    const auto scales = Take("weight_scale", std::nullopt);
    if (!status_.ok()) return status_;
    ExpectShape("weight_shape", *shape, 1, 2);
    if (!status_.ok()) return status_;
    int64_t size[2];
    std::memcpy(size, shape->bytes.data(), sizeof(size));
    const auto [rows, cols] = size;
    if (rows != q->rows || cols < 1 || cols > 8 * q->cols) {
      Fail("weight_shape", fmt::format("holds [{}, {}], which does not fit a weight_packed of {}",
                                       rows, cols, ShapeOf(*q)));
      return status_;
    }
    const int32_t bits = Bits(32 * q->cols, cols, "weight_packed", *q);
    ScaledMatrix m = Grouped("weight_scale", cols, scales->cols);
    ExpectShape("weight_scale", *scales, rows, scales->cols);
    if (!status_.ok()) return status_;
    m.scale = {scales->dtype, scales->bytes, scales->cols, 1};
    m.q = {.bytes = q->bytes, .bits = bits, .word_stride = 1, .other_stride = q->cols};
    if (Has("weight_zero_point")) {
      const auto zeros = Take("weight_zero_point", DType::kI32);
      if (!status_.ok()) return status_;
      ExpectShape("weight_zero_point", *zeros, rows * bits / 32, scales->cols);
      m.zero = {.bytes = zeros->bytes,
                .bits = bits,
                .down_rows = true,
                .word_stride = scales->cols,
                .other_stride = 1};
    }
    Order("weight_g_idx", cols, scales->cols, m);
    return Put(bits == 4 ? DType::kInt4 : DType::kInt8, rows, cols, q->bytes, std::move(m));
  }

  // compressed-tensors, int-quantized: a byte an integer.
  Status Bytes() {
    const auto q = Take("weight", DType::kI8), scales = Take("weight_scale", std::nullopt);
    if (!status_.ok()) return status_;
    const int64_t rows = q->rows, cols = q->cols;
    const ops::Scales scale = RowScales("weight_scale", *scales, rows);
    const int64_t groups = scales->rows == rows ? scales->cols : 1;
    ScaledMatrix m = Grouped("weight_scale", cols, groups);
    m.scale = scale;
    m.is_signed = true;
    m.q = {.bytes = q->bytes, .bits = 8, .word_stride = 1, .other_stride = cols / 4};
    if (Has("weight_zero_point")) {
      const auto zeros = Take("weight_zero_point", DType::kI8);
      if (!status_.ok()) return status_;
      ExpectShape("weight_zero_point", *zeros, rows, groups);
      // Words of rows where there is one for each, else of groups.
      if (groups > 1 ? groups % 4 != 0 : rows % 4 != 0) {
        Fail("weight_zero_point", "its rows and columns are no multiples of 4");
        return status_;
      }
      m.zero = {.bytes = zeros->bytes,
                .bits = 8,
                .down_rows = groups == 1,
                .word_stride = 1,
                .other_stride = groups / 4};
    }
    return Put(DType::kInt8, rows, cols, q->bytes, std::move(m));
  }

  // 8-bit floats with a scale for the whole, for each row or for each block of 128 x 128.
  Status Floats() {
    const auto q = Take("weight", DType::kF8E4M3);
    const char* part = Has("weight_scale_inv") ? "weight_scale_inv" : "weight_scale";
    const auto scales = Take(part, std::nullopt);
    if (!status_.ok()) return status_;
    const int64_t rows = q->rows, cols = q->cols;
    ScaledMatrix m{.group_columns = cols};
    m.origin = q->bytes.data();
    m.origin_columns = cols;
    const auto blocks = [](int64_t size) { return (size + ops::kF8Block - 1) / ops::kF8Block; };
    const bool whole = scales->rows * scales->cols == 1;
    if (!whole && scales->rows == blocks(rows) && scales->cols == blocks(cols)) {
      m.scale = {scales->dtype, scales->bytes, scales->cols, 1};
      m.group_rows = m.group_columns = ops::kF8Block;
    } else {
      if (scales->cols > 1 && (scales->rows > 1 || rows == 1)) {
        ExpectShape(part, *scales, blocks(rows), blocks(cols));
      }
      m.scale = RowScales(part, *scales, rows);
    }
    return Put(DType::kF8E4M3, rows, cols, q->bytes, std::move(m));
  }

 private:
  std::string Of(const char* part) const { return name_ + "." + part; }
  bool Has(const char* part) const { return tensors_.contains(Of(part)); }

  void Fail(const char* part, const std::string& what) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(fmt::format("tensor '{}': {}", Of(part), what));
  }

  // Takes it out; of a type that is not stated it is a float.
  std::optional<TensorView> Take(const char* part, std::optional<DType> type) {
    const auto it = tensors_.find(Of(part));
    if (it == tensors_.end()) {
      Fail(part, "is missing: the matrix is quantised");
      return std::nullopt;
    }
    const TensorView view = it->second;
    if (type ? view.dtype != *type : !IsPlainFloat(view.dtype)) {
      Fail(part, fmt::format("has type {} but should have {}", Info(view.dtype).name,
                             type ? Info(*type).name : "F32, F16 or BF16"));
      return std::nullopt;
    }
    tensors_.erase(it);
    return view;
  }

  void ExpectShape(const char* part, const TensorView& view, int64_t rows, int64_t cols) {
    if (view.rows == rows && view.cols == cols) return;
    Fail(part,
         fmt::format("has shape {} but the matrix asks for [{}, {}]", ShapeOf(view), rows, cols));
  }

  // How many bits each of `items` has that take `bits` together.
  int32_t Bits(int64_t bits, int64_t items, const char* part, const TensorView& view) {
    for (const int32_t each : {4, 8}) {
      if (items % (32 / each) == 0 && bits == each * items) return each;
    }
    Fail(part, fmt::format("has shape {}, which is neither 4 nor 8 bits for each of {}",
                           ShapeOf(view), items));
    return 4;
  }

  ScaledMatrix Grouped(const char* part, int64_t cols, int64_t groups) {
    ScaledMatrix m{.group_columns = ops::kGroup};
    if (cols % groups != 0 || cols / groups % ops::kGroup != 0) {
      Fail(part, fmt::format("{} groups of {} columns: groups of a multiple of {} columns are "
                             "supported",
                             groups, cols, ops::kGroup));
      return m;
    }
    m.group_columns = cols / groups;
    return m;
  }

  // One for the whole, one for each row (as a column or a row), or some for each row.
  ops::Scales RowScales(const char* part, const TensorView& view, int64_t rows) {
    if (view.rows * view.cols == 1) return {view.dtype, view.bytes, 0, 0};
    if (view.rows == rows) return {view.dtype, view.bytes, view.cols, 1};
    ExpectShape(part, view, 1, rows);
    return {view.dtype, view.bytes, 1, 0};
  }

  // The order of columns by the group that each belongs to.
  void Order(const char* part, int64_t cols, int64_t groups, ScaledMatrix& m) {
    if (!status_.ok() || !Has(part)) return;
    const auto view = Take(part, DType::kI32);
    if (!view) return;
    ExpectShape(part, *view, 1, cols);
    if (!status_.ok()) return;
    std::vector<int32_t> group(cols);
    std::memcpy(group.data(), view->bytes.data(), view->bytes.size());
    if (std::all_of(group.begin(), group.end(), [](int32_t g) { return g == -1; })) return;
    std::vector<int64_t> members(groups, 0);
    for (const int32_t g : group) {
      if (g < 0 || g >= groups) {
        Fail(part, fmt::format("names group {} of {}", g, groups));
        return;
      }
      ++members[g];
    }
    for (const int64_t count : members) {
      if (count == m.group_columns) continue;
      Fail(part, fmt::format("gives a group {} columns and not {}", count, m.group_columns));
      return;
    }
    if (std::is_sorted(group.begin(), group.end())) return;
    m.order.resize(cols);
    std::iota(m.order.begin(), m.order.end(), 0);
    std::stable_sort(m.order.begin(), m.order.end(),
                     [&](int32_t a, int32_t b) { return group[a] < group[b]; });
  }

  // Zero points that are the middle of the range, as symmetric rounding leaves them.
  static bool AllMiddle(const ScaledMatrix& m) {
    const int32_t stored = m.is_signed ? 0 : (1 << (m.zero.bits - 1)) - m.zero_offset;
    const uint8_t byte = static_cast<uint8_t>(m.zero.bits == 4 ? stored * 0x11 : stored);
    return std::all_of(m.zero.bytes.begin(), m.zero.bytes.end(),
                       [&](uint8_t b) { return b == byte; });
  }

  Status Put(DType type, int64_t rows, int64_t cols, absl::Span<const uint8_t> bytes,
             ScaledMatrix matrix) {
    if (!status_.ok()) return status_;
    matrix.has_zero = !matrix.zero.bytes.empty() && !AllMiddle(matrix);
    TensorView view{type, rows, cols, bytes};
    view.scaled = std::make_shared<const ScaledMatrix>(std::move(matrix));
    if (!tensors_.emplace(Of("weight"), std::move(view)).second) {
      Fail("weight", "is there beside its quantised form");
    }
    return status_;
  }

  TensorMap& tensors_;
  const QuantizationConfig& config_;
  const std::string name_;
  Status status_;
};

// Of a tensor that begins the ones of a quantised matrix: how they are joined.
using Join = Status (Joiner::*)();
struct FirstPart {
  std::string_view suffix;
  std::optional<DType> type;
  Join join;
};

std::vector<FirstPart> FirstParts(QuantMethod method) {
  switch (method) {
    case QuantMethod::kGptq:
      return {{".qweight", std::nullopt, &Joiner::Gptq}};
    case QuantMethod::kAwq:
      return {{".qweight", std::nullopt, &Joiner::Awq}};
    case QuantMethod::kCompressedTensors:
      return {{".weight_packed", std::nullopt, &Joiner::Packed},
              {".weight", DType::kI8, &Joiner::Bytes},
              {".weight", DType::kF8E4M3, &Joiner::Floats}};
    case QuantMethod::kFp8:
      return {{".weight", DType::kF8E4M3, &Joiner::Floats}};
    case QuantMethod::kNone:
    case QuantMethod::kMxfp4:  // whose experts are stacked: see SplitTensors
      return {};
  }
  return {};
}

}  // namespace

void ReadQuantization(ConfigSource& source, ModelConfig* c) {
  const FieldName field = {kMethodName, nullptr};
  const std::string method = source.String(field, "");
  QuantMethod& out = c->quantization.method;
  if (method.empty()) return;
  if (method == "awq") {
    out = QuantMethod::kAwq;
    ReadAwq(source);
  } else if (method == "gptq") {
    out = QuantMethod::kGptq;
    ReadGptq(source, c);
  } else if (method == "compressed-tensors") {
    out = QuantMethod::kCompressedTensors;
    ReadCompressedTensors(source);
  } else if (method == "fp8") {
    out = QuantMethod::kFp8;
    ReadFp8(source);
  } else if (method == "mxfp4" && c->architecture == "gpt-oss") {
    out = QuantMethod::kMxfp4;
  } else {
    source.FailUnsupported(field, method,
                           "awq, gptq, compressed-tensors, fp8 and, of gpt-oss, mxfp4 are");
  }
}

Status JoinQuantized(Checkpoint& checkpoint) {
  const QuantizationConfig& config = checkpoint.config.quantization;
  struct Found {
    std::string name;
    Join join;
  };
  std::vector<Found> all;
  for (const FirstPart& part : FirstParts(config.method)) {
    for (const auto& [name, view] : checkpoint.tensors) {
      if (!name.ends_with(part.suffix) || (part.type && view.dtype != *part.type)) continue;
      all.push_back({name.substr(0, name.size() - part.suffix.size()), part.join});
    }
  }
  for (const Found& found : all) {
    Joiner joiner(checkpoint.tensors, config, found.name);
    KVASIR_RETURN_IF_ERROR((joiner.*found.join)());
  }
  return absl::OkStatus();
}

TensorView Mxfp4View(const TensorView& blocks, const TensorView& scales, const Mxfp4Slice& slice) {
  const int64_t groups = slice.cols / ops::kGroup, count = slice.rows * groups;
  ScaledMatrix m{.group_columns = ops::kGroup};
  m.scale = {DType::kU8, scales.bytes.subspan(slice.index * count, count), groups, 1};
  m.q = {.bytes = blocks.bytes.subspan(slice.index * count * 16, count * 16),
         .word_stride = 1,
         .other_stride = slice.cols / 8};
  m.first_row = slice.first_row;
  m.row_step = slice.row_step;
  TensorView out{DType::kMxfp4, slice.rows / slice.row_step, slice.cols, m.q.bytes};
  out.scaled = std::make_shared<const ScaledMatrix>(std::move(m));
  return out;
}

}  // namespace kvasir::model
