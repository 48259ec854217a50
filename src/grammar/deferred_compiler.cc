#include "grammar/deferred_compiler.h"

#include <utility>

#include "base/log.h"

namespace kvasir::grammar {

DeferredCompiler::DeferredCompiler(Maker make)
    : made_(std::async(std::launch::async, [make = std::move(make)] {
        StatusOr<std::unique_ptr<Compiler>> made = make();
        if (!made.ok()) spdlog::error("constraints: {}", std::string(made.status().message()));
        return made;
      })) {}

StatusOr<std::shared_ptr<const Grammar>> DeferredCompiler::Compile(const Constraint& constraint) {
  const auto& made = made_.get();
  if (!made.ok()) return made.status();
  return (*made)->Compile(constraint);
}

}  // namespace kvasir::grammar
