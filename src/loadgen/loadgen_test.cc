#include "loadgen/loadgen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <sstream>

#include "loadgen/testing/tiny_server.h"

namespace kvasir::loadgen {
namespace {

using nlohmann::json;
using testing::Answer;
using testing::EventStream;
using ::testing::HasSubstr;
using testing::TinyServer;

// Answers `max_tokens` tokens, the ids of which count up, and counts the prompt's.
std::vector<std::string> Generate(const TinyServer::Request& request) {
  if (request.Path() == "/v1/models") return {Answer("200 OK", testing::kModels)};
  const json body = json::parse(request.body);
  std::vector<std::string> events;
  const int count = body["max_tokens"];
  for (int i = 0; i < count; ++i) {
    json choice = {{"text", "w"}, {"delta", {{"content", "w"}}}};
    if (body.value("return_token_ids", false)) choice["token_ids"] = {i};
    events.push_back(json{{"choices", {choice}}}.dump());
  }
  const int64_t prompt_tokens =
      body.contains("prompt") && body["prompt"].is_array() ? body["prompt"].size() : 11;
  events.push_back(json{{"choices", json::array()},
                        {"usage",
                         {{"prompt_tokens", prompt_tokens},
                          {"completion_tokens", count},
                          {"prompt_tokens_details", {{"cached_tokens", 2}}}}}}
                       .dump());
  return EventStream(events);
}

std::vector<json> Bodies(TinyServer& server) {
  std::vector<json> bodies;
  for (const TinyServer::Request& request : server.requests()) {
    if (!request.body.empty()) bodies.push_back(json::parse(request.body));
  }
  return bodies;
}

TEST(RunTest, AClosedLoopSendsEveryConversation) {
  TinyServer server(Generate);
  const auto report = loadgen::Run({.url = server.url(),
                                    .api_key = "secret",
                                    .conversations = 12,
                                    .input_length = 20,
                                    .output_length = 5,
                                    .concurrency = 3,
                                    .warmup_conversations = 2,
                                    .extra_body = {{"cache_prompt", false}}});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->model, "tiny");
  EXPECT_EQ(report->succeeded, 12);
  EXPECT_EQ(report->failed, 0);
  EXPECT_EQ(report->input_tokens, 12 * 20);
  EXPECT_EQ(report->cached_tokens, 12 * 2);
  EXPECT_EQ(report->output_tokens, 12 * 5);
  EXPECT_EQ(report->ttft.count, 12u);
  EXPECT_EQ(report->itl.count, 12u * 4);
  EXPECT_GT(report->duration_s, 0);

  std::set<json> prompts;
  for (const json& body : Bodies(server)) {
    EXPECT_EQ(body["model"], "tiny");
    EXPECT_EQ(body["max_tokens"], 5);
    EXPECT_EQ(body["stream"], true);
    EXPECT_EQ(body["ignore_eos"], true);
    EXPECT_EQ(body["cache_prompt"], false);
    prompts.insert(body["prompt"]);
  }
  EXPECT_EQ(prompts.size(), 14u);
  EXPECT_THAT(server.requests().back().head, HasSubstr("Bearer secret"));
  EXPECT_EQ(server.requests().back().Path(), "/v1/completions");
  EXPECT_LE(server.connections(), 3u);
}

TEST(RunTest, ATurnRepeatsAllThatWasSaid) {
  TinyServer server(Generate);
  const auto report = loadgen::Run({.url = server.url(),
                                    .conversations = 1,
                                    .turns = 3,
                                    .input_length = 4,
                                    .output_length = 2,
                                    .shared_prefix_length = 6,
                                    .concurrency = 1});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->succeeded, 3);
  const std::vector<json> bodies = Bodies(server);
  ASSERT_EQ(bodies.size(), 3u);
  std::vector<int> before;
  for (const json& body : bodies) {
    const auto prompt = body["prompt"].get<std::vector<int>>();
    ASSERT_EQ(prompt.size(), before.empty() ? 10u : before.size() + 4);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), prompt.begin()));
    before = prompt;
    before.insert(before.end(), {0, 1});
  }
}

TEST(RunTest, ChatsAndTextsCarryTheirHistory) {
  for (const PromptStyle style : {PromptStyle::kChat, PromptStyle::kText}) {
    TinyServer server(Generate);
    const auto report = loadgen::Run({.url = server.url(),
                                      .style = style,
                                      .conversations = 1,
                                      .turns = 2,
                                      .input_length = 2,
                                      .output_length = 3,
                                      .shared_prefix_length = 2});
    ASSERT_TRUE(report.ok()) << report.status();
    const std::vector<json> bodies = Bodies(server);
    ASSERT_EQ(bodies.size(), 2u);
    if (style == PromptStyle::kText) {
      EXPECT_THAT(bodies[1]["prompt"].get<std::string>(),
                  ::testing::StartsWith(bodies[0]["prompt"].get<std::string>() + "www "));
      continue;
    }
    EXPECT_EQ(server.requests().back().Path(), "/v1/chat/completions");
    ASSERT_EQ(bodies[1]["messages"].size(), 4u);
    EXPECT_EQ(bodies[1]["messages"][0]["role"], "system");
    EXPECT_EQ(bodies[1]["messages"][1], bodies[0]["messages"][1]);
    EXPECT_EQ(bodies[1]["messages"][2], (json{{"role", "assistant"}, {"content", "www"}}));
  }
}

TEST(RunTest, ArrivalsDoNotWaitForAnswers) {
  TinyServer server(Generate);
  for (const int concurrency : {0, 1}) {
    const auto report = loadgen::Run({.url = server.url(),
                                      .conversations = 20,
                                      .output_length = 1,
                                      .concurrency = concurrency,
                                      .rate = 100000});
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->succeeded, 20);
  }
}

TEST(RunTest, FailuresAreCounted) {
  std::atomic<int> count = 0;
  TinyServer server([&count](const TinyServer::Request& request) -> std::vector<std::string> {
    if (request.Path() == "/v1/models") return {Answer("404 Not Found", "{}")};
    switch (count++) {
      case 0:
        return {Answer("429 Too Many Requests", R"({"error": {"message": "full"}})")};
      case 1:  // breaks off in the middle
        return {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1000\r\n\r\ndata: "};
      default:
        return Generate(request);
    }
  });
  const auto report = loadgen::Run({.url = server.url(), .conversations = 5, .concurrency = 1});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->succeeded, 3);
  EXPECT_EQ(report->failed, 2);
  EXPECT_EQ(report->errors.at("HTTP 429: full"), 1);
  EXPECT_EQ(report->model, "");
}

// The server ends each connection after its answer without having said so.
TEST(RunTest, AStaleConnectionIsReplaced) {
  std::atomic<int> count = 0;
  TinyServer server([&count](const TinyServer::Request& request) -> std::vector<std::string> {
    if (count++ % 2 == 1) return {};
    std::vector<std::string> answer = Generate(request);
    return answer;
  });
  const auto report = loadgen::Run({.url = server.url(), .conversations = 4, .concurrency = 1});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->succeeded, 4) << report->errors.begin()->first;
}

TEST(RunTest, IdsThatDoNotComeEndTheConversation) {
  TinyServer server([](const TinyServer::Request& request) -> std::vector<std::string> {
    if (request.Path() == "/v1/models") return {Answer("200 OK", testing::kModels)};
    return EventStream({R"({"choices": [{"text": "w"}]})"});
  });
  const auto report = loadgen::Run({.url = server.url(), .conversations = 1, .turns = 2});
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->failed, 1);
  EXPECT_THAT(report->errors.begin()->first, HasSubstr("no token ids"));
}

TEST(RunTest, WithoutAServerThereIsNoReport) {
  std::string url;
  {
    url = TinyServer(Generate).url();
  }
  const auto report = loadgen::Run({.url = url});
  EXPECT_EQ(report.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("can't reach " + url));
}

TEST(RunTest, BadOptionsAreNamed) {
  const auto expect = [](const Options& options, const char* name) {
    const auto report = loadgen::Run(options);
    EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(report.status().message()), HasSubstr(name));
  };
  expect({.conversations = 0}, "conversations");
  expect({.input_length = -1}, "input_length");
  expect({.length_spread = 2}, "length_spread");
  expect({.concurrency = 0}, "concurrency");
  expect({.rate = -1}, "rate");
  expect({.extra_body = 3}, "extra_body");
  expect({.first_token_id = 10, .last_token_id = 9}, "last_token_id");
  expect({.url = "nonsense:x"}, "nonsense");
}

TEST(RunTest, DrawsAndRemovesTheBar) {
  TinyServer server(Generate);
  std::ostringstream terminal;
  const auto report = loadgen::Run(
      {.url = server.url(), .conversations = 2, .output_length = 1, .progress = &terminal});
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(terminal.str(), HasSubstr("1/2"));
  EXPECT_TRUE(terminal.str().ends_with("\r\x1b[K"));
}

}  // namespace
}  // namespace kvasir::loadgen
