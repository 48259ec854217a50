#include "api/protocol/answer.h"

#include <fmt/format.h>

namespace kvasir::api {

std::string SseEvent(const Json& data) { return fmt::format("data: {}\n\n", Dump(data)); }

std::string SseEvent(std::string_view name, const Json& data) {
  return fmt::format("event: {}\ndata: {}\n\n", name, Dump(data));
}

Json TokenIdsJson(const std::vector<TokenId>& ids) {
  Json out = Json::array();
  for (const TokenId id : ids) out.push_back(id);
  return out;
}

Json TokenIdsJson(const std::vector<TokenOut>& tokens) {
  Json out = Json::array();
  for (const TokenOut& token : tokens) out.push_back(token.id);
  return out;
}

Json StopReasonJson(const ChoiceDelta& delta) {
  if (const auto* id = std::get_if<TokenId>(&delta.stop_reason)) return *id;
  if (const auto* text = std::get_if<std::string>(&delta.stop_reason)) return *text;
  return nullptr;
}

int64_t CodePoints(std::string_view utf8) {
  int64_t count = 0;
  for (const char c : utf8) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

}  // namespace kvasir::api
