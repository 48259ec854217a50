// Names of models on a hub, and what of a repository is fetched. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace kvasir::cli {

// OWNER/REPO or OWNER/REPO:FILE. FILE is a path in the repository, or a part of one file's name
// that no other GGUF file has, such as Q4_K_M.
struct HubReference {
  std::string repository;  // "OWNER/REPO"
  std::string file;        // empty: the one model that the repository holds
};

struct HubFile {
  std::string path;    // as the hub lists it
  int64_t size = 0;    // bytes
  std::string sha256;  // lower-case hex; empty where the hub has none (small text files)
};

// What to fetch, and what of it to serve.
struct HubSelection {
  std::vector<HubFile> files;
  std::string entry;  // the path of the (first) GGUF file, or "" for the folder of all
};

StatusOr<HubReference> ParseHubReference(std::string_view text);

// A relative path of plain segments: no "..", no empty one, no control character or backslash.
bool IsSafePath(std::string_view path);

// A listing may say anything, so every file chosen has a safe path and a size. Split GGUF files
// come together. More than one model: InvalidArgument that lists them.
StatusOr<HubSelection> SelectFiles(const std::vector<HubFile>& listing,
                                   const HubReference& reference);

}  // namespace kvasir::cli
