#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace kvasir {

void CheckFailed(const char* file, int line, const char* what) {
  std::fprintf(stderr, "kvasir: broken invariant at %s:%d: %s\n", file, line, what);
  std::abort();
}

}  // namespace kvasir
