#include "api/api_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "api/testing/server_fixture.h"

namespace kvasir::api {
namespace {

using nlohmann::json;
using testing::Call;
using ::testing::ElementsAre;
using testing::FakeEngine;
using ::testing::HasSubstr;
using testing::HttpConnection;
using testing::Reply;
using testing::Tokens;

class ApiServerTest : public testing::ServerFixture {
 protected:
  Reply Chat(std::string_view extra = "") {
    return Post("/v1/chat/completions",
                fmt::format(R"({{"messages":[{{"role":"user","content":"hi"}}]{}}})", extra));
  }
  Reply Complete(std::string_view extra = "") {
    return Post("/v1/completions", fmt::format(R"({{"prompt":"hi"{}}})", extra));
  }

  // Stops the server and reads its access log.
  std::vector<json> AccessLog() {
    server_.reset();
    std::ifstream in(options_.access_log);
    std::vector<json> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
    return lines;
  }
};

TEST_F(ApiServerTest, AnswersAChat) {
  engine_.cached_tokens = 16;
  Start();
  const Reply reply = Chat(R"(,"model":"toy")");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const json body = reply.json();
  EXPECT_THAT(body["id"].get<std::string>(), ::testing::StartsWith("chatcmpl-"));
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["model"], "toy");
  EXPECT_EQ(body["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(body["choices"][0]["message"]["content"], "hello");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(body["choices"][0]["logprobs"].is_null());
  const auto request = engine_.WaitForRequest(1);
  EXPECT_EQ(body["usage"]["prompt_tokens"], request->prompt_ids.size());
  EXPECT_EQ(body["usage"]["completion_tokens"], 6);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 16);
}

TEST_F(ApiServerTest, StreamsAChat) {
  Start();
  const Reply reply = Chat(R"(,"stream":true,"stream_options":{"include_usage":true})");
  ASSERT_EQ(reply.status, 200);
  EXPECT_THAT(reply.Header("Content-Type"), HasSubstr("text/event-stream"));
  const auto events = reply.Events();
  ASSERT_EQ(events.size(), 9u) << reply.body;  // role, five letters, finish, usage, [DONE]
  const json role = json::parse(events[0]);
  EXPECT_EQ(role["object"], "chat.completion.chunk");
  EXPECT_EQ(role["choices"][0]["delta"], (json{{"role", "assistant"}, {"content", ""}}));
  EXPECT_TRUE(role["usage"].is_null());
  std::string text;
  for (size_t i = 1; i < 7; ++i)
    text += json::parse(events[i])["choices"][0]["delta"].value("content", "");
  EXPECT_EQ(text, "hello");
  EXPECT_EQ(json::parse(events[6])["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json::parse(events[7])["choices"], json::array());
  EXPECT_EQ(json::parse(events[7])["usage"]["completion_tokens"], 6);
  EXPECT_EQ(events[8], "[DONE]");
}

TEST_F(ApiServerTest, StreamsACompletionWithoutUsageUnlessAsked) {
  Start();
  const auto events = Complete(R"(,"stream":true)").Events();
  ASSERT_EQ(events.size(), 7u);
  EXPECT_EQ(json::parse(events[0])["choices"][0]["text"], "h");
  EXPECT_FALSE(json::parse(events[0]).contains("usage"));
  EXPECT_EQ(json::parse(events[5])["choices"][0]["finish_reason"], "stop");
}

TEST_F(ApiServerTest, AnswersABatchOfPromptsWithSeveralChoicesEach) {
  Start();
  const Reply reply =
      Post("/v1/completions", R"({"prompt":[[65],"bc"],"n":2,"return_token_ids":true})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const json choices = reply.json()["choices"];
  ASSERT_EQ(choices.size(), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(choices[i]["index"], i);
    EXPECT_EQ(choices[i]["text"], "hello");
    EXPECT_EQ(choices[i]["prompt_token_ids"], i < 2 ? json({65}) : json({98, 99}));
    EXPECT_EQ(choices[i]["token_ids"], json({104, 101, 108, 108, 111, 256}));
  }
  EXPECT_EQ(reply.json()["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(reply.json()["usage"]["completion_tokens"], 24);
  EXPECT_NE(engine_.WaitForRequest(1)->id, engine_.WaitForRequest(2)->id);
}

TEST_F(ApiServerTest, GivesLogprobsInBothShapes) {
  Start();
  const json chat = Chat(R"(,"logprobs":true,"top_logprobs":2)").json();
  const json content = chat["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 6u);
  EXPECT_EQ(content[0]["token"], "h");
  EXPECT_EQ(content[0]["bytes"], json({104}));
  EXPECT_EQ(content[0]["logprob"], -0.5);
  EXPECT_EQ(content[0]["top_logprobs"][1]["token"], "x");

  const json completion = Complete(R"(,"logprobs":2)").json();
  const json logprobs = completion["choices"][0]["logprobs"];
  EXPECT_THAT(logprobs["tokens"].get<std::vector<std::string>>(),
              ElementsAre("h", "e", "l", "l", "o", "<|end|>"));
  EXPECT_EQ(logprobs["text_offset"], json({0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(logprobs["top_logprobs"][0], (json{{"h", -0.5}, {"x", -1.5}}));
}

TEST_F(ApiServerTest, DrawsASeedOnceForEachRequestThatHasNone) {
  Start();
  Complete();
  Complete();
  Complete(R"(,"seed":7)");
  EXPECT_NE(engine_.WaitForRequest(1)->sampling.seed, engine_.WaitForRequest(2)->sampling.seed);
  EXPECT_EQ(engine_.WaitForRequest(3)->sampling.seed, 7u);
}

TEST_F(ApiServerTest, CancelsTheChoiceThatAStopStringEnded) {
  engine_.manual = true;
  Start();
  std::thread client([&] {
    const json body = Complete(R"(,"stop":"ll","n":2)").json();
    EXPECT_EQ(body["choices"][0]["text"], "he");
    EXPECT_EQ(body["choices"][0]["stop_reason"], "ll");
    EXPECT_EQ(body["choices"][1]["text"], "ok");
  });
  const std::string id = engine_.WaitForRequest(1)->id;
  engine_.Send(id, Tokens(1, "ok", FinishReason::kLength));
  engine_.Send(id, Tokens(0, "hello"));
  EXPECT_TRUE(engine_.WaitForCancel(id, 0));
  client.join();
}

TEST_F(ApiServerTest, CancelsWhenAStreamingClientLeaves) {
  engine_.manual = true;
  Start();
  HttpConnection client(server_->port());
  client.Request("POST", "/v1/completions", R"({"prompt":"hi","stream":true})");
  const std::string id = engine_.WaitForRequest(1)->id;
  engine_.Send(id, Tokens(0, "a"));
  ASSERT_TRUE(client.ReadUntil("\"a\""));
  client.Close();
  EXPECT_TRUE(engine_.WaitForCancel(id));
}

TEST_F(ApiServerTest, CancelsWhenAWaitingClientLeaves) {
  engine_.manual = true;
  Start();
  HttpConnection client(server_->port());
  client.Request("POST", "/v1/completions", R"({"prompt":"hi"})");
  const std::string id = engine_.WaitForRequest(1)->id;
  client.HalfClose();
  EXPECT_TRUE(engine_.WaitForCancel(id));
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(ApiServerTest, ClosesAStreamWhoseReaderIsTooSlow) {
  engine_.manual = true;
  options_.http.max_pending_bytes = 64 << 10;
  Start();
  HttpConnection slow(server_->port(), 4096);
  slow.Request("POST", "/v1/completions", R"({"prompt":"hi","stream":true,"max_tokens":15000})");
  const std::string id = engine_.WaitForRequest(1)->id;
  const std::string piece(4000, 'x');
  // The kernel's own buffers take some megabytes; then ours fills and the connection ends.
  for (int i = 0; i < 20000 && !engine_.Cancelled(id); ++i) engine_.Send(id, Tokens(0, piece));
  EXPECT_TRUE(engine_.WaitForCancel(id));
  EXPECT_EQ(Get("/health").status, 200);
}

TEST_F(ApiServerTest, TokenizesLargeInputsElsewhere) {
  Start();
  const std::string text(9000, 'a');
  EXPECT_EQ(Post("/v1/completions", fmt::format(R"({{"prompt":"{}"}})", text)).status, 200);
  EXPECT_EQ(engine_.WaitForRequest(1)->prompt_ids.size(), 9000u);
  EXPECT_EQ(Post("/v1/completions", fmt::format(R"({{"prompt":"{}","n":0}})", text)).status, 400);
}

TEST_F(ApiServerTest, RefusesLargeInputsWhenTooManyWait) {
  options_.max_waiting_texts = 0;
  Start();
  const std::string text(9000, 'a');
  const Reply reply = Post("/v1/completions", fmt::format(R"({{"prompt":"{}"}})", text));
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.Header("Retry-After"), "1");
  EXPECT_EQ(Complete().status, 200);
}

TEST_F(ApiServerTest, PassesTheEnginesRefusalOn) {
  engine_.submit_status = absl::ResourceExhaustedError("the queue is full");
  engine_.submit_status.SetPayload("kvasir/retry-after", absl::Cord("2.5"));
  Start();
  const Reply reply = Complete(R"(,"stream":true)");
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.Header("Retry-After"), "3");
  EXPECT_EQ(reply.json()["error"]["message"], "the queue is full");
}

TEST_F(ApiServerTest, ReportsAnEngineErrorToItsRequestAlone) {
  engine_.finish = FinishReason::kError;
  Start();
  EXPECT_EQ(Complete().status, 500);
  const auto events = Complete(R"(,"stream":true)").Events();
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(json::parse(events[events.size() - 2])["error"]["message"], "planted");
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(Get("/health").status, 200);
}

TEST_F(ApiServerTest, AnswersARequestThatTookTooLong) {
  engine_.manual = true;
  options_.request_timeout = Duration::zero();
  Start();
  std::thread client([&] { EXPECT_EQ(Complete().status, 408); });
  const std::string id = engine_.WaitForRequest(1)->id;
  engine_.Send(id, {.finish = FinishReason::kCancelled});
  client.join();
}

// ---- Tools, reasoning, constraints ----

constexpr char kTools[] =
    R"(,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])";
constexpr char kCall[] =
    "<think>Hm</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";

TEST_F(ApiServerTest, AnswersWithToolCallsAndReasoning) {
  text_.format = {text::ToolFormat::kHermes, text::ReasoningFormat::kThinkTags};
  engine_.answer = kCall;
  Start();
  const Reply reply = Chat(std::string(kTools) + R"(,"n":2,"logprobs":true)");
  ASSERT_EQ(reply.status, 200) << reply.body;
  std::set<std::string> ids;
  const json body = reply.json();
  for (const json& choice : body["choices"]) {
    const json& message = choice["message"];
    EXPECT_TRUE(message["content"].is_null());
    EXPECT_EQ(message["reasoning_content"], "Hm");
    ASSERT_EQ(message["tool_calls"].size(), 1u);
    EXPECT_EQ(message["tool_calls"][0]["type"], "function");
    EXPECT_EQ(message["tool_calls"][0]["function"],
              (json{{"name", "f"}, {"arguments", "{\"a\": 1}"}}));
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
    EXPECT_EQ(choice["logprobs"]["content"].size(), std::string_view(kCall).size() + 1);
    ids.insert(message["tool_calls"][0]["id"].get<std::string>());
  }
  EXPECT_EQ(ids.size(), 2u);
  EXPECT_THAT(*ids.begin(), ::testing::MatchesRegex("call_[0-9A-Za-z]{24}"));
  EXPECT_EQ(engine_.WaitForRequest(1)->constraint, std::nullopt);
}

TEST_F(ApiServerTest, StreamsToolCallsAndReasoning) {
  text_.format = {text::ToolFormat::kHermes, text::ReasoningFormat::kThinkTags};
  engine_.answer = kCall;
  Start();
  const Reply reply = Chat(std::string(kTools) + R"(,"stream":true)");
  std::string reasoning;
  std::string arguments;
  std::string finish;
  int named = 0;
  for (const std::string& event : reply.Events()) {
    if (event == "[DONE]") break;
    const json choice = json::parse(event)["choices"][0];
    reasoning += choice["delta"].value("reasoning_content", "");
    EXPECT_EQ(choice["delta"].value("content", ""), "");
    for (const json& call : choice["delta"].value("tool_calls", json::array())) {
      EXPECT_EQ(call["index"], 0);
      arguments += call["function"]["arguments"].get<std::string>();
      if (!call.contains("id")) continue;
      ++named;
      EXPECT_EQ(call["type"], "function");
      EXPECT_EQ(call["function"]["name"], "f");
    }
    if (choice["finish_reason"].is_string()) finish = choice["finish_reason"];
  }
  EXPECT_EQ(reasoning, "Hm");
  EXPECT_EQ(arguments, "{\"a\": 1}");
  EXPECT_EQ(named, 1);
  EXPECT_EQ(finish, "tool_calls");
}

TEST_F(ApiServerTest, LeavesCallsInTheTextWhereNoneMayBeMade) {
  text_.format.tools = text::ToolFormat::kHermes;
  engine_.answer = kCall;
  Start();
  for (const std::string& fields :
       {std::string(), std::string(kTools) + R"(,"tool_choice":"none")"}) {
    const json choice = Chat(fields).json()["choices"][0];
    EXPECT_EQ(choice["message"]["content"], kCall);
    EXPECT_FALSE(choice["message"].contains("tool_calls"));
    EXPECT_EQ(choice["finish_reason"], "stop");
  }
  EXPECT_EQ(engine_.WaitForRequest(1)->prompt_ids, engine_.WaitForRequest(2)->prompt_ids);
}

TEST_F(ApiServerTest, GivesMistralsCallsTheIdsThatItsTemplatesTake) {
  text_.format.tools = text::ToolFormat::kMistral;
  engine_.answer = "[TOOL_CALLS]f{}";
  Start();
  const json call = Chat(kTools).json()["choices"][0]["message"]["tool_calls"][0];
  EXPECT_THAT(call["id"].get<std::string>(), ::testing::MatchesRegex("[0-9A-Za-z]{9}"));
}

TEST_F(ApiServerTest, RefusesToolsWithoutAFormForThem) {
  Start();
  const Reply reply = Chat(kTools);
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.json()["error"]["param"], "tools");
  EXPECT_EQ(Chat(std::string(kTools) + R"(,"tool_choice":"none")").status, 200);
}

TEST_F(ApiServerTest, HandsConstraintsToTheEngine) {
  text_.format.tools = text::ToolFormat::kHermes;
  Start();
  EXPECT_EQ(Chat(R"(,"response_format":{"type":"json_object"})").status, 200);
  EXPECT_EQ(Complete(R"(,"guided_regex":"a+")").status, 200);
  EXPECT_EQ(Chat(std::string(kTools) + R"(,"tool_choice":"required")").status, 200);
  EXPECT_EQ(engine_.WaitForRequest(1)->constraint,
            (Constraint{Constraint::Kind::kJsonSchema, R"({"type":"object"})"}));
  EXPECT_EQ(engine_.WaitForRequest(2)->constraint, (Constraint{Constraint::Kind::kRegex, "a+"}));
  EXPECT_THAT(engine_.WaitForRequest(3)->constraint->text,
              HasSubstr(R"("<tool_call>" call "</tool_call>")"));
}

TEST_F(ApiServerTest, ShowsToolsAndPastCallsToTheTemplate) {
  text_.format.tools = text::ToolFormat::kHermes;
  Start();
  const Reply reply =
      Post("/v1/chat/completions", fmt::format(R"({{"messages":[{{"role":"user","content":"hi"}},
                 {{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
                   {{"id":"x","type":"function","function":{{"name":"f","arguments":"{{}}"}}}}]}},
                 {{"role":"tool","tool_call_id":"x","content":"done"}}]{}}})",
                                               kTools));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const std::string prompt = tokenizer_.Decode(engine_.WaitForRequest(1)->prompt_ids, false);
  EXPECT_THAT(prompt, ::testing::StartsWith("tools: [{\"type\":\"function\""));
  EXPECT_THAT(prompt, HasSubstr(R"("reasoning_content":"hm","tool_calls":[{"id":"x")"));
  EXPECT_THAT(prompt, HasSubstr("<|im_start|>tool\ndone<|im_end|>"));
}

TEST_F(ApiServerTest, TurnsBadWordsIntoTokens) {
  Start();
  EXPECT_EQ(Complete(R"(,"bad_words":["ab"],"allowed_token_ids":[97])").status, 200);
  const auto request = engine_.WaitForRequest(1);
  EXPECT_EQ(request->sampling.bad_words,
            (std::vector<std::vector<TokenId>>{{97, 98}, {32, 97, 98}}));
  EXPECT_EQ(request->sampling.allowed_token_ids, std::vector<TokenId>{97});
}

TEST_F(ApiServerTest, RefusesAnUnknownModel) {
  Start();
  const Reply reply = Chat(R"(,"model":"other")");
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(reply.json()["error"]["code"], "model_not_found");
  EXPECT_EQ(Get("/v1/models/toy").status, 200);
  EXPECT_EQ(Get("/v1/models/other").status, 404);
}

TEST_F(ApiServerTest, NamesTheFieldAtFault) {
  Start();
  const auto param = [](const Reply& reply) {
    return fmt::format("{} {}", reply.status, reply.json()["error"]["param"].dump());
  };
  EXPECT_EQ(param(Chat(R"(,"temperature":3000)")), "400 \"temperature\"");
  EXPECT_EQ(param(Chat(R"(,"n":129)")), "400 \"n\"");
  EXPECT_EQ(param(Chat(R"(,"max_tokens":1000000)")), "400 \"max_tokens\"");
  EXPECT_EQ(param(Post("/v1/completions", R"({"prompt":[259]})")), "400 \"prompt\"");
  EXPECT_EQ(param(Post("/v1/completions", R"({"prompt":[[1],[]]})")), "400 \"prompt[1]\"");
  EXPECT_EQ(param(Post("/v1/completions", R"({"prompt":""})")), "400 \"prompt\"");
  EXPECT_EQ(param(Post("/v1/completions", "{")), "400 null");
  EXPECT_EQ(engine_.submitted(), 0u);
}

TEST_F(ApiServerTest, ServesIdsWithoutATokenizer) {
  text_ = {};
  Start();
  EXPECT_EQ(Chat().status, 400);
  EXPECT_EQ(Complete().status, 400);
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":[65],"stop":"x"})").status, 400);
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":[65],"regex":"x"})").status, 400);
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":[65],"bad_words":["x"]})").status, 400);
  EXPECT_EQ(Post("/tokenize", R"({"prompt":"x"})").status, 400);
  EXPECT_EQ(Post("/detokenize", R"({"tokens":[1]})").status, 400);
  const json body = Post("/v1/completions", R"({"prompt":[65],"logprobs":1})").json();
  EXPECT_EQ(body["choices"][0]["text"], "");
  EXPECT_EQ(body["choices"][0]["token_ids"], json({104, 101, 108, 108, 111, 256}));
  EXPECT_EQ(body["choices"][0]["logprobs"]["tokens"][0], "token_id:104");
}

TEST_F(ApiServerTest, TokenizesAndBack) {
  tokenizer_.prefix = {256};
  Start();
  json body = Post("/tokenize", R"({"prompt":"ab<|im_end|>","return_token_strs":true})").json();
  EXPECT_EQ(body["tokens"], json({256, 97, 98, 258}));
  EXPECT_EQ(body["count"], 4);
  EXPECT_EQ(body["max_model_len"], 20000);
  EXPECT_EQ(body["token_strs"][3], "<|im_end|>");
  body = Post("/tokenize", R"({"prompt":"ab","add_special_tokens":false})").json();
  EXPECT_EQ(body["tokens"], json({97, 98}));
  body = Post("/tokenize", R"({"messages":[{"role":"user","content":"x"}]})").json();
  EXPECT_EQ(body["tokens"][0], 257);
  EXPECT_EQ(Post("/detokenize", R"({"tokens":[97,258]})").json()["prompt"], "a<|im_end|>");
  EXPECT_EQ(Post("/detokenize", R"({"tokens":[97,300]})").status, 400);
}

TEST_F(ApiServerTest, AsksForAKeyWhereItMatters) {
  options_.keys.plain_keys = {"first", "second"};
  Start();
  for (const char* open : {"/health", "/ready", "/version", "/metrics"}) {
    EXPECT_EQ(Get(open).status, 200) << open;
  }
  EXPECT_EQ(Get("/v1/models").status, 401);
  EXPECT_EQ(Get("/v1/models").json()["error"]["code"], "invalid_api_key");
  for (const char* wrong : {"Bearer firs", "Bearer firstx", "Bearer ", "first", "Basic first"}) {
    EXPECT_EQ(Get("/v1/models", fmt::format("Authorization: {}\r\n", wrong)).status, 401) << wrong;
  }
  EXPECT_EQ(Get("/v1/models", "Authorization: Bearer second\r\n").status, 200);
  EXPECT_EQ(Get("/v1/models", "authorization: bearer first\r\n").status, 200);
}

TEST_F(ApiServerTest, LetsOnlyAllowedOriginsIn) {
  options_.allowed_origins = {"http://localhost:3000"};
  options_.keys.plain_keys = {"key"};
  Start();
  const Reply preflight =
      Call(server_->port(), "OPTIONS", "/v1/models", "",
           "Origin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.Header("Access-Control-Allow-Origin"), "http://localhost:3000");
  const Reply refused = Get("/v1/models", "Origin: http://localhost:3000\r\n");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.Header("Access-Control-Allow-Origin"), "http://localhost:3000");
  EXPECT_EQ(Get("/health", "Origin: http://evil.test\r\n").Header("Access-Control-Allow-Origin"),
            "");
}

class KeysTest : public ApiServerTest {
 protected:
  static constexpr char kAuthorized[] = "Authorization: Bearer secret\r\n";

  void Start(ApiKey key) {
    key.name = "team";
    key.digest = KeyDigest("secret");
    options_.keys.keys = {key};
    options_.keys.plain_keys = {"plain"};
    ApiServerTest::Start();
  }

  Reply Complete(std::string_view extra = "") {
    return Post("/v1/completions", fmt::format(R"({{"prompt":"hi"{}}})", extra), kAuthorized);
  }
};

TEST_F(KeysTest, LimitsRequests) {
  Start({.limits = {.requests_per_minute = 2}});
  Reply reply = Complete();
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("x-ratelimit-limit-requests"), "2");
  EXPECT_EQ(reply.Header("x-ratelimit-remaining-requests"), "1");
  EXPECT_EQ(Complete(R"(,"stream":true)").Header("x-ratelimit-remaining-requests"), "0");
  reply = Complete();
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.json()["error"]["code"], "rate_limit_exceeded");
  EXPECT_GT(std::stoi(reply.Header("Retry-After")), 20);
  EXPECT_EQ(reply.Header("x-ratelimit-remaining-requests"), "0");
  // What asks for nothing from the engine, and other keys, go on.
  EXPECT_EQ(Get("/v1/models", kAuthorized).status, 200);
  reply = Post("/v1/completions", R"({"prompt":"hi"})", "Authorization: Bearer plain\r\n");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("x-ratelimit-limit-requests"), "");
}

TEST_F(KeysTest, LimitsTokensByWhatWasUsed) {
  Start({.limits = {.tokens_per_minute = 100}});
  Reply reply = Complete(R"(,"max_tokens":90)");  // uses 2 + 6 of them
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("x-ratelimit-limit-tokens"), "100");
  reply = Complete(R"(,"max_tokens":99)");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.json()["error"]["code"], "request_exceeds_rate_limit");
  // The answer may be here before the server has taken its end into account.
  for (int i = 0; i < 1000 && reply.status != 200; ++i) reply = Complete(R"(,"max_tokens":80)");
  EXPECT_EQ(reply.status, 200);
}

TEST_F(KeysTest, LimitsRequestsAtATime) {
  engine_.manual = true;
  Start({.limits = {.max_concurrent = 1}});
  HttpConnection first(server_->port());
  first.Request("POST", "/v1/completions", R"({"prompt":"hi"})", kAuthorized);
  const std::string id = engine_.WaitForRequest(1)->id;
  EXPECT_EQ(Complete().status, 429);
  first.Close();
  EXPECT_TRUE(engine_.WaitForCancel(id));
  int status = 429;
  for (int i = 0; i < 1000 && status == 429; ++i) {
    status = Post("/tokenize", R"({"prompt":"hi"})", kAuthorized).status;
  }
  EXPECT_EQ(status, 200);
}

TEST_F(KeysTest, GiveTheirRequestsPriorityAndSalt) {
  Start({.priority = 3, .cache_salt = "team"});
  const std::string prompt = std::string(R"({"prompt":")") + std::string(40, 'x') + '"';
  Post("/v1/completions", prompt + "}", kAuthorized);
  Post("/v1/completions", prompt + R"(,"priority":1})", kAuthorized);
  Post("/v1/completions", prompt + R"(,"priority":7})", "Authorization: Bearer plain\r\n");
  EXPECT_EQ(engine_.WaitForRequest(1)->priority, 3);
  EXPECT_EQ(engine_.WaitForRequest(2)->priority, 3);
  EXPECT_EQ(engine_.WaitForRequest(3)->priority, 7);
  EXPECT_EQ(engine_.WaitForRequest(1)->unit_hashes, engine_.WaitForRequest(2)->unit_hashes);
  EXPECT_NE(engine_.WaitForRequest(1)->unit_hashes, engine_.WaitForRequest(3)->unit_hashes);
}

class AccessLogTest : public ApiServerTest {
 protected:
  AccessLogTest() {
    options_.access_log = fmt::format("{}access_{}.log", ::testing::TempDir(), ::getpid());
    std::filesystem::remove(options_.access_log);
  }
  ~AccessLogTest() override { std::filesystem::remove(options_.access_log); }
};

TEST_F(AccessLogTest, TellsOfGenerations) {
  engine_.cached_tokens = 16;
  Start();
  const std::string traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  Post("/v1/completions?x=secret", R"({"prompt":["hi","you"],"n":2})",
       fmt::format("X-Request-Id: mine\r\ntraceparent: {}\r\n", traceparent));
  Complete(R"(,"temperature":-1)");
  const std::vector<json> log = AccessLog();
  ASSERT_EQ(log.size(), 2u);
  EXPECT_EQ(log[0]["request_id"], "mine");
  EXPECT_EQ(log[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(log[0]["path"], "/v1/completions");
  EXPECT_EQ(log[0]["status"], 200);
  EXPECT_EQ(log[0]["prompt_tokens"], 5);
  EXPECT_EQ(log[0]["cached_tokens"], 32);
  EXPECT_EQ(log[0]["completion_tokens"], 24);
  EXPECT_GE(log[0]["duration_ms"], log[0]["ttft_ms"]);
  EXPECT_EQ(log[1]["status"], 400);
  EXPECT_FALSE(log[1].contains("prompt_tokens"));
}

TEST_F(AccessLogTest, TellsOfAClientThatLeft) {
  engine_.manual = true;
  Start();
  HttpConnection client(server_->port());
  client.Request("POST", "/v1/completions", R"({"prompt":"hi","stream":true})");
  const std::string id = engine_.WaitForRequest(1)->id;
  engine_.Send(id, Tokens(0, "a"));
  ASSERT_TRUE(client.ReadUntil("\"a\""));
  client.Close();
  EXPECT_TRUE(engine_.WaitForCancel(id));
  const std::vector<json> log = AccessLog();
  ASSERT_EQ(log.size(), 1u);
  EXPECT_EQ(log[0]["aborted"], true);
  EXPECT_EQ(log[0]["status"], 200);
  EXPECT_EQ(log[0]["completion_tokens"], 1);
}

TEST_F(AccessLogTest, NamesTheKeyAndDoesNotShowIt) {
  options_.keys.keys = {{.name = "team", .digest = KeyDigest("secret")}};
  Start();
  Get("/v1/models", "Authorization: Bearer secret\r\n");
  Get("/v1/models", "Authorization: Bearer wrong\r\n");
  const std::vector<json> log = AccessLog();
  ASSERT_EQ(log.size(), 2u);
  EXPECT_EQ(log[0]["key"], "team");
  EXPECT_FALSE(log[1].contains("key"));
  EXPECT_EQ(json(log).dump().find("secret"), std::string::npos);
}

TEST_F(AccessLogTest, IsOpenedAnew) {
  Start();
  Get("/health");
  std::filesystem::rename(options_.access_log, options_.access_log + ".1");
  server_->Reload();
  Get("/version");
  const std::vector<json> log = AccessLog();
  ASSERT_FALSE(log.empty());
  EXPECT_EQ(log.back()["path"], "/version");
  std::filesystem::remove(options_.access_log + ".1");
}

TEST_F(AccessLogTest, NamesAFileThatCannotBeOpened) {
  options_.access_log = "/nonexistent/log";
  EXPECT_EQ(ApiServer::Start(engine_, text_, options_).status().message(),
            "access-log: cannot open /nonexistent/log: No such file or directory");
}

TEST_F(ApiServerTest, TellsAboutItself) {
  engine_.stats.blocks_total = 100;
  engine_.stats.blocks_held = 25;
  Start();
  EXPECT_EQ(Get("/version").json(), (json{{"version", "1.2.3"}}));
  EXPECT_EQ(Get("/v1/models").json()["data"][0]["id"], "toy");
  Complete();
  const std::string metrics = Get("/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("kvasir_kv_cache_usage_perc{model_name=\"toy\"} 0.25"));
  EXPECT_THAT(metrics, HasSubstr("kvasir_time_to_first_token_seconds_count{model_name=\"toy\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("# TYPE kvasir_prompt_tokens_total counter"));
  EXPECT_THAT(metrics, HasSubstr("{finished_reason=\"stop\",model_name=\"toy\"} 1"));
}

TEST_F(ApiServerTest, IsNotHealthyWhenTheEngineIsNot) {
  engine_.healthy = false;
  Start();
  EXPECT_EQ(Get("/health").status, 503);
  EXPECT_EQ(Get("/ready").status, 503);
}

TEST_F(ApiServerTest, DrainsAnswersUnderWay) {
  engine_.manual = true;
  Start();
  HttpConnection idle(server_->port());
  HttpConnection busy(server_->port());
  busy.Request("POST", "/v1/completions", R"({"prompt":"hi"})");
  const std::string id = engine_.WaitForRequest(1)->id;
  std::thread drain([&] { server_->Drain(std::chrono::seconds(20)); });
  EXPECT_TRUE(idle.AtEnd());
  engine_.Send(id, Tokens(0, "bye", FinishReason::kLength));
  const Reply reply = busy.ReadReply();
  EXPECT_EQ(reply.json()["choices"][0]["text"], "bye");
  EXPECT_EQ(reply.Header("Connection"), "close");
  drain.join();
  EXPECT_FALSE(HttpConnection(server_->port()).connected());
}

TEST_F(ApiServerTest, CancelsWhatADrainDoesNotWaitFor) {
  engine_.manual = true;
  Start();
  HttpConnection busy(server_->port());
  busy.Request("POST", "/v1/completions", R"({"prompt":"hi","stream":true})");
  const std::string id = engine_.WaitForRequest(1)->id;
  server_->Drain(Duration::zero());
  EXPECT_TRUE(engine_.WaitForCancel(id));
  EXPECT_TRUE(busy.AtEnd());
  engine_.Send(id, Tokens(0, "late"));
}

}  // namespace
}  // namespace kvasir::api
