#include "ops/stored_blocks.h"

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/float16.h"
#include "base/float8.h"
#include "ops/codebooks.h"

namespace kvasir::ops {
namespace {

uint16_t Load16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

uint32_t Load32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

void UnpackNibbles(const uint8_t* nibbles, uint8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = nibbles[i] & 15;
    q[i + 16] = nibbles[i] >> 4;
  }
}

void AddFifthBits(uint32_t bits, uint8_t* q) {
  for (int i = 0; i < 32; ++i) q[i] |= ((bits >> i) & 1) << 4;
}

// The 6-bit scales and minimums of Q4_K and Q5_K, packed into 12 bytes.
void UnpackKScales(const uint8_t* packed, RawBlock& out) {
  for (int j = 0; j < 4; ++j) {
    out.scales[j] = packed[j] & 63;
    out.minimums[j] = packed[j + 4] & 63;
    out.scales[j + 4] = (packed[j + 8] & 15) | ((packed[j] >> 6) << 4);
    out.minimums[j + 4] = (packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4);
  }
}

void UnpackQ45K(const uint8_t* block, bool five_bits, RawBlock& out) {
  out.scale = Load16(block);
  out.minimum = Load16(block + 2);
  UnpackKScales(block + 4, out);
  const uint8_t* high = block + 16;
  const uint8_t* nibbles = five_bits ? block + 48 : block + 16;
  for (int group = 0; group < 8; ++group) {
    for (int i = 0; i < 32; ++i) {
      const uint8_t byte = nibbles[group / 2 * 32 + i];
      uint8_t q = group % 2 == 0 ? byte & 15 : byte >> 4;
      if (five_bits) q |= ((high[i] >> group) & 1) << 4;
      out.q[group * 32 + i] = q;
    }
  }
}

void UnpackQ6K(const uint8_t* block, RawBlock& out) {
  std::memcpy(out.scales, block + 192, 16);
  out.scale = Load16(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + 64 * half;
    const uint8_t* high = block + 128 + 32 * half;
    uint8_t* q = out.q + 128 * half;
    for (int i = 0; i < 32; ++i) {
      q[i] = (low[i] & 15) | ((high[i] & 3) << 4);
      q[i + 32] = (low[i + 32] & 15) | (((high[i] >> 2) & 3) << 4);
      q[i + 64] = (low[i] >> 4) | (((high[i] >> 4) & 3) << 4);
      q[i + 96] = (low[i + 32] >> 4) | ((high[i] >> 6) << 4);
    }
  }
}

void DequantizeBlock(DType dtype, const uint8_t* block, float* out) {
  RawBlock raw;
  UnpackBlock(dtype, block, raw);
  const float d = ToFloat(Fp16{raw.scale});
  const float m = ToFloat(Fp16{raw.minimum});
  const int n = Info(dtype).block_elements;
  for (int i = 0; i < n; ++i) {
    const float q = raw.q[i];
    switch (dtype) {
      case DType::kQ4_0:
        out[i] = d * (q - 8.0f);
        break;
      case DType::kQ5_0:
        out[i] = d * (q - 16.0f);
        break;
      case DType::kQ8_0:
        out[i] = d * static_cast<int8_t>(raw.q[i]);
        break;
      case DType::kQ4_1:
      case DType::kQ5_1:
        out[i] = d * q + m;
        break;
      case DType::kQ6_K:
        out[i] = d * static_cast<int8_t>(raw.scales[i / 16]) * (q - 32.0f);
        break;
      case DType::kIq4Nl:
        out[i] = d * kIq4NlValues[raw.q[i]];
        break;
      case DType::kMxfp4:  // the table holds twice the values
        out[i] = std::ldexp(static_cast<float>(kMxfp4Values[raw.q[i]]), raw.scales[0] - 128);
        break;
      default:
        out[i] = d * raw.scales[i / 32] * q - m * raw.minimums[i / 32];
        break;
    }
  }
}

}  // namespace

void UnpackBlock(DType dtype, const uint8_t* block, RawBlock& out) {
  switch (dtype) {
    case DType::kQ4_0:
      out.scale = Load16(block);
      UnpackNibbles(block + 2, out.q);
      return;
    case DType::kQ4_1:
      out.scale = Load16(block);
      out.minimum = Load16(block + 2);
      UnpackNibbles(block + 4, out.q);
      return;
    case DType::kQ5_0:
      out.scale = Load16(block);
      UnpackNibbles(block + 6, out.q);
      AddFifthBits(Load32(block + 2), out.q);
      return;
    case DType::kQ5_1:
      out.scale = Load16(block);
      out.minimum = Load16(block + 2);
      UnpackNibbles(block + 8, out.q);
      AddFifthBits(Load32(block + 4), out.q);
      return;
    case DType::kQ8_0:
      out.scale = Load16(block);
      std::memcpy(out.q, block + 2, 32);
      return;
    case DType::kQ4_K:
      return UnpackQ45K(block, false, out);
    case DType::kQ5_K:
      return UnpackQ45K(block, true, out);
    case DType::kQ6_K:
      return UnpackQ6K(block, out);
    case DType::kIq4Nl:
      out.scale = Load16(block);
      UnpackNibbles(block + 2, out.q);
      return;
    case DType::kMxfp4:
      out.scales[0] = block[0];
      UnpackNibbles(block + 1, out.q);
      return;
    default:
      KVASIR_CHECK(false, "the type has no blocks");
  }
}

void DequantizeRow(DType dtype, const uint8_t* row, int64_t cols, float* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, row, cols * 4);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < cols; ++i) out[i] = ToFloat(Fp16{Load16(row + 2 * i)});
      return;
    case DType::kBf16:
      for (int64_t i = 0; i < cols; ++i) out[i] = ToFloat(Bf16{Load16(row + 2 * i)});
      return;
    case DType::kF8E4M3:
      for (int64_t i = 0; i < cols; ++i) out[i] = ToFloat(Fp8{row[i]});
      return;
    default:
      break;
  }
  const DTypeInfo info = Info(dtype);
  for (int64_t block = 0; block < cols / info.block_elements; ++block) {
    DequantizeBlock(dtype, row + block * info.block_bytes, out + block * info.block_elements);
  }
}

}  // namespace kvasir::ops
