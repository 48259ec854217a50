#include "api/http/router.h"

#include <absl/strings/match.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "api/protocol/error.h"

namespace kvasir::api {
namespace {

constexpr char kExposedHeaders[] =
    "X-Request-Id, Retry-After, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-tokens";

std::string_view BearerToken(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size()) return {};
  const std::string_view scheme = authorization.substr(0, kScheme.size());
  if (!absl::EqualsIgnoreCase({scheme.data(), scheme.size()}, {kScheme.data(), kScheme.size()})) {
    return {};
  }
  return authorization.substr(kScheme.size());
}

// Anthropic's clients have a header of their own for it.
std::string_view KeyOf(const HttpRequest& request) {
  const std::string_view bearer = BearerToken(request.Header("Authorization"));
  return bearer.empty() ? request.Header("X-Api-Key") : bearer;
}

bool Matches(std::string_view pattern, std::string_view path) {
  if (!pattern.ends_with("/*")) return pattern == path;
  const std::string_view prefix = pattern.substr(0, pattern.size() - 1);
  return path.size() > prefix.size() && path.starts_with(prefix);
}

bool IsJson(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  while (!type.empty() && type.back() == ' ') type.pop_back();
  return type.empty() || type == "application/json" || type.ends_with("+json");
}

}  // namespace

Router::Router(RouterOptions options)
    : keys_(std::move(options.keys)), allowed_origins_(std::move(options.allowed_origins)) {}

void Router::Add(std::string method, std::string path, Access access, Handler handler) {
  routes_.push_back({std::move(method), std::move(path), access, std::move(handler)});
}

bool Router::Admit(Exchange& exchange) const {
  if (keys_.empty()) return true;
  const HttpRequest& request = exchange.request();
  const auto caller = keys_.Find(KeyOf(request));
  if (caller == nullptr) {
    exchange.Respond(ErrorResponse(
        WithCode(absl::UnauthenticatedError("missing or wrong API key"), "invalid_api_key")));
    return false;
  }
  exchange.SetCaller(caller, nullptr);
  if (caller->budget == nullptr || request.method != "POST") return true;
  const auto visit = Budget::Admit(caller->budget, request.arrival);
  if (!visit.ok()) {
    exchange.Respond(ErrorResponse(visit.status()));
    return false;
  }
  exchange.SetCaller(caller, *visit);
  return true;
}

bool Router::HandleCors(Exchange& exchange) const {
  const HttpRequest& request = exchange.request();
  const std::string_view origin = request.Header("Origin");
  if (origin.empty() || allowed_origins_.empty()) return false;
  const auto has = [&](std::string_view value) {
    return std::find(allowed_origins_.begin(), allowed_origins_.end(), value) !=
           allowed_origins_.end();
  };
  const bool any = has("*");
  if (!any) exchange.AddHeader("Vary", "Origin");
  if (!any && !has(origin)) return false;
  exchange.AddHeader("Access-Control-Allow-Origin", any ? "*" : std::string(origin));
  exchange.AddHeader("Access-Control-Expose-Headers", kExposedHeaders);
  if (request.method != "OPTIONS" || request.Header("Access-Control-Request-Method").empty()) {
    return false;
  }
  exchange.AddHeader("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  exchange.AddHeader("Access-Control-Allow-Headers",
                     "Authorization, Content-Type, X-Request-Id, traceparent, tracestate");
  exchange.AddHeader("Access-Control-Max-Age", "600");
  exchange.Respond({.status = 204});
  return true;
}

void Router::Handle(const std::shared_ptr<Exchange>& exchange) const {
  if (HandleCors(*exchange)) return;
  const HttpRequest& request = exchange->request();
  std::string allowed;
  for (const Route& route : routes_) {
    if (!Matches(route.path, request.path)) continue;
    if (route.method != request.method) {
      allowed += (allowed.empty() ? "" : ", ") + route.method;
      continue;
    }
    if (route.access == Access::kKey && !Admit(*exchange)) return;
    if (route.method == "POST" && !IsJson(request.Header("Content-Type"))) {
      return exchange->Respond(ErrorResponse(415, "the body must be application/json"));
    }
    return route.handler(exchange);
  }
  if (allowed.empty()) {
    return exchange->Respond(ErrorResponse(
        absl::NotFoundError(fmt::format("no such path: {}", request.path.substr(0, 200)))));
  }
  HttpResponse response = ErrorResponse(405, fmt::format("use {} for this path", allowed));
  response.headers.emplace_back("Allow", allowed);
  exchange->Respond(std::move(response));
}

}  // namespace kvasir::api
