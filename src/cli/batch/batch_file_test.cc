#include "cli/batch/batch_file.h"

#include <gtest/gtest.h>

#include "api/protocol/error.h"
#include "api/protocol/json.h"

namespace kvasir::cli {
namespace {

TEST(BatchReader, ReadsARequest) {
  BatchReader reader;
  std::string id;
  const auto request = reader.Read(
      R"({"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x"}})", &id);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(id, "a");
  EXPECT_EQ(request->url, "/v1/completions");
  EXPECT_EQ(request->body, R"({"prompt":"x"})");
}

TEST(BatchReader, NamesWhatIsWrong) {
  const auto error = [](const std::string& line) {
    BatchReader reader;
    std::string id;
    return std::string(reader.Read(line, &id).status().message());
  };
  const std::string rest = R"("url":"/v1/completions","body":{}})";
  EXPECT_EQ(error("{").substr(0, 26), "the body is not valid JSON");
  EXPECT_EQ(error(R"({"method":"POST",)" + rest), "custom_id: is required");
  EXPECT_EQ(error(R"({"custom_id":"a","method":"GET",)" + rest), "method: must be POST");
  EXPECT_EQ(error(R"({"custom_id":"a","method":"POST","url":"/metrics","body":{}})"),
            "url: is none that a batch may ask");
  EXPECT_EQ(error(R"({"custom_id":"a","method":"POST","url":"/v1/completions","body":"x"})"),
            "body: must be an object, not a string");
  EXPECT_EQ(error(R"({"custom_id":"a","method":"POST","url":"/v1/completions",)"
                  R"("body":{"stream":true}})"),
            "body.stream: is not for a request of a batch");
}

TEST(BatchReader, TakesACustomIdOnce) {
  BatchReader reader;
  std::string id;
  const std::string line = R"({"custom_id":"a","method":"POST","url":"/v1/completions","body":{}})";
  EXPECT_TRUE(reader.Read(line, &id).ok());
  EXPECT_EQ(reader.Read(line, &id).status().message(), "custom_id: is that of an earlier line");
}

TEST(BatchAnswer, HoldsTheAnswerOrTheError) {
  const auto answer = api::Json::parse(BatchAnswer("r1", "a", {.body = R"({"x":1})"}));
  EXPECT_EQ(answer["custom_id"], "a");
  EXPECT_EQ(answer["response"]["status_code"], 200);
  EXPECT_EQ(answer["response"]["body"]["x"], 1);
  EXPECT_TRUE(answer["error"].is_null());
  const auto error =
      api::Json::parse(BatchError("r2", "", absl::InvalidArgumentError("url: is required")));
  EXPECT_TRUE(error["custom_id"].is_null() && error["response"].is_null());
  EXPECT_EQ(error["error"]["message"], "url: is required");
}

}  // namespace
}  // namespace kvasir::cli
