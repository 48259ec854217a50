// The protocols other than chat and text completions, over HTTP and a fake engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "api/testing/server_fixture.h"

namespace kvasir::api {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using testing::Reply;

// The names of a stream's events, each of which must be the type in its data.
std::vector<std::string> EventNames(const std::string& body, std::vector<json>* data) {
  std::vector<std::string> names;
  size_t at = 0;
  for (size_t end; (end = body.find("\n\n", at)) != std::string::npos; at = end + 2) {
    const std::string event = body.substr(at, end - at);
    const size_t line = event.find("\ndata: ");
    EXPECT_TRUE(event.starts_with("event: ") && line != std::string::npos) << event;
    names.push_back(event.substr(7, line - 7));
    data->push_back(json::parse(event.substr(line + 7)));
    EXPECT_EQ(data->back()["type"], names.back());
  }
  EXPECT_EQ(at, body.size());
  return names;
}

class ProtocolsTest : public testing::ServerFixture {
 protected:
  void StartWithTools(const std::string& answer) {
    text_.format = {text::ToolFormat::kHermes, text::ReasoningFormat::kThinkTags};
    engine_.answer = answer;
    Start();
  }

  std::string PromptText() {
    const auto request = engine_.WaitForRequest(1);
    return tokenizer_.Decode(request->prompt_ids, false);
  }
};

constexpr char kThinksAndCalls[] =
    "<think>hm</think>so<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}}</tool_call>";

// ---- /v1/messages ----

constexpr char kMessage[] =
    R"({"model":"toy","max_tokens":50,"system":"be kind","messages":[
        {"role":"user","content":[{"type":"text","text":"hi"}]}])";

TEST_F(ProtocolsTest, MessagesAnswersInAnthropicsShapes) {
  engine_.cached_tokens = 3;
  Start();
  const json body = Post("/v1/messages", std::string(kMessage) + "}").json();
  EXPECT_EQ(body["type"], "message");
  EXPECT_EQ(body["role"], "assistant");
  EXPECT_EQ(body["content"], json::parse(R"([{"type":"text","text":"hello"}])"));
  EXPECT_EQ(body["stop_reason"], "end_turn");
  const auto request = engine_.WaitForRequest(1);
  EXPECT_EQ(request->sampling.max_tokens, 50);
  EXPECT_EQ(body["usage"]["input_tokens"], request->prompt_ids.size() - 3);
  EXPECT_EQ(body["usage"]["cache_read_input_tokens"], 3);
  EXPECT_EQ(PromptText(),
            "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
            "<|im_start|>assistant\n");
}

TEST_F(ProtocolsTest, MessagesStreamsBlocks) {
  StartWithTools(kThinksAndCalls);
  const Reply reply =
      Post("/v1/messages",
           std::string(kMessage) +
               R"(,"stream":true,"tools":[{"name":"f","input_schema":{"type":"object"}}]})");
  std::vector<json> data;
  std::vector<std::string> names = EventNames(reply.body, &data);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  EXPECT_THAT(names, ElementsAre("message_start", "content_block_start", "content_block_delta",
                                 "content_block_stop", "content_block_start", "content_block_delta",
                                 "content_block_stop", "content_block_start", "content_block_delta",
                                 "content_block_stop", "message_delta", "message_stop"));
  std::string thinking, text, arguments;
  for (const json& event : data) {
    if (event["type"] != "content_block_delta") continue;
    thinking += event["delta"].value("thinking", "");
    text += event["delta"].value("text", "");
    arguments += event["delta"].value("partial_json", "");
  }
  EXPECT_EQ(thinking, "hm");
  EXPECT_EQ(text, "so");
  EXPECT_EQ(json::parse(arguments), json::parse(R"({"x":1})"));
  EXPECT_EQ(data[data.size() - 2]["delta"]["stop_reason"], "tool_use");
}

TEST_F(ProtocolsTest, MessagesTakesToolResultsAndContinuesTheAssistant) {
  StartWithTools("x");
  const Reply reply = Post("/v1/messages", R"({"model":"toy","max_tokens":9,"messages":[
      {"role":"user","content":"go"},
      {"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f","input":{"x":1}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"42"}]},
      {"role":"assistant","content":"The answer"}]})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const std::string prompt = PromptText();
  EXPECT_NE(prompt.find("<|im_start|>tool\n42<|im_end|>"), std::string::npos) << prompt;
  EXPECT_EQ(prompt.find("<|im_start|>user\n<|im_end|>"), std::string::npos) << prompt;
  EXPECT_FALSE(prompt.ends_with("<|im_start|>assistant\n")) << prompt;
}

TEST_F(ProtocolsTest, MessagesSpellsErrorsAndStopsAsAnthropicDoes) {
  Start();
  const Reply missing = Post("/v1/messages", R"({"model":"toy","messages":[]})");
  EXPECT_EQ(missing.status, 400);
  EXPECT_EQ(missing.json()["type"], "error");
  EXPECT_EQ(missing.json()["error"]["type"], "invalid_request_error");
  const Reply image = Post("/v1/messages", R"({"model":"toy","max_tokens":9,"messages":[
      {"role":"user","content":[{"type":"image","source":{}}]}]})");
  EXPECT_EQ(image.status, 400);
  EXPECT_NE(image.body.find("messages[0].content[0].type"), std::string::npos) << image.body;
  const json stopped =
      Post("/v1/messages", std::string(kMessage) + R"(,"stop_sequences":["ll"]})").json();
  EXPECT_EQ(stopped["stop_reason"], "stop_sequence");
  EXPECT_EQ(stopped["stop_sequence"], "ll");
  EXPECT_EQ(stopped["content"][0]["text"], "he");
}

TEST_F(ProtocolsTest, CountsTokens) {
  Start();
  const Reply counted = Post("/v1/messages/count_tokens",
                             R"({"model":"toy","messages":[{"role":"user","content":"hi"}]})");
  Post("/v1/messages",
       R"({"model":"toy","max_tokens":1,"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(counted.json()["input_tokens"], engine_.WaitForRequest(1)->prompt_ids.size());
}

// ---- /v1/responses ----

TEST_F(ProtocolsTest, ResponsesAnswersATextOrItems) {
  Start();
  const json body =
      Post("/v1/responses", R"({"input":"hi","instructions":"be kind","max_output_tokens":20})")
          .json();
  EXPECT_EQ(body["object"], "response");
  EXPECT_EQ(body["status"], "completed");
  EXPECT_EQ(body["output"][0]["type"], "message");
  EXPECT_EQ(body["output"][0]["content"][0]["text"], "hello");
  EXPECT_EQ(body["instructions"], "be kind");
  EXPECT_EQ(body["usage"]["output_tokens"], 6);
  Post("/v1/responses", R"({"instructions":"be kind","input":[
      {"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}]})");
  EXPECT_EQ(engine_.WaitForRequest(1)->prompt_ids, engine_.WaitForRequest(2)->prompt_ids);
}

TEST_F(ProtocolsTest, ResponsesSaysWhatIsIncomplete) {
  engine_.finish = FinishReason::kLength;
  Start();
  const json body = Post("/v1/responses", R"({"input":"hi"})").json();
  EXPECT_EQ(body["status"], "incomplete");
  EXPECT_EQ(body["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(body["output"][0]["status"], "incomplete");
}

TEST_F(ProtocolsTest, ResponsesStreamsItems) {
  StartWithTools(kThinksAndCalls);
  const Reply reply = Post("/v1/responses", R"({"input":"hi","stream":true,
      "tools":[{"type":"function","name":"f","parameters":{"type":"object"}}]})");
  std::vector<json> data;
  std::vector<std::string> names = EventNames(reply.body, &data);
  for (size_t i = 0; i < data.size(); ++i) EXPECT_EQ(data[i]["sequence_number"], i);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  EXPECT_THAT(
      names,
      ElementsAre("response.created", "response.in_progress", "response.output_item.added",
                  "response.content_part.added", "response.reasoning_text.delta",
                  "response.reasoning_text.done", "response.content_part.done",
                  "response.output_item.done", "response.output_item.added",
                  "response.content_part.added", "response.output_text.delta",
                  "response.output_text.done", "response.content_part.done",
                  "response.output_item.done", "response.output_item.added",
                  "response.function_call_arguments.delta", "response.function_call_arguments.done",
                  "response.output_item.done", "response.completed"));
  const json& output = data.back()["response"]["output"];
  ASSERT_EQ(output.size(), 3u);
  EXPECT_EQ(output[0]["content"][0]["text"], "hm");
  EXPECT_EQ(output[1]["content"][0]["text"], "so");
  EXPECT_EQ(output[2]["name"], "f");
  EXPECT_EQ(json::parse(output[2]["arguments"].get<std::string>()), json::parse(R"({"x":1})"));
  EXPECT_GT(data.back()["response"]["usage"]["output_tokens_details"]["reasoning_tokens"], 0);
}

TEST_F(ProtocolsTest, ResponsesRefusesWhatIsNotStored) {
  Start();
  const auto param = [&](const char* body) {
    return Post("/v1/responses", body).json()["error"]["param"];
  };
  EXPECT_EQ(param(R"({"input":"x","previous_response_id":"resp_1"})"), "previous_response_id");
  EXPECT_EQ(param(R"({"input":"x","background":true})"), "background");
  EXPECT_EQ(param(R"({"input":[{"type":"computer_call"}]})"), "input[0].type");
  EXPECT_EQ(param(R"({"input":"x","tools":[{"type":"web_search"}]})"), "tools[0].type");
  EXPECT_EQ(param(R"({"input":"x","include":["file_search_call.results"]})"), "include[0]");
  EXPECT_EQ(param("{}"), "input");
}

// ---- Ollama ----

std::vector<json> Lines(const std::string& body) {
  std::vector<json> lines;
  std::istringstream in(body);
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

TEST_F(ProtocolsTest, OllamaChatStreamsLinesUnlessToldNotTo) {
  StartWithTools(kThinksAndCalls);
  const std::string body = R"({"model":"toy:latest","messages":[{"role":"user","content":"hi"}],
      "tools":[{"type":"function","function":{"name":"f"}}],"options":{"num_predict":200})";
  const Reply streamed = Post("/api/chat", body + "}");
  EXPECT_EQ(streamed.Header("Content-Type"), "application/x-ndjson");
  const std::vector<json> lines = Lines(streamed.body);
  std::string text, thinking;
  json calls;
  for (const json& line : lines) {
    text += line["message"].value("content", "");
    thinking += line["message"].value("thinking", "");
    if (line["message"].contains("tool_calls")) calls = line["message"]["tool_calls"];
  }
  EXPECT_EQ(text, "so");
  EXPECT_EQ(thinking, "hm");
  EXPECT_EQ(calls, json::parse(R"([{"function":{"name":"f","arguments":{"x":1}}}])"));
  EXPECT_TRUE(lines.back()["done"].get<bool>());
  EXPECT_EQ(lines.back()["done_reason"], "stop");

  const json whole = Post("/api/chat", body + R"(,"stream":false})").json();
  EXPECT_EQ(whole["message"]["content"], "so");
  EXPECT_EQ(whole["message"]["tool_calls"], calls);
  EXPECT_EQ(whole["eval_count"], lines.back()["eval_count"]);
}

TEST_F(ProtocolsTest, OllamaGenerateTakesAPromptRawOrNot) {
  Start();
  const json chat =
      Post("/api/generate", R"({"model":"toy","prompt":"hi","system":"be kind","stream":false})")
          .json();
  EXPECT_EQ(chat["response"], "hello");
  EXPECT_EQ(chat["prompt_eval_count"], engine_.WaitForRequest(1)->prompt_ids.size());
  Post("/api/generate", R"({"model":"toy","prompt":"hi","raw":true,"stream":false})");
  EXPECT_EQ(engine_.WaitForRequest(2)->prompt_ids, (std::vector<TokenId>{'h', 'i'}));
  const json loaded = Post("/api/generate", R"({"model":"toy"})").json();
  EXPECT_EQ(loaded["done_reason"], "load");
  EXPECT_EQ(engine_.submitted(), 2u);
}

TEST_F(ProtocolsTest, OllamaNamesItsModelsAndItsErrors) {
  Start();
  EXPECT_EQ(Get("/api/tags").json()["models"][0]["name"], "toy:latest");
  EXPECT_EQ(Get("/api/ps").json()["models"][0]["name"], "toy:latest");
  EXPECT_TRUE(Get("/api/version").json()["version"].is_string());
  const json show = Post("/api/show", R"({"model":"toy"})").json();
  EXPECT_EQ(show["capabilities"], json::array({"completion"}));
  const Reply unknown =
      Post("/api/chat", R"({"model":"x","messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_TRUE(unknown.json()["error"].is_string());
  const Reply image =
      Post("/api/chat",
           R"({"model":"toy","messages":[{"role":"user","content":"hi","images":["aGk="]}]})");
  EXPECT_EQ(image.status, 400);
  EXPECT_NE(image.body.find("messages[0].images"), std::string::npos);
}

// ---- SGLang ----

TEST_F(ProtocolsTest, GenerateTakesTextOrIds) {
  engine_.cached_tokens = 1;
  Start();
  const json one =
      Post("/generate", R"({"text":"hi","sampling_params":{"max_new_tokens":9,"stop":"lo"}})")
          .json();
  EXPECT_EQ(one["text"], "hel");
  EXPECT_EQ(one["output_ids"], json::parse("[104,101,108,108,111]"));
  EXPECT_EQ(one["meta_info"]["finish_reason"], json::parse(R"({"type":"stop","matched":"lo"})"));
  EXPECT_EQ(one["meta_info"]["prompt_tokens"], 2);
  EXPECT_EQ(one["meta_info"]["cached_tokens"], 1);
  const json two = Post("/generate", R"({"input_ids":[[1],[2,3]],"return_logprob":true,
      "logprob_start_len":0})")
                       .json();
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[1]["meta_info"]["input_token_logprobs"][0], json::array({nullptr, 2, "\2"}));
  EXPECT_EQ(two[1]["meta_info"]["input_token_logprobs"][1], json::array({-0.25, 3, "\3"}));
  EXPECT_EQ(two[1]["meta_info"]["output_token_logprobs"].size(), 6u);
}

TEST_F(ProtocolsTest, GenerateStreamsAllThatHasCome) {
  Start();
  const auto events = Post("/generate", R"({"text":"hi","stream":true})").Events();
  ASSERT_GT(events.size(), 2u);
  EXPECT_EQ(json::parse(events[0])["text"], "h");
  EXPECT_EQ(json::parse(events[1])["text"], "he");
  EXPECT_EQ(json::parse(events[events.size() - 2])["text"], "hello");
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(Post("/generate", "{}").json()["error"]["param"], "text");
  EXPECT_EQ(Post("/generate", R"({"text":"a","input_ids":[1]})").json()["error"]["param"],
            "input_ids");
}

// ---- Embeddings ----

TEST_F(ProtocolsTest, EmbeddingsAreNormalisedFloatsOrBase64) {
  Start();
  const json body = Post("/v1/embeddings", R"({"input":["a","bc"],"pooling":"last"})").json();
  ASSERT_EQ(body["data"].size(), 2u);
  EXPECT_EQ(body["data"][1]["index"], 1);
  EXPECT_NEAR(body["data"][1]["embedding"][0].get<double>(), 0.6, 1e-6);
  EXPECT_NEAR(body["data"][1]["embedding"][1].get<double>(), 0.8, 1e-6);
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(engine_.WaitForRequest(1)->pooling, Pooling::kLast);
  const json raw =
      Post("/v1/embeddings", R"({"input":[1],"normalize":false,"encoding_format":"base64"})")
          .json();
  EXPECT_EQ(raw["data"][0]["embedding"], "AABAQAAAgEA=");  // 3.0f, 4.0f
  EXPECT_EQ(engine_.WaitForRequest(3)->pooling, Pooling::kMean);
  EXPECT_EQ(Post("/v1/embeddings", R"({"input":"x","dimensions":1})").json()["error"]["param"],
            "dimensions");
}

TEST_F(ProtocolsTest, RerankAndScoreCompareEmbeddings) {
  Start();
  const json ranked =
      Post("/v1/rerank", R"({"query":"q","documents":["a",{"text":"b"},"c"],"top_n":2})").json();
  ASSERT_EQ(ranked["results"].size(), 2u);
  EXPECT_EQ(ranked["results"][0]["index"], 0);
  EXPECT_EQ(ranked["results"][1]["document"]["text"], "b");
  EXPECT_NEAR(ranked["results"][0]["relevance_score"].get<double>(), 1, 1e-6);
  const json scored = Post("/score", R"({"text_1":"a","text_2":["b","c"]})").json();
  ASSERT_EQ(scored["data"].size(), 2u);
  EXPECT_NEAR(scored["data"][1]["score"].get<double>(), 1, 1e-6);
  EXPECT_EQ(
      Post("/score", R"({"text_1":["a","b"],"text_2":["a","b","c"]})").json()["error"]["param"],
      "text_2");
}

// ---- Completions about their prompt ----

TEST_F(ProtocolsTest, CompletionsEchoThePromptWithItsLogprobs) {
  Start();
  const json body =
      Post("/v1/completions", R"({"prompt":"hi","echo":true,"logprobs":0,"max_tokens":0})").json();
  EXPECT_EQ(body["choices"][0]["text"], "hi");
  EXPECT_EQ(body["choices"][0]["logprobs"]["tokens"], json::parse(R"(["h","i"])"));
  EXPECT_EQ(body["choices"][0]["logprobs"]["token_logprobs"], json::parse("[null,-0.25]"));
  EXPECT_FALSE(body["choices"][0].contains("prompt_logprobs"));
  EXPECT_EQ(body["usage"]["completion_tokens"], 0);

  const json shown =
      Post("/v1/completions", R"({"prompt":"hi","prompt_logprobs":0})").json()["choices"][0];
  EXPECT_EQ(shown["text"], "hello");
  EXPECT_EQ(shown["prompt_logprobs"][1]["105"]["decoded_token"], "i");

  const auto events =
      Post("/v1/completions", R"({"prompt":"hi","echo":true,"stream":true})").Events();
  EXPECT_EQ(json::parse(events[0])["choices"][0]["text"], "hih");
}

TEST_F(ProtocolsTest, BestOfAnswersTheLikeliestChoices) {
  engine_.best = 2;
  Start();
  const json body =
      Post("/v1/completions", R"({"prompt":"hi","best_of":3,"n":1,"logprobs":0})").json();
  ASSERT_EQ(body["choices"].size(), 1u);
  EXPECT_EQ(body["choices"][0]["index"], 0);
  EXPECT_NEAR(body["choices"][0]["logprobs"]["token_logprobs"][0].get<double>(), -0.1, 1e-6);
  EXPECT_EQ(engine_.WaitForRequest(1)->sampling.n, 3);
}

TEST_F(ProtocolsTest, SuffixesNeedAVocabularyThatCanFillIn) {
  Start();
  const json refused = Post("/v1/completions", R"({"prompt":"a","suffix":"b"})").json()["error"];
  EXPECT_EQ(refused["param"], "suffix");
  for (const char* token : {"<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"}) {
    tokenizer_.AddSpecial(token);
  }
  engine_.model.vocab_size = tokenizer_.vocab_size();
  Post("/v1/completions", R"({"prompt":"a<|end|>","suffix":"b"})");
  EXPECT_EQ(tokenizer_.Decode(engine_.WaitForRequest(1)->prompt_ids, false),
            "<|fim_prefix|>a<|end|><|fim_suffix|>b<|fim_middle|>");
  EXPECT_EQ(engine_.WaitForRequest(1)->prompt_ids.size(), 12u);  // <|end|> is text here
}

// ---- /openapi.json ----

TEST_F(ProtocolsTest, OpenApiDescribesEveryRouteAndItsFields) {
  Start();
  const json document = Get("/openapi.json").json();
  EXPECT_EQ(document["openapi"], "3.1.0");
  std::set<std::string> paths;
  for (const auto& [path, operations] : document["paths"].items()) paths.insert(path);
  for (const char* path : {"/v1/chat/completions",
                           "/v1/completions",
                           "/v1/responses",
                           "/v1/messages",
                           "/v1/messages/count_tokens",
                           "/v1/embeddings",
                           "/v1/rerank",
                           "/score",
                           "/api/chat",
                           "/api/generate",
                           "/api/tags",
                           "/generate",
                           "/tokenize",
                           "/detokenize",
                           "/v1/models",
                           "/v1/models/{id}",
                           "/health",
                           "/ready",
                           "/metrics",
                           "/version",
                           "/openapi.json"}) {
    EXPECT_TRUE(paths.contains(path)) << path;
  }
  const auto properties = [&](const char* path) {
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
                   ["properties"];
  };
  for (const char* field :
       {"messages", "model", "stream", "temperature", "logit_bias", "stop", "seed", "tools",
        "tool_choice", "response_format", "structured_outputs", "guided_json", "max_tokens",
        "max_completion_tokens", "top_logprobs", "chat_template_kwargs"}) {
    EXPECT_TRUE(properties("/v1/chat/completions").contains(field)) << field;
  }
  EXPECT_TRUE(
      properties("/v1/chat/completions")["messages"]["items"]["properties"].contains("role"));
  EXPECT_TRUE(properties("/v1/completions").contains("suffix"));
  EXPECT_TRUE(properties("/v1/messages").contains("stop_sequences"));
  EXPECT_TRUE(properties("/generate")["sampling_params"]["properties"].contains("max_new_tokens"));
}

}  // namespace
}  // namespace kvasir::api
