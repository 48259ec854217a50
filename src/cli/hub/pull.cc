#include "cli/hub/pull.h"

#include "cli/hub/client.h"
#include "cli/progress_bar.h"

namespace kvasir::cli {

StatusOr<std::filesystem::path> PullModel(std::string_view reference) {
  KVASIR_ASSIGN_OR_RETURN(const HubReference parsed, ParseHubReference(reference));
  ProgressBar bar;
  return HubClient(HubOptionsFromEnvironment())
      .Pull(parsed,
            [&](const HubFile& file, int64_t done) { bar.Show(file.path, done, file.size); });
}

}  // namespace kvasir::cli
