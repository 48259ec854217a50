// A compiler that is made on a thread of its own, so that a server can start before it is there.
#pragma once

#include <functional>
#include <future>
#include <memory>

#include "grammar/compiler.h"

namespace kvasir::grammar {

// Thread-safe. Compile waits until the compiler is made; where that failed, every Compile does.
class DeferredCompiler final : public Compiler {
 public:
  using Maker = std::function<StatusOr<std::unique_ptr<Compiler>>()>;

  // What `make` refers to outlives the object, whose destructor waits for it.
  explicit DeferredCompiler(Maker make);

  StatusOr<std::shared_ptr<const Grammar>> Compile(const Constraint& constraint) override;

 private:
  std::shared_future<StatusOr<std::unique_ptr<Compiler>>> made_;
};

}  // namespace kvasir::grammar
