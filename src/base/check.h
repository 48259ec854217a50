// A broken invariant ends the process with a line that names it. For programming errors only:
// nothing that a request, a file or a peer contains may reach a failing check.
#pragma once

namespace kvasir {

[[noreturn]] void CheckFailed(const char* file, int line, const char* what);

}  // namespace kvasir

#define KVASIR_CHECK(condition, what)                  \
  do {                                                 \
    if (!(condition)) [[unlikely]]                     \
      ::kvasir::CheckFailed(__FILE__, __LINE__, what); \
  } while (false)
