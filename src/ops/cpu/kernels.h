// The table of CPU kernels, one per instruction-set family. All are pure functions of their
// arguments, safe to call from any thread on disjoint outputs.
//
// Every family does the same float operations in the same order and is exact in integers, so that
// all give the same bits; the one exception is `kBf16Pairs` (AVX-512 BF16), whose instruction
// rounds in its own way. Each output depends on its own row of activations alone, whatever else is
// in the batch.
#pragma once

#include <cstdint>

#include "ops/kv_type.h"
#include "ops/panel_format.h"

namespace kvasir::ops {

// Activations rounded to int8 with one scale per row and group of 32 columns. Row r starts at
// q + r * cols, scale + r * cols / 32 and so on.
struct QuantizedRows {
  int64_t cols = 0;
  int8_t* q = nullptr;             // in [-127, 127]
  float* scale = nullptr;          // [cols / 32]: value = q * scale
  float* sum = nullptr;            // [cols / 32]: scale * sum of q over the group
  float* half_sum = nullptr;       // [cols / 16]: the same over 16 columns
  int32_t* integer_sum = nullptr;  // [cols / 32]: sum of q

  // Bytes that `rows` rows of `cols` columns take.
  static int64_t Bytes(int64_t rows, int64_t cols);
  // Lays a view over that many bytes, aligned to 64.
  static QuantizedRows At(uint8_t* base, int64_t rows, int64_t cols);
};

// out[m][n] (+)= sum over k of x[m][k] * w[n][k] (+ bias[n]) for m in [row_begin, row_end) and the
// 16-row panels [panel_begin, panel_end) of the weights.
struct MatmulArgs {
  PanelView weights;
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  QuantizedRows quantized;         // for quantised weights
  const float* floats = nullptr;   // [m][cols] for F32, F16 and BF16 weights
  const uint16_t* bf16 = nullptr;  // [m][cols] for BF16 pairs
  const float* bias = nullptr;     // [n] or null
  float* out = nullptr;
  int64_t out_stride = 0;
  bool accumulate = false;  // add to what `out` holds: the residual stream
};

// KV positions are walked in tiles of 64, grouped into super-tiles of 256 that are computed each
// on its own and merged in order (Dao et al., FlashAttention; Flash-Decoding for the merge).
inline constexpr int32_t kKvUnit = 16;
inline constexpr int32_t kKvTile = 64;
inline constexpr int32_t kKvSuperTile = 256;

inline constexpr int32_t kKvSuperUnits = kKvSuperTile / kKvUnit;

// One super-tile of one KV head for some query rows. K units are [k_dim][16], V units [16][v_dim],
// the scales of a unit [16]; units past the last position of any row are not read. A score is
// (q . k) * k_scale, in this order; a position's weight is multiplied by v_scale before it is by v.
struct AttendArgs {
  const uint8_t* k[kKvSuperUnits] = {};
  const uint8_t* v[kKvSuperUnits] = {};
  const float* k_scale[kKvSuperUnits] = {};  // of types that have scales
  const float* v_scale[kKvSuperUnits] = {};
  KvType type = KvType::kBf16;
  int32_t base = 0;  // absolute position of the super-tile
  int32_t k_dim = 0;
  int32_t v_dim = 0;
  // V is the first v_dim columns of K, which bear v_scale; k_scale is that of the others, and `v`
  // is not read.
  bool v_in_k = false;
  float softcap = 0;  // scores become softcap * tanh(score / softcap); 0: none
  int32_t rows = 0;
  const float* const* q = nullptr;  // [rows] -> [k_dim], already scaled
  const int32_t* first = nullptr;   // [rows] first position that the row sees
  const int32_t* last = nullptr;    // [rows] last position that the row sees
  // The state of each row, written whole: maximum, sum of exponentials, weighted values.
  float* maximum = nullptr;  // [rows], -infinity where the row sees nothing here
  float* sum = nullptr;      // [rows]
  float* values = nullptr;   // [rows][v_dim]
  float* scratch = nullptr;  // AttendScratch(k_dim, v_dim) floats
};
int64_t AttendScratch(int32_t k_dim, int32_t v_dim);

// How many columns one Hadamard matrix (of 1 and -1, unnormalised) mixes: the largest power of two
// that divides `dim`. Two rows that were spread have this many times the product that they had.
constexpr int32_t SpreadWidth(int32_t dim) { return dim & -dim; }

// Merges a super-tile's state into a row's running state; an empty one changes nothing.
struct MergeArgs {
  int32_t v_dim = 0;
  float maximum = 0;
  float sum = 0;
  const float* values = nullptr;
  float* into_maximum = nullptr;
  float* into_sum = nullptr;
  float* into_values = nullptr;
};

// The nonlinearity between the two products of a feed-forward layer.
enum class GateOp : uint8_t {
  kSilu,     // gate / (1 + exp(-gate)) * up
  kGelu,     // gate / (1 + exp(-2 sqrt(2 / pi) (gate + 0.044715 gate^3))) * up
  kClamped,  // g / (1 + exp(-alpha g)) * (u + 1); g: gate up to limit, u: up within +-limit
};
struct GateArgs {
  GateOp op = GateOp::kSilu;
  float alpha = 1;
  float limit = 0;
};

// How a row's scores, [experts], become the experts that it takes and their weights. Of equal
// scores the lower expert counts as better.
struct RouteArgs {
  int32_t experts = 0;
  int32_t used = 0;
  int32_t groups = 1;
  int32_t groups_used = 1;
  bool sigmoid = false;  // else softmax
  bool normalize = true;
  float scale = 1;
  const float* bias = nullptr;    // added to the scores for the choice alone; or null
  const float* scores = nullptr;  // [experts]
  float* scratch = nullptr;       // [3 * experts]
  float* out = nullptr;           // [used](expert, weight), the best first
};

struct CpuKernels {
  const char* name;
  bool bf16_pairs;  // has matmul for PanelFormat::kBf16Pairs
  void (*matmul)(const MatmulArgs& args);
  // Rounds row `row` of x, [cols], into `out`.
  void (*quantize)(const float* x, int64_t row, const QuantizedRows& out);
  void (*round_bf16)(const float* x, int64_t cols, uint16_t* out);
  // out = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t cols, float* out);
  void (*gated)(const GateArgs& args, const float* gate, const float* up, int64_t cols, float* out);
  // x = cap * tanh(x / cap)
  void (*softcap)(float cap, int64_t cols, float* x);
  void (*route)(const RouteArgs& args);
  // out = factor * H x for each SpreadWidth(dim) columns of x, [dim]: what stands out in a column
  // is spread over all of them. `dim` is a multiple of 16; `out` may be x.
  void (*spread)(const float* x, int32_t dim, float factor, float* out);
  // Rounds a row of K or V, [dim], to `type`: element d becomes out[d * stride], counted in
  // elements. Returns the row's scale, 1 for a type that has none; that of a row with what is not
  // finite is NaN. `dim` is a multiple of 16.
  float (*round_kv)(KvType type, const float* x, int32_t dim, int64_t stride, uint8_t* out);
  void (*attend)(const AttendArgs& args);
  void (*merge)(const MergeArgs& args);
};

// The single families; null where this build has none.
const CpuKernels* ScalarKernels();
const CpuKernels* Avx2Kernels();
const CpuKernels* Avx512Kernels();
const CpuKernels* Avx512Bf16Kernels();

}  // namespace kvasir::ops
