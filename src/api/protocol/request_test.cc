#include "api/protocol/request.h"

#include <gtest/gtest.h>

#include "api/protocol/error.h"
#include "grammar/spellings.h"

namespace kvasir::api {
namespace {

// `extra` is the inside of an object: `"n":2,"seed":7`.
StatusOr<ChatRequest> Chat(const std::string& extra) {
  return ReadBody(*ParseJsonObject(R"({"messages":[{"role":"user","content":"hi"}])" +
                                   (extra.empty() ? "" : "," + extra) + "}"),
                  &ReadChatRequest);
}

StatusOr<CompletionRequest> Completion(const std::string& extra) {
  return ReadBody(*ParseJsonObject(R"({"prompt":"hi")" + (extra.empty() ? "" : "," + extra) + "}"),
                  &ReadCompletionRequest);
}

std::string Param(const Status& status) {
  return absl::IsInvalidArgument(status) ? ToErrorObject(status).param : "no error";
}

TEST(ChatRequest, HasTheDefaultsOfTheOpenAiApi) {
  const auto request = Chat("");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->options.sampling, SamplingParams());
  EXPECT_FALSE(request->options.max_tokens.has_value());
  EXPECT_FALSE(request->options.stream);
  EXPECT_FALSE(request->options.has_seed);
  EXPECT_TRUE(request->options.model.empty());
}

TEST(ChatRequest, ReadsEveryParameter) {
  const auto request = Chat(
      R"("model":"m","temperature":0.5,"top_k":40,"top_p":0.9,"min_p":0.05,"presence_penalty":1,
         "frequency_penalty":-1,"repetition_penalty":1.1,"logit_bias":{"7":-100,"3":2.5},"seed":-1,
         "n":3,"max_completion_tokens":9,"min_tokens":2,"stop":"END","stop_token_ids":[5],
         "ignore_eos":true,"include_stop_str_in_output":true,"logprobs":true,"top_logprobs":4,
         "priority":-2,"cache_salt":"s","stream":true,"stream_options":{"include_usage":true},
         "return_token_ids":true,"user":"u","metadata":{"a":1},"unknown_field":[1,2])");
  ASSERT_TRUE(request.ok()) << request.status();
  const GenerationOptions& o = request->options;
  EXPECT_EQ(o.model, "m");
  EXPECT_EQ(o.sampling.temperature, 0.5f);
  EXPECT_EQ(o.sampling.top_k, 40);
  EXPECT_EQ(o.sampling.logit_bias, (std::vector<std::pair<TokenId, float>>{{3, 2.5f}, {7, -100}}));
  EXPECT_EQ(o.sampling.seed, ~uint64_t{0});
  EXPECT_TRUE(o.has_seed);
  EXPECT_EQ(o.sampling.n, 3);
  EXPECT_EQ(o.max_tokens, 9);
  EXPECT_EQ(o.max_tokens_field, "max_completion_tokens");
  EXPECT_EQ(o.stop, std::vector<std::string>{"END"});
  EXPECT_EQ(o.sampling.logprobs, 4);
  EXPECT_EQ(o.priority, -2);
  EXPECT_EQ(o.cache_salt, "s");
  EXPECT_TRUE(o.stream && o.include_usage && o.return_token_ids && o.include_stop);
}

struct BadField {
  const char* json;
  const char* param;
};

class BadCommonField : public ::testing::TestWithParam<BadField> {};

TEST_P(BadCommonField, IsNamedByChatAndCompletions) {
  EXPECT_EQ(Param(Chat(GetParam().json).status()), GetParam().param);
  EXPECT_EQ(Param(Completion(GetParam().json).status()), GetParam().param);
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadCommonField,
    ::testing::Values(
        BadField{R"("model":3)", "model"}, BadField{R"("temperature":"hot")", "temperature"},
        BadField{R"("temperature":[1])", "temperature"}, BadField{R"("top_p":true)", "top_p"},
        BadField{R"("top_k":1.5)", "top_k"}, BadField{R"("top_k":9999999999)", "top_k"},
        BadField{R"("min_p":{})", "min_p"}, BadField{R"("n":"two")", "n"},
        BadField{R"("n":1e12)", "n"}, BadField{R"("max_tokens":0)", "max_tokens"},
        BadField{R"("max_tokens":-5)", "max_tokens"}, BadField{R"("max_tokens":2.5)", "max_tokens"},
        BadField{R"("max_completion_tokens":"9")", "max_completion_tokens"},
        BadField{R"("min_tokens":[])", "min_tokens"}, BadField{R"("seed":"x")", "seed"},
        BadField{R"("seed":1.5)", "seed"}, BadField{R"("seed":1e30)", "seed"},
        BadField{R"("stop":3)", "stop"}, BadField{R"("stop":["a",3])", "stop[1]"},
        BadField{R"("stop":[""])", "stop"}, BadField{R"("stop":"")", "stop"},
        BadField{R"("stop_token_ids":"5")", "stop_token_ids"},
        BadField{R"("stop_token_ids":[5,-1])", "stop_token_ids[1]"},
        BadField{R"("ignore_eos":"yes")", "ignore_eos"},
        BadField{R"("logit_bias":[1])", "logit_bias"},
        BadField{R"("logit_bias":{"x":1})", "logit_bias"},
        BadField{R"("logit_bias":{"5":"x"})", "logit_bias.5"},
        BadField{R"("logit_bias":{"5":1,"05":1})", "logit_bias"},
        BadField{R"("stream":"true")", "stream"},
        BadField{R"("stream_options":{"include_usage":true})", "stream_options"},
        BadField{R"("stream":true,"stream_options":[])", "stream_options"},
        BadField{R"("stream":true,"stream_options":{"include_usage":1})",
                 "stream_options.include_usage"},
        BadField{R"("priority":"high")", "priority"}, BadField{R"("cache_salt":1)", "cache_salt"},
        BadField{R"("return_token_ids":1)", "return_token_ids"},
        BadField{R"("response_format":"json")", "response_format"},
        BadField{R"("response_format":{"type":"xml"})", "response_format.type"},
        BadField{R"("response_format":{"type":"json_schema"})", "response_format.json_schema"},
        BadField{R"("response_format":{"type":"json_schema","json_schema":{"schema":{}}})",
                 "response_format.json_schema.name"},
        BadField{
            R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":[]}})",
            "response_format.json_schema.schema"},
        BadField{R"("structured_outputs":[])", "structured_outputs"},
        BadField{R"("structured_outputs":{"regex":5})", "structured_outputs.regex"},
        BadField{R"("structured_outputs":{"regex":"a","choice":["b"]})",
                 "structured_outputs.choice"},
        BadField{R"("structured_outputs":{"json_object":1})", "structured_outputs.json_object"},
        BadField{R"("structured_outputs":{"structural_tag":"x"})",
                 "structured_outputs.structural_tag"},
        BadField{R"("guided_choice":[])", "guided_choice"},
        BadField{R"("guided_choice":["a",1])", "guided_choice[1]"},
        BadField{R"("guided_json":3)", "guided_json"},
        BadField{R"("guided_json":"{")", "guided_json"},
        BadField{R"("guided_grammar":"")", "guided_grammar"},
        BadField{R"("regex":"a","ebnf":"root ::= x")", "ebnf"},
        BadField{R"("response_format":{"type":"json_object"},"regex":"a")", "regex"},
        BadField{R"("bad_words":[" "])", "bad_words"},
        BadField{R"("bad_words":[1])", "bad_words[0]"},
        BadField{R"("allowed_token_ids":[-1])", "allowed_token_ids[0]"},
        BadField{R"("truncate_prompt_tokens":0)", "truncate_prompt_tokens"},
        BadField{R"("truncate_prompt_tokens":"x")", "truncate_prompt_tokens"},
        BadField{R"("prompt_logprobs":21)", "prompt_logprobs"},
        BadField{R"("use_beam_search":1)", "use_beam_search"},
        BadField{R"("length_penalty":2)", "length_penalty"},
        BadField{R"("temperature":-1)", "temperature"}, BadField{R"("n":0)", "n"},
        BadField{R"("logits_processors":["x"])", "logits_processors"}));

TEST(CommonFields, ThatAskForNothingAreAccepted) {
  const std::string fields =
      R"("response_format":{"type":"text"},"echo":false,"use_beam_search":false,"stop":null,
         "guided_json":null,"bad_words":[],"logit_bias":{},"stream_options":null,"seed":null)";
  EXPECT_TRUE(Chat(fields).ok()) << Chat(fields).status();
  EXPECT_TRUE(Completion(fields).ok()) << Completion(fields).status();
}

TEST(ChatRequest, RefusesWhatOnlyChatHas) {
  EXPECT_EQ(Param(Chat(R"("echo":true)").status()), "echo");
  EXPECT_EQ(Param(Chat(R"("logprobs":5)").status()), "logprobs");
  EXPECT_EQ(Param(Chat(R"("top_logprobs":3)").status()), "top_logprobs");
  EXPECT_EQ(Param(Chat(R"("logprobs":true,"top_logprobs":21)").status()), "top_logprobs");
  EXPECT_EQ(Param(Chat(R"("functions":[{"name":"f"}])").status()), "functions");
  EXPECT_EQ(Param(Chat(R"("modalities":["text","audio"])").status()), "modalities");
  EXPECT_EQ(Param(Chat(R"("continue_final_message":true,"add_generation_prompt":true)").status()),
            "continue_final_message");
  EXPECT_EQ(Param(Chat(R"("chat_template_kwargs":3)").status()), "chat_template_kwargs");
  EXPECT_TRUE(Chat(R"("tools":[],"tool_choice":"auto","modalities":["text"])").ok());
  EXPECT_TRUE(Chat(R"("function_call":"none")").ok());
}

TEST(ChatRequest, ContinuesTheLastMessageInsteadOfANewOne) {
  const ChatPrompt plain = Chat("\"n\":1")->prompt;
  EXPECT_TRUE(plain.add_generation_prompt && !plain.continue_final_message);
  const ChatPrompt continued = Chat(R"("continue_final_message":true)")->prompt;
  EXPECT_TRUE(!continued.add_generation_prompt && continued.continue_final_message);
}

// ---- Constraints ----

using Kind = Constraint::Kind;

std::optional<Constraint> ConstraintOf(const std::string& fields) {
  const auto chat = Chat(fields);
  const auto completion = Completion(fields);
  EXPECT_TRUE(chat.ok() && completion.ok()) << chat.status() << completion.status();
  if (!chat.ok() || !completion.ok()) return std::nullopt;
  EXPECT_EQ(chat->options.constraint, completion->options.constraint);
  return chat->options.constraint;
}

TEST(Constraints, AreReadInEverySpelling) {
  const Constraint schema{Kind::kJsonSchema, R"({"type":"array","items":{}})"};
  const std::string text = schema.text;
  for (const std::string& fields :
       {R"("response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,)"
        R"("schema":)" +
            text + "}}",
        "\"structured_outputs\":{\"json\":" + text + "}", "\"guided_json\":" + text,
        "\"guided_json\":" + Json(text).dump(), "\"json_schema\":" + Json(text).dump()}) {
    EXPECT_EQ(ConstraintOf(fields), schema) << fields;
  }
  const Constraint object{Kind::kJsonSchema, R"({"type":"object"})"};
  for (const char* fields :
       {R"("response_format":{"type":"json_object"})",
        R"("response_format":{"type":"json_schema","json_schema":{"name":"n"}})",
        R"("structured_outputs":{"json_object":true})"}) {
    EXPECT_EQ(ConstraintOf(fields), object) << fields;
  }
  const Constraint regex{Kind::kRegex, "a+"};
  for (const char* fields :
       {R"("structured_outputs":{"regex":"a+"})", R"("guided_regex":"a+")", R"("regex":"a+")"}) {
    EXPECT_EQ(ConstraintOf(fields), regex) << fields;
  }
  const Constraint choice = *grammar::OneOf({"a", "b"});
  for (const char* fields :
       {R"("structured_outputs":{"choice":["a","b"]})", R"("guided_choice":["a","b"])"}) {
    EXPECT_EQ(ConstraintOf(fields), choice) << fields;
  }
  const Constraint grammar{Kind::kLark, "start: /a/"};
  for (const char* fields : {R"("structured_outputs":{"grammar":"start: /a/"})",
                             R"("guided_grammar":"start: /a/")", R"("ebnf":"start: /a/")"}) {
    EXPECT_EQ(ConstraintOf(fields), grammar) << fields;
  }
  EXPECT_EQ(ConstraintOf(R"("response_format":{"type":"text"},"structured_outputs":{},)"
                         R"("guided_regex":null)"),
            std::nullopt);
}

// ---- Tools ----

constexpr char kTools[] =
    R"("tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}},)"
    R"({"type":"function","function":{"name":"g","strict":true}}])";

StatusOr<ChatRequest> WithTools(const std::string& fields) {
  return Chat(std::string(kTools) + fields);
}

TEST(Tools, AreReadWithTheChoice) {
  const auto request = WithTools(R"(,"parallel_tool_calls":false)");
  ASSERT_TRUE(request.ok()) << request.status();
  const ToolOptions& tools = request->tools;
  ASSERT_EQ(tools.tools.size(), 2u);
  EXPECT_EQ(tools.tools[0].name, "f");
  EXPECT_FALSE(tools.tools[0].strict);
  EXPECT_TRUE(tools.tools[1].strict);
  EXPECT_EQ(Dump(tools.tools[1].parameters),
            R"({"type":"object","properties":{},"additionalProperties":false})");
  EXPECT_EQ(tools.choice, ToolChoice::kAuto);
  EXPECT_FALSE(tools.parallel);
  EXPECT_EQ(request->prompt.tools.size(), 2u);

  EXPECT_EQ(WithTools(R"(,"tool_choice":"required")")->tools.choice, ToolChoice::kRequired);
  const auto named = WithTools(R"(,"tool_choice":{"type":"function","function":{"name":"g"}})");
  EXPECT_EQ(named->tools.choice, ToolChoice::kNamed);
  EXPECT_EQ(named->tools.named, "g");
}

TEST(Tools, ThatMustNotBeCalledAreNotShown) {
  const auto none = WithTools(R"(,"tool_choice":"none")");
  EXPECT_EQ(none->tools.choice, ToolChoice::kNone);
  EXPECT_TRUE(none->prompt.tools.is_null());
  EXPECT_EQ(Chat(R"("tools":[],"tool_choice":"auto")")->tools.choice, ToolChoice::kNone);
}

TEST(Tools, ThatAreWrongNameTheField) {
  const auto param = [](const std::string& fields) { return Param(Chat(fields).status()); };
  EXPECT_EQ(param(R"("tools":{})"), "tools");
  EXPECT_EQ(param(R"("tools":[1])"), "tools[0]");
  EXPECT_EQ(param(R"("tools":[{"type":"retrieval"}])"), "tools[0].type");
  EXPECT_EQ(param(R"("tools":[{"type":"function"}])"), "tools[0].function");
  EXPECT_EQ(param(R"("tools":[{"type":"function","function":{}}])"), "tools[0].function.name");
  EXPECT_EQ(param(R"("tools":[{"type":"function","function":{"name":"f","parameters":3}}])"),
            "tools[0].function.parameters");
  EXPECT_EQ(param(R"("tools":[{"type":"function","function":{"name":"f",)"
                  R"("parameters":{"type":"string"}}}])"),
            "tools[0].function.parameters.type");
  EXPECT_EQ(param(R"("tools":[{"type":"function","function":{"name":"f"}},)"
                  R"({"type":"function","function":{"name":"f"}}])"),
            "tools[1].function.name");
  EXPECT_EQ(param(R"("tool_choice":"required")"), "tool_choice");
  EXPECT_EQ(param(R"("tool_choice":{"type":"function","function":{"name":"f"}})"), "tool_choice");
  const auto choice = [](const std::string& value) {
    return Param(WithTools(",\"tool_choice\":" + value).status());
  };
  EXPECT_EQ(choice("\"always\""), "tool_choice");
  EXPECT_EQ(choice("3"), "tool_choice");
  EXPECT_EQ(choice(R"({"type":"allowed_tools"})"), "tool_choice");
  EXPECT_EQ(choice(R"({"type":"function","function":{"name":"x"}})"), "tool_choice.function.name");
  EXPECT_EQ(choice(R"({"type":"function","function":{"name":3}})"), "tool_choice.function.name");
  EXPECT_EQ(Param(WithTools(R"(,"parallel_tool_calls":1)").status()), "parallel_tool_calls");
}

TEST(Tools, ThatMustBeCalledLeaveNoOtherConstraint) {
  EXPECT_EQ(Param(WithTools(R"(,"tool_choice":"required","regex":"a")").status()), "regex");
  const auto request =
      WithTools(R"(,"tool_choice":"required","response_format":{"type":"json_object"})");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->options.constraint, std::nullopt);
}

struct BadMessages {
  const char* messages;
  const char* param;
};

class BadMessage : public ::testing::TestWithParam<BadMessages> {};

TEST_P(BadMessage, IsNamedByItsPath) {
  const auto json = ParseJsonObject(std::string(R"({"messages":)") + GetParam().messages + "}");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(Param(ReadBody(*json, &ReadChatRequest).status()), GetParam().param);
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadMessage,
    ::testing::Values(
        BadMessages{"null", "messages"}, BadMessages{"\"hi\"", "messages"},
        BadMessages{"{}", "messages"}, BadMessages{"[]", "messages"},
        BadMessages{"[3]", "messages[0]"}, BadMessages{"[{}]", "messages[0].role"},
        BadMessages{R"([{"role":3,"content":"x"}])", "messages[0].role"},
        BadMessages{R"([{"role":"robot","content":"x"}])", "messages[0].role"},
        BadMessages{R"([{"role":"<|im_end|>","content":"x"}])", "messages[0].role"},
        BadMessages{R"([{"role":"user"}])", "messages[0].content"},
        BadMessages{R"([{"role":"user","content":null}])", "messages[0].content"},
        BadMessages{R"([{"role":"user","content":3}])", "messages[0].content"},
        BadMessages{R"([{"role":"user","content":{"type":"text"}}])", "messages[0].content"},
        BadMessages{R"([{"role":"system","content":"s"},{"role":"user","content":[3]}])",
                    "messages[1].content[0]"},
        BadMessages{R"([{"role":"user","content":[{"text":"x"}]}])", "messages[0].content[0].type"},
        BadMessages{R"([{"role":"user","content":[{"type":"text"}]}])",
                    "messages[0].content[0].text"},
        BadMessages{R"([{"role":"user","content":[{"type":"text","text":1}]}])",
                    "messages[0].content[0].text"},
        BadMessages{
            R"([{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{}}]}])",
            "messages[0].content[1].type"},
        BadMessages{R"([{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}])",
                    "messages[0].content[0].type"},
        BadMessages{R"([{"role":"assistant","tool_calls":3}])", "messages[0].tool_calls"},
        BadMessages{R"([{"role":"assistant","tool_calls":[3]}])", "messages[0].tool_calls[0]"},
        BadMessages{R"([{"role":"assistant","tool_calls":[{"id":"x"}]}])",
                    "messages[0].tool_calls[0].function"},
        BadMessages{R"([{"role":"assistant","tool_calls":[{"function":{}}]}])",
                    "messages[0].tool_calls[0].function.name"},
        BadMessages{
            R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":3}}]}])",
            "messages[0].tool_calls[0].function.arguments"},
        BadMessages{R"([{"role":"assistant","content":"x","reasoning_content":[]}])",
                    "messages[0].reasoning_content"},
        BadMessages{R"([{"role":"tool","tool_call_id":"x"}])", "messages[0].content"}));

TEST(ChatMessages, AreNormalised) {
  const auto json = ParseJsonObject(R"({"messages":[
      {"role":"developer","content":"d"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"n"},
      {"role":"assistant","content":null,"tool_calls":[],"reasoning_content":null}]})");
  const auto request = ReadBody(*json, &ReadChatRequest);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(Dump(request->prompt.messages),
            R"([{"role":"system","content":"d"},{"role":"user","content":"a\nb","name":"n"},)"
            R"({"role":"assistant","content":null}])");
}

TEST(CompletionRequest, TakesEveryShapeOfPrompt) {
  const auto prompts = [](const std::string& prompt) {
    return ReadBody(*ParseJsonObject("{\"prompt\":" + prompt + "}"), &ReadCompletionRequest);
  };
  EXPECT_EQ(prompts(R"("a")")->prompts.items, std::vector<TextOrIds>{TextOrIds("a")});
  EXPECT_EQ(prompts("[1,2]")->prompts.items, (std::vector<TextOrIds>{std::vector<TokenId>{1, 2}}));
  EXPECT_EQ(prompts(R"(["a","b"])")->prompts.items, (std::vector<TextOrIds>{"a", "b"}));
  EXPECT_EQ(prompts("[[1],[2,3]]")->prompts.items,
            (std::vector<TextOrIds>{std::vector<TokenId>{1}, std::vector<TokenId>{2, 3}}));
  EXPECT_FALSE(prompts("[1,2]")->prompts.batch);
  EXPECT_TRUE(prompts("[[1]]")->prompts.batch);
  EXPECT_EQ(Param(prompts("null").status()), "prompt");
  EXPECT_EQ(Param(prompts("[]").status()), "prompt");
  EXPECT_EQ(Param(prompts("{}").status()), "prompt");
  EXPECT_EQ(Param(prompts("3").status()), "prompt");
  EXPECT_EQ(Param(prompts("[true]").status()), "prompt[0]");
  EXPECT_EQ(Param(prompts("[1,\"a\"]").status()), "prompt[1]");
  EXPECT_EQ(Param(prompts("[1,-1]").status()), "prompt[1]");
  EXPECT_EQ(Param(prompts("[1,99999999999]").status()), "prompt[1]");
  EXPECT_EQ(Param(prompts("[\"a\",[1],3]").status()), "prompt[2]");
  EXPECT_EQ(Param(prompts("[[1],[\"x\"]]").status()), "prompt[1][0]");
}

TEST(CompletionRequest, BoundsItsChoices) {
  std::string prompts = "[1]";
  for (int i = 1; i < 100; ++i) prompts += ",[1]";
  const auto parse = [&](int n) {
    return ReadBody(*ParseJsonObject(absl::StrCat("{\"prompt\":[", prompts, "],\"n\":", n, "}")),
                    &ReadCompletionRequest);
  };
  EXPECT_TRUE(parse(20).ok());
  EXPECT_EQ(Param(parse(21).status()), "n");
}

TEST(CompletionRequest, ReadsItsOwnFields) {
  EXPECT_EQ(Completion(R"("logprobs":3)")->options.sampling.logprobs, 3);
  EXPECT_EQ(Completion(R"("logprobs":0)")->options.sampling.logprobs, 0);
  EXPECT_EQ(Param(Completion(R"("logprobs":true)").status()), "logprobs");
  EXPECT_EQ(Param(Completion(R"("logprobs":21)").status()), "logprobs");
  EXPECT_EQ(Completion(R"("suffix":"x")")->suffix, "x");
  EXPECT_EQ(Param(Completion(R"("suffix":"x","echo":true)").status()), "suffix");
  EXPECT_EQ(Completion(R"("best_of":3,"n":2)")->options.best_of, 3);
  EXPECT_EQ(Param(Completion(R"("best_of":1,"n":2)").status()), "best_of");
  EXPECT_EQ(Param(Completion(R"("best_of":3,"n":2,"stream":true)").status()), "best_of");
  EXPECT_TRUE(Completion(R"("best_of":2,"n":2,"stream":true)").ok());
}

TEST(CompletionRequest, EchoAsksAboutThePromptWhereTheAnswerHasLogprobs) {
  const auto asked = [](const std::string& fields) {
    const auto request = Completion(fields);
    return request.ok() ? request->options.prompt_logprobs : -2;
  };
  EXPECT_EQ(asked(R"("echo":true)"), -1);
  EXPECT_EQ(asked(R"("echo":true,"logprobs":3)"), 3);
  EXPECT_EQ(asked(R"("echo":true,"logprobs":3,"prompt_logprobs":5)"), 5);
  EXPECT_EQ(asked(R"("echo":true,"max_tokens":0)"), 0);
  EXPECT_EQ(asked(R"("max_tokens":0,"prompt_logprobs":0)"), 0);
  EXPECT_EQ(asked(R"("max_tokens":0)"), -2);
  EXPECT_EQ(Completion(R"("echo":true,"logprobs":3)")->shown_prompt_logprobs, -1);
}

TEST(CommonFields, AskForBeams) {
  const auto request = Completion(
      R"("use_beam_search":true,"best_of":4,"length_penalty":0.5,"early_stopping":true)");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->options.beam_search && request->options.early_stopping);
  EXPECT_EQ(request->options.length_penalty, 0.5f);
  EXPECT_EQ(request->options.best_of, 4);
}

TEST(TokenizeRequest, TakesTextOrMessages) {
  const auto parse = [](const char* body) {
    const Json json = *ParseJsonObject(body);
    return ReadBody(json, json.contains("messages") ? &ReadTokenizeChat : &ReadTokenizeText);
  };
  EXPECT_TRUE(std::holds_alternative<std::string>(parse(R"({"prompt":"x"})")->prompt));
  EXPECT_TRUE(std::holds_alternative<ChatPrompt>(
      parse(R"({"messages":[{"role":"user","content":"x"}]})")->prompt));
  EXPECT_EQ(Param(parse("{}").status()), "prompt");
  EXPECT_EQ(Param(parse(R"({"prompt":["x"]})").status()), "prompt");
  EXPECT_EQ(Param(ReadBody(*ParseJsonObject("{}"), &ReadDetokenizeRequest).status()), "tokens");
  EXPECT_EQ(
      Param(ReadBody(*ParseJsonObject(R"({"tokens":["a"]})"), &ReadDetokenizeRequest).status()),
      "tokens[0]");
}

}  // namespace
}  // namespace kvasir::api
