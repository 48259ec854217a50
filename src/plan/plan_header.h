// The header of a plan file: everything of a CompiledModel but the bytes that its sections hold.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/status.h"
#include "plan/plan_file.h"

namespace kvasir::plan {

// A piece of the file.
struct Section {
  int64_t offset = 0;
  int64_t bytes = 0;
};

struct PlanHeader {
  CompiledModel model;  // its matrices, vectors, orders and embedding are described, not there
  std::vector<SourceFile> sources;
  std::vector<Section> matrices;
  std::vector<Section> vectors;
  std::vector<Section> orders;
  Section embedding;
  Section text;
  int64_t file_bytes = 0;
};

// `header.model` is not looked at: the model may be too large to be copied.
nlohmann::json WriteHeader(const CompiledModel& model, const PlanHeader& header);

// InvalidArgument names the field that is missing, of another type or out of its range. Sections
// and graph are not checked yet.
StatusOr<PlanHeader> ReadHeader(const nlohmann::json& root);

// The text files as one value, and back.
nlohmann::json WriteText(const model::TextFiles& text);
StatusOr<model::TextFiles> ReadText(const nlohmann::json& root);

}  // namespace kvasir::plan
