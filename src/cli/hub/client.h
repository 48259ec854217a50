// Fetches models from a hub into a local cache: resumable, checked, atomic.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/hub/http.h"
#include "cli/hub/reference.h"

namespace kvasir::cli {

struct HubOptions {
  std::string endpoint = "https://huggingface.co";
  std::string token;            // may be empty; never logged
  std::filesystem::path cache;  // repositories lie in CACHE/hub/OWNER/REPO
  int attempts = 5;             // of a file whose transfer breaks off
};

// HF_ENDPOINT, HF_TOKEN and the cache folder of this user.
HubOptions HubOptionsFromEnvironment();

// Not thread-safe; two processes that fetch the same file at once disturb each other's .part file
// but never publish a wrong one.
class HubClient {
 public:
  // Bytes of `file` that are here, of its size.
  using Progress = std::function<void(const HubFile& file, int64_t done)>;

  explicit HubClient(HubOptions options);

  // Fetches what the reference names and returns the path to serve: a GGUF file or a folder. Files
  // that are in the cache already are not fetched again.
  StatusOr<std::filesystem::path> Pull(const HubReference& reference, const Progress& progress);

  StatusOr<std::vector<HubFile>> List(const std::string& repository);

 private:
  Status Fetch(const HubReference& reference, const HubFile& file,
               const std::filesystem::path& target, const Progress& progress);
  // One try: appends to the .part file. Ok with *complete false: broke off, try again.
  Status Transfer(const std::string& url, const HubFile& file, const std::filesystem::path& part,
                  const Progress& progress, bool* complete);

  const HubOptions options_;
  const HubHttp http_;
};

}  // namespace kvasir::cli
