#include "plan/plan.h"

namespace kvasir::plan {

int64_t ValueBytes(graph::ValueType type, int64_t rows, int64_t width) {
  switch (type) {
    case graph::ValueType::kFloat:
      return rows * width * 4;
    case graph::ValueType::kBf16:
      return rows * width * 2;
    case graph::ValueType::kQuantized:
      return ops::QuantizedRows::Bytes(rows, width);
  }
  return 0;
}

}  // namespace kvasir::plan
