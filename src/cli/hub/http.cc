#include "cli/hub/http.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <curl/curl.h>
#include <fmt/format.h>

#include <cctype>
#include <memory>
#include <utility>

namespace kvasir::cli {
namespace {

constexpr int kMaxRedirects = 5;
constexpr long kConnectTimeout = 30;  // seconds
constexpr long kStallTimeout = 60;    // seconds without a byte

struct Easy {
  CURL* curl = curl_easy_init();
  curl_slist* headers = nullptr;
  ~Easy() {
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
  }
};

struct Transfer {
  CURL* curl;
  const HubHttp::Sink* sink;
  std::string next_url;
  bool aborted = false;
};

// "scheme://host:port" of a URL, or "" when it has none.
std::string Origin(const std::string& url) {
  const std::unique_ptr<CURLU, void (*)(CURLU*)> parsed(curl_url(), curl_url_cleanup);
  if (curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) return "";
  std::string out;
  for (const CURLUPart part : {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT}) {
    char* text = nullptr;
    if (curl_url_get(parsed.get(), part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return "";
    out += std::string(text) + " ";
    curl_free(text);
  }
  return absl::AsciiStrToLower(out);
}

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  auto* transfer = static_cast<Transfer*>(user);
  long status = 0;
  curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
  if (status / 100 != 2) return size * count;  // the page of an error or a redirect
  if ((*transfer->sink)(status, {data, size * count})) return size * count;
  transfer->aborted = true;
  return 0;
}

// Link: <https://hub/api/...?cursor=x>; rel="next"
size_t OnHeader(char* data, size_t size, size_t count, void* user) {
  const std::string_view line(data, size * count);
  if (absl::StartsWithIgnoreCase({line.data(), line.size()}, "link:") &&
      line.find("rel=\"next\"") != std::string_view::npos) {
    const size_t begin = line.find('<');
    const size_t end = line.find('>');
    if (begin != std::string_view::npos && end != std::string_view::npos && begin < end) {
      static_cast<Transfer*>(user)->next_url = line.substr(begin + 1, end - begin - 1);
    }
  }
  return size * count;
}

}  // namespace

HubHttp::HubHttp(std::string endpoint, std::string token)
    : endpoint_(std::move(endpoint)), token_(std::move(token)) {
  static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)initialised;
}

StatusOr<GetResult> HubHttp::Hop(const std::string& url, int64_t offset, const Sink& sink,
                                 std::string* redirect) const {
  Easy easy;
  Transfer transfer{easy.curl, &sink};
  easy.headers = curl_slist_append(easy.headers, "User-Agent: kvasir");
  if (!token_.empty() && !Origin(url).empty() && Origin(url) == Origin(endpoint_)) {
    easy.headers =
        curl_slist_append(easy.headers, fmt::format("Authorization: Bearer {}", token_).c_str());
  }
  CURL* curl = easy.curl;
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, easy.headers);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, kConnectTimeout);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, kStallTimeout);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, OnHeader);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  const std::string range = fmt::format("{}-", offset);
  if (offset > 0) curl_easy_setopt(curl, CURLOPT_RANGE, range.c_str());

  const CURLcode code = curl_easy_perform(curl);
  GetResult result;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &result.status);
  if (code != CURLE_OK) {
    if (result.status == 0) return absl::UnavailableError(curl_easy_strerror(code));
    result.interrupted = transfer.aborted ? "aborted" : curl_easy_strerror(code);
  }
  const char* location = nullptr;
  curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &location);
  if (location != nullptr && result.status / 100 == 3) *redirect = location;
  result.next_url = std::move(transfer.next_url);
  return result;
}

StatusOr<GetResult> HubHttp::Get(std::string url, int64_t offset, const Sink& sink) const {
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    std::string redirect;
    KVASIR_ASSIGN_OR_RETURN(GetResult result, Hop(url, offset, sink, &redirect));
    if (redirect.empty()) return result;
    url = std::move(redirect);
  }
  return absl::UnavailableError("too many redirects");
}

std::string EncodePath(std::string_view path) {
  std::string out;
  for (const unsigned char c : path) {
    if (std::isalnum(c) || c == '/' || c == '-' || c == '_' || c == '.' || c == '~') {
      out += static_cast<char>(c);
    } else {
      out += fmt::format("%{:02X}", c);
    }
  }
  return out;
}

}  // namespace kvasir::cli
