#include "cli/hub/client.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>
#include <utility>

#include "base/log.h"
#include "cli/cache_dir.h"

namespace kvasir::cli {
namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxListingBytes = 64 << 20;
constexpr int kMaxPages = 100;
constexpr std::chrono::milliseconds kRetryPause(200);  // times the number of the attempt

Status StatusError(long status, const std::string& what) {
  if (status == 401 || status == 403) {
    return absl::PermissionDeniedError(fmt::format(
        "{}: the hub refuses access ({}); set HF_TOKEN to a token that may read it", what, status));
  }
  if (status == 404) return absl::NotFoundError(fmt::format("{}: not found on the hub", what));
  if (status == 429 || status / 100 == 5) {
    return absl::UnavailableError(fmt::format("{}: the hub answers {}", what, status));
  }
  return absl::InternalError(fmt::format("{}: the hub answers {}", what, status));
}

StatusOr<std::string> Sha256OfFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                   EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::vector<char> buffer(1 << 20);
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || in.gcount() > 0) {
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(in.gcount()));
  }
  if (in.bad()) return absl::InternalError(fmt::format("cannot read {}", path.string()));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(context.get(), digest, &size);
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

int64_t SizeOf(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  return error ? -1 : static_cast<int64_t>(size);
}

Status ParsePage(const std::string& text, std::vector<HubFile>* files) {
  const auto page = nlohmann::json::parse(text, nullptr, false);
  if (!page.is_array()) return absl::InternalError("the hub's list of files is not a JSON array");
  try {
    for (const auto& item : page) {
      if (item.at("type") != "file") continue;
      HubFile file{.path = item.at("path").get<std::string>(),
                   .size = item.at("size").get<int64_t>()};
      if (item.contains("lfs") && item["lfs"].is_object()) {
        file.sha256 = item["lfs"].at("oid").get<std::string>();
      }
      files->push_back(std::move(file));
    }
  } catch (const nlohmann::json::exception& e) {
    return absl::InternalError(fmt::format("the hub's list of files is malformed: {}", e.what()));
  }
  return absl::OkStatus();
}

// Size and digest of what was fetched; a wrong file is removed, so that the next try starts anew.
Status Verify(const fs::path& part, const HubFile& file) {
  std::string fault;
  if (SizeOf(part) != file.size) {
    fault = fmt::format("{} bytes instead of {}", SizeOf(part), file.size);
  } else if (!file.sha256.empty()) {
    KVASIR_ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(part));
    if (sha256 != file.sha256) fault = fmt::format("sha256 {} instead of {}", sha256, file.sha256);
  }
  if (fault.empty()) return absl::OkStatus();
  std::error_code ignored;
  fs::remove(part, ignored);
  return absl::DataLossError(fmt::format("{}: what came is wrong ({}); removed", file.path, fault));
}

}  // namespace

HubOptions HubOptionsFromEnvironment() {
  HubOptions options{.cache = CacheDir()};
  if (const char* endpoint = std::getenv("HF_ENDPOINT"); endpoint != nullptr && *endpoint != 0) {
    options.endpoint = endpoint;
  }
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  if (const char* token = std::getenv("HF_TOKEN"); token != nullptr) options.token = token;
  return options;
}

HubClient::HubClient(HubOptions options)
    : options_(std::move(options)), http_(options_.endpoint, options_.token) {}

StatusOr<std::vector<HubFile>> HubClient::List(const std::string& repository) {
  std::vector<HubFile> files;
  std::string url =
      fmt::format("{}/api/models/{}/tree/main?recursive=true", options_.endpoint, repository);
  for (int page = 0; page < kMaxPages && !url.empty(); ++page) {
    std::string text;
    KVASIR_ASSIGN_OR_RETURN(GetResult result, http_.Get(url, 0, [&](long, std::string_view piece) {
      text += piece;
      return text.size() <= kMaxListingBytes;
    }));
    if (result.status != 200) return StatusError(result.status, repository);
    if (!result.interrupted.empty()) {
      return absl::UnavailableError(
          fmt::format("{}: the list of files broke off: {}", repository, result.interrupted));
    }
    KVASIR_RETURN_IF_ERROR(ParsePage(text, &files));
    url = std::move(result.next_url);
  }
  return files;
}

StatusOr<fs::path> HubClient::Pull(const HubReference& reference, const Progress& progress) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<HubFile> listing, List(reference.repository));
  KVASIR_ASSIGN_OR_RETURN(const HubSelection selection, SelectFiles(listing, reference));
  const fs::path folder = options_.cache / "hub" / reference.repository;
  for (const HubFile& file : selection.files) {
    const fs::path target = folder / file.path;
    if (SizeOf(target) == file.size) continue;  // only checked files bear their own name
    KVASIR_RETURN_IF_ERROR(Fetch(reference, file, target, progress));
  }
  return selection.entry.empty() ? folder : folder / selection.entry;
}

Status HubClient::Fetch(const HubReference& reference, const HubFile& file, const fs::path& target,
                        const Progress& progress) {
  std::error_code error;
  fs::create_directories(target.parent_path(), error);
  if (error) {
    return absl::InternalError(
        fmt::format("cannot create {}: {}", target.parent_path().string(), error.message()));
  }
  const fs::path part = target.string() + ".part";
  const std::string url = fmt::format("{}/{}/resolve/main/{}", options_.endpoint,
                                      reference.repository, EncodePath(file.path));
  Status last;
  bool complete = SizeOf(part) == file.size;
  for (int attempt = 1; attempt <= options_.attempts && !complete; ++attempt) {
    last = Transfer(url, file, part, progress, &complete);
    if (!last.ok() && !absl::IsUnavailable(last)) return last;
    if (complete || attempt == options_.attempts) break;
    spdlog::debug("{}: {}", file.path, std::string(last.message()));
    std::this_thread::sleep_for(kRetryPause * attempt);
  }
  if (!complete) {
    return absl::UnavailableError(fmt::format("{}: {}; run the command again to go on from byte {}",
                                              file.path, std::string(last.message()),
                                              std::max<int64_t>(0, SizeOf(part))));
  }
  KVASIR_RETURN_IF_ERROR(Verify(part, file));
  fs::rename(part, target, error);
  if (!error) return absl::OkStatus();
  return absl::InternalError(fmt::format("cannot rename {}: {}", part.string(), error.message()));
}

Status HubClient::Transfer(const std::string& url, const HubFile& file, const fs::path& part,
                           const Progress& progress, bool* complete) {
  int64_t have = std::max<int64_t>(0, SizeOf(part));
  if (have > file.size) have = 0;  // of another version of the file
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(
      std::fopen(part.c_str(), have > 0 ? "r+b" : "wb"), std::fclose);
  if (out == nullptr || std::fseek(out.get(), have, SEEK_SET) != 0) {
    return absl::InternalError(fmt::format("cannot write {}", part.string()));
  }
  Status write_error;
  bool first = true;
  const auto sink = [&](long status, std::string_view piece) {
    if (std::exchange(first, false) && status == 200 && have > 0) {  // all of it comes again
      have = 0;
      std::rewind(out.get());
    }
    if (have + static_cast<int64_t>(piece.size()) > file.size) {
      write_error = absl::DataLossError(
          fmt::format("{}: more than the {} bytes it should have", file.path, file.size));
      return false;
    }
    if (std::fwrite(piece.data(), 1, piece.size(), out.get()) != piece.size()) {
      write_error = absl::ResourceExhaustedError(fmt::format(
          "cannot write {}: {}", part.string(), std::generic_category().message(errno)));
      return false;
    }
    have += static_cast<int64_t>(piece.size());
    progress(file, have);
    return true;
  };
  KVASIR_ASSIGN_OR_RETURN(const GetResult result, http_.Get(url, have, sink));
  KVASIR_RETURN_IF_ERROR(write_error);
  if (result.status / 100 != 2) return StatusError(result.status, file.path);
  if (std::fflush(out.get()) != 0) {
    return absl::ResourceExhaustedError(fmt::format("cannot write {}", part.string()));
  }
  *complete = have == file.size;
  if (*complete) return absl::OkStatus();
  return absl::UnavailableError("the transfer broke off");
}

}  // namespace kvasir::cli
