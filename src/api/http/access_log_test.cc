#include "api/http/access_log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace kvasir::api {
namespace {

using nlohmann::json;

constexpr std::chrono::system_clock::time_point kNow{std::chrono::milliseconds(1700000000042)};

TEST(AccessLogLineTest, SaysWhatIsKnown) {
  HttpRequest request{
      .id = "r", .trace = {.trace_id = "t"}, .path = "/v1/x", .query = "key=secret"};
  request.headers = {{"Authorization", "Bearer secret"}};
  request.body = "secret";
  const ExchangeRecord record{.method = "POST",
                              .status = 200,
                              .bytes_in = 10,
                              .bytes_out = 20,
                              .duration = std::chrono::microseconds(1500),
                              .peer = "127.0.0.1:1",
                              .prompt_tokens = 3,
                              .cached_tokens = 0,
                              .completion_tokens = 4,
                              .time_to_first_token = std::chrono::microseconds(250)};
  EXPECT_EQ(AccessLogLine(request, record, kNow),
            R"({"time":"2023-11-14T22:13:20.042Z","request_id":"r","trace_id":"t",)"
            R"("method":"POST","path":"/v1/x","status":200,"aborted":false,"bytes_in":10,)"
            R"("bytes_out":20,"duration_ms":1.5,"peer":"127.0.0.1:1","prompt_tokens":3,)"
            R"("cached_tokens":0,"completion_tokens":4,"ttft_ms":0.25})");
}

TEST(AccessLogLineTest, LeavesOutWhatIsNot) {
  const json line = json::parse(AccessLogLine({}, {.aborted = true}, kNow));
  EXPECT_EQ(line["status"], 0);
  EXPECT_EQ(line["aborted"], true);
  EXPECT_FALSE(line.contains("prompt_tokens"));
  EXPECT_FALSE(line.contains("ttft_ms"));
}

TEST(AccessLogLineTest, IsOneLineOfJsonWhateverThePathIs) {
  const HttpRequest request{.path = "/\n\"\xff\\" + std::string(100000, 'x')};
  const std::string line = AccessLogLine(request, {}, kNow);
  EXPECT_LT(line.size(), 2000u);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_FALSE(json::parse(line, nullptr, false).is_discarded());
}

}  // namespace
}  // namespace kvasir::api
