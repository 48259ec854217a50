// Constraints to grammars, over llguidance (bridge/).
#pragma once

#include <absl/types/span.h>

#include <memory>

#include "base/clock.h"
#include "base/status.h"
#include "core/constraint.h"
#include "grammar/matcher.h"
#include "text/tokenizer.h"

namespace kvasir::grammar {

struct CompilerOptions {
  size_t max_text_bytes = 1 << 20;             // of a constraint
  Duration timeout = std::chrono::seconds(5);  // of one compilation
  size_t cached_grammars = 256;  // compiled ones that are kept, least recently used go first
};

// Thread-safe. Two threads that want the same constraint compile it once.
class Compiler {
 public:
  virtual ~Compiler() = default;

  // InvalidArgument, saying where, for a constraint that is malformed, asks for what is not
  // supported, allows no output, or takes more work or time to compile than it may.
  // ResourceExhausted when too many compile at once. A failure is not remembered.
  virtual StatusOr<std::shared_ptr<const Grammar>> Compile(const Constraint& constraint) = 0;
};

// `tokenizer` outlives the compiler and its grammars' matchers. `vocab_size` may exceed the
// tokenizer's: the ids behind it are never allowed. `eos_ids` are the model's end tokens, at least
// one; a grammar cannot name them.
StatusOr<std::unique_ptr<Compiler>> MakeCompiler(const text::Tokenizer& tokenizer,
                                                 int32_t vocab_size,
                                                 absl::Span<const TokenId> eos_ids,
                                                 const CompilerOptions& options);

}  // namespace kvasir::grammar
