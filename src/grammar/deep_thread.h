// Threads for recursive code that a stranger's input drives deep.
#pragma once

#include <cstddef>
#include <functional>

#include "base/status.h"

namespace kvasir::grammar {

// Runs `work` on a thread of its own with `stack_bytes` of stack, most of which costs only address
// space. Nobody can join it: `work` says itself when it is done. ResourceExhausted when the system
// has no thread or address space left.
Status RunOnDeepThread(size_t stack_bytes, std::function<void()> work);

}  // namespace kvasir::grammar
