// A compiled model as one file, which is mapped and run where it lies.
//
//   magic "KVASIRPL", u32 version, u32 header bytes, header (JSON), then the sections, each
//   aligned to 4096: panels of each matrix, vectors, orders, rows of the embedding, text files
//   (JSON)
//
// All numbers are little endian. The header names every section by its offset and bytes, so that
// a tool can read it without this code.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "plan/plan.h"

namespace kvasir::plan {

inline constexpr uint32_t kPlanFileVersion = 3;

// A file that a plan was made from, to know when the plan is stale.
struct SourceFile {
  std::string path;
  int64_t bytes = 0;
  int64_t modified = 0;  // nanoseconds since the epoch

  friend bool operator==(const SourceFile&, const SourceFile&) = default;
};

// NotFound or PermissionDenied names the path.
StatusOr<SourceFile> DescribeFile(const std::string& path);

struct PlanFile {
  CompiledModel model;
  std::vector<SourceFile> sources;
};

// Writes beside `path` and then renames, so that no reader ever sees a part of it. `progress` is
// told of the bytes written so far and of those there will be. InvalidArgument for a vocabulary
// that is no UTF-8; Unavailable when the system does not write.
Status WritePlan(const CompiledModel& model, const std::vector<SourceFile>& sources,
                 const std::string& path, const std::function<void(int64_t, int64_t)>& progress);

// Maps a file. Whatever it holds, what is returned can be run: every offset, index and width is
// checked. FailedPrecondition for a file of another version, or made for arithmetic that this
// program does not have; InvalidArgument for a damaged one; both name the file.
StatusOr<PlanFile> ReadPlan(const std::string& path);

// The same of a file in memory, which outlives the result.
StatusOr<PlanFile> ParsePlan(absl::Span<const uint8_t> bytes);

}  // namespace kvasir::plan
