#include "cli/hub/reference.h"

#include <absl/strings/ascii.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>

namespace kvasir::cli {
namespace {

constexpr std::array<std::string_view, 10> kSideFiles = {
    "config.json",           "generation_config.json",
    "tokenizer.json",        "tokenizer.model",
    "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",     "chat_template.jinja",
    "chat_template.json",    "model.safetensors.index.json"};

bool IsName(std::string_view name) {
  if (name.empty() || name.size() > 96 || name.front() == '.' || name.front() == '-') return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

bool IsGguf(const HubFile& file) { return file.path.ends_with(".gguf"); }

// "m-00002-of-00003.gguf" -> "m", where split; else the path itself.
std::string SplitBase(const std::string& path) {
  constexpr std::string_view kTail = "-00000-of-00000.gguf";
  if (path.size() <= kTail.size()) return path;
  const std::string_view tail = std::string_view(path).substr(path.size() - kTail.size());
  for (size_t i = 0; i < kTail.size(); ++i) {
    const bool same = kTail[i] == '0' ? std::isdigit(static_cast<unsigned char>(tail[i])) != 0
                                      : tail[i] == kTail[i];
    if (!same) return path;
  }
  return path.substr(0, path.size() - kTail.size());
}

using Models = std::map<std::string, std::vector<HubFile>>;  // by split base; parts in order

Models GgufModels(const std::vector<HubFile>& listing) {
  Models models;
  for (const HubFile& file : listing) {
    if (IsGguf(file)) models[SplitBase(file.path)].push_back(file);
  }
  for (auto& [base, parts] : models) {
    std::sort(parts.begin(), parts.end(),
              [](const HubFile& a, const HubFile& b) { return a.path < b.path; });
  }
  return models;
}

HubSelection Whole(const std::vector<HubFile>& parts) {
  return {.files = parts, .entry = parts.front().path};
}

Status Ambiguous(const Models& models, const std::string& repository) {
  std::string names;
  for (const auto& [base, parts] : models) names += "\n  " + parts.front().path;
  return absl::InvalidArgumentError(
      fmt::format("{} holds several models; name one as {}:FILE{}", repository, repository, names));
}

StatusOr<HubSelection> SelectNamed(const std::vector<HubFile>& listing,
                                   const HubReference& reference) {
  const Models models = GgufModels(listing);
  for (const auto& [base, parts] : models) {
    for (const HubFile& part : parts) {
      if (part.path == reference.file) return Whole(parts);
    }
  }
  for (const HubFile& file : listing) {
    if (file.path == reference.file) return HubSelection{{file}, file.path};
  }
  Models matching;
  for (const auto& [base, parts] : models) {
    if (absl::AsciiStrToLower(parts.front().path).find(absl::AsciiStrToLower(reference.file)) !=
        std::string::npos) {
      matching[base] = parts;
    }
  }
  if (matching.size() == 1) return Whole(matching.begin()->second);
  if (matching.size() > 1) return Ambiguous(matching, reference.repository);
  return absl::NotFoundError(
      fmt::format("{} has no file '{}'", reference.repository, reference.file));
}

StatusOr<HubSelection> SelectFolder(const std::vector<HubFile>& listing,
                                    const std::string& repository) {
  HubSelection selection;
  bool has_weights = false;
  bool has_config = false;
  for (const HubFile& file : listing) {
    const bool weights =
        file.path.ends_with(".safetensors") && file.path.find('/') == std::string::npos;
    const bool side =
        std::find(kSideFiles.begin(), kSideFiles.end(), file.path) != kSideFiles.end();
    has_weights |= weights;
    has_config |= file.path == "config.json";
    if (weights || side) selection.files.push_back(file);
  }
  if (!has_weights || !has_config) {
    return absl::NotFoundError(
        fmt::format("{} holds neither a GGUF file nor config.json with *.safetensors", repository));
  }
  return selection;
}

}  // namespace

StatusOr<HubReference> ParseHubReference(std::string_view text) {
  HubReference reference;
  if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
    reference.file = text.substr(colon + 1);
    text = text.substr(0, colon);
    if (!IsSafePath(reference.file)) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is not a file name in a repository", reference.file));
    }
  }
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos || !IsName(text.substr(0, slash)) ||
      !IsName(text.substr(slash + 1))) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not a model on a hub: expected OWNER/REPO or OWNER/REPO:FILE", text));
  }
  reference.repository = text;
  return reference;
}

bool IsSafePath(std::string_view path) {
  if (path.empty() || path.size() > 512) return false;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view segment = path.substr(begin, end - begin);
    if (segment.empty() || segment == "." || segment == "..") return false;
    begin = end + 1;
  }
  return std::none_of(path.begin(), path.end(), [](unsigned char c) {
    return c < 0x20 || c == 0x7f || c == '\\' || c == ':';
  });
}

StatusOr<HubSelection> SelectFiles(const std::vector<HubFile>& listing,
                                   const HubReference& reference) {
  StatusOr<HubSelection> selection = absl::UnknownError("");
  const Models models = GgufModels(listing);
  if (!reference.file.empty()) {
    selection = SelectNamed(listing, reference);
  } else if (models.size() > 1) {
    selection = Ambiguous(models, reference.repository);
  } else if (models.size() == 1) {
    selection = Whole(models.begin()->second);
  } else {
    selection = SelectFolder(listing, reference.repository);
  }
  if (!selection.ok()) return selection;
  for (const HubFile& file : selection->files) {
    if (IsSafePath(file.path) && file.size >= 0) continue;
    return absl::InvalidArgumentError(
        fmt::format("{} lists a file that is refused: '{}'", reference.repository, file.path));
  }
  return selection;
}

}  // namespace kvasir::cli
