#include "loadgen/chat_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "loadgen/testing/tiny_server.h"

namespace kvasir::loadgen {
namespace {

using nlohmann::json;
using testing::Answer;
using testing::EventStream;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TinyServer;

// Says how many messages it got; refuses one that says "refuse".
std::vector<std::string> Reply(const TinyServer::Request& request) {
  if (request.Path() == "/v1/models") return {Answer("200 OK", testing::kModels)};
  const json messages = json::parse(request.body)["messages"];
  if (messages.back()["content"] == "refuse") {
    return {Answer("400 Bad Request", R"({"error": {"message": "no"}})")};
  }
  const auto delta = [](const std::string& text) {
    return json{{"choices", {{{"delta", {{"content", text}}}}}}}.dump();
  };
  return EventStream({delta("g\x1b\x07ot "), delta(std::to_string(messages.size()))});
}

TEST(ChatTest, KeepsTheConversationUntilReset) {
  TinyServer server(Reply);
  std::istringstream in("a\n\nb\nrefuse\nc\n/reset\nd\n/quit\nnever\n");
  std::ostringstream out;
  EXPECT_EQ(RunChat({.url = server.url(), .system_prompt = "s", .max_tokens = 9, .temperature = 0},
                    in, out),
            0);
  EXPECT_THAT(out.str(), HasSubstr("Chat with tiny."));
  EXPECT_THAT(out.str(),
              HasSubstr("> got 2\n> > got 4\n> \nerror: HTTP 400: no\n> got 6\n> > got 2\n"));
  EXPECT_THAT(out.str(), Not(HasSubstr("never")));
  const json last = json::parse(server.requests().back().body);
  EXPECT_EQ(last["messages"][0], (json{{"role", "system"}, {"content", "s"}}));
  EXPECT_EQ(last["messages"][1]["content"], "d");
  EXPECT_EQ(last["max_tokens"], 9);
  EXPECT_EQ(last["model"], "tiny");
}

TEST(ChatTest, EndsWithItsInput) {
  TinyServer server(Reply);
  std::istringstream in("a");
  std::ostringstream out;
  EXPECT_EQ(RunChat({.url = server.url(), .model = "mine"}, in, out), 0);
  EXPECT_EQ(json::parse(server.requests().back().body)["model"], "mine");
}

TEST(ChatTest, WithoutAServerItSaysSo) {
  std::string url;
  {
    url = TinyServer(Reply).url();
  }
  std::istringstream in("a\n");
  std::ostringstream out;
  EXPECT_EQ(RunChat({.url = url}, in, out), 1);
  EXPECT_THAT(out.str(), HasSubstr("can't reach"));
  EXPECT_EQ(RunChat({.url = "ftp://x"}, in, out), 1);
}

}  // namespace
}  // namespace kvasir::loadgen
