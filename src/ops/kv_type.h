// Storage types of K and V in the cache. Light on includes, because the kernels' own translation
// units are compiled for other instruction sets.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kvasir::ops {

// Int8 and FP8 rows bear one scale each: a token's K of a head and its V of a head. A row is
// rounded by what it holds alone, so that its bytes never change when others come.
enum class KvType : uint8_t {
  kF32,
  kBf16,
  kInt8,  // in [-127, 127], symmetric
  kFp8,   // E4M3 (base/float8.h)
};

struct KvTypeInfo {
  const char* name;
  int32_t element_bytes;
  int32_t scale_bytes;  // of a row; 0: it has none
};

// Never fails: covers every enumerator.
constexpr KvTypeInfo Info(KvType type) {
  switch (type) {
    case KvType::kF32:
      return {"f32", 4, 0};
    case KvType::kBf16:
      return {"bf16", 2, 0};
    case KvType::kInt8:
      return {"int8", 1, 4};
    case KvType::kFp8:
      return {"fp8", 1, 4};
  }
  return {"?", 1, 0};
}

constexpr bool HasScales(KvType type) { return Info(type).scale_bytes > 0; }

// The type of that name; none: there is no such type.
constexpr std::optional<KvType> KvTypeOf(std::string_view name) {
  for (const KvType type : {KvType::kF32, KvType::kBf16, KvType::kInt8, KvType::kFp8}) {
    if (name == Info(type).name) return type;
  }
  return std::nullopt;
}

}  // namespace kvasir::ops
