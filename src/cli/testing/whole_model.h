// What the tests of whole models share.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

#include "cli/cache_dir.h"
#include "model/checkpoint.h"

namespace kvasir::cli {

// Sanitized builds run the tiny models only: the real ones would take minutes there and show no
// path that the tiny ones do not.
#ifdef KVASIR_SANITIZED
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// Lengthens what would take minutes.
inline bool LongTests() { return std::getenv("KVASIR_LONG_TESTS") != nullptr; }

// Null, and a failure of the test, where it does not load.
inline std::shared_ptr<const model::Checkpoint> Load(const std::filesystem::path& path) {
  StatusOr<model::Checkpoint> checkpoint = model::LoadCheckpoint(path.string());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (!checkpoint.ok()) return nullptr;
  return std::make_shared<const model::Checkpoint>(*std::move(checkpoint));
}

// Skips or fails the running test where the default model cannot be tested; null then.
inline std::shared_ptr<const model::Checkpoint> LoadDefaultModel() {
  const auto skip = [] { GTEST_SKIP() << "real models run in the release build"; };
  const auto missing = [](bool required) {
    if (required) FAIL() << DefaultModelPath() << " is not there: scripts/fetch_default_model.sh";
    GTEST_SKIP() << DefaultModelPath() << " is not there: scripts/fetch_default_model.sh";
  };
  if (kSanitized) {
    skip();
    return nullptr;
  }
  if (!std::filesystem::exists(DefaultModelPath())) {
    missing(std::getenv("CI") != nullptr);
    return nullptr;
  }
  return Load(DefaultModelPath());
}

}  // namespace kvasir::cli
