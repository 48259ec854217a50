#include "sim/trace.h"

#include <gtest/gtest.h>

#include <sstream>

namespace kvasir::sim {
namespace {

StatusOr<Trace> Read(const std::string& text) {
  std::istringstream in(text);
  return ReadTrace(in, "t.jsonl", 512);
}

std::string Error(const std::string& text) { return std::string(Read(text).status().message()); }

constexpr char kFirst[] =
    R"({"timestamp": 0, "input_length": 513, "output_length": 3, "hash_ids": [0, 7]})"
    "\n";

TEST(ReadTraceTest, ReadsWhatIsThere) {
  const StatusOr<Trace> trace = Read(
      std::string(kFirst) +
      R"({"timestamp": 1500, "input_length": 512, "output_length": 0, "hash_ids": [0], "x": 1})");
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->requests.size(), 2u);
  EXPECT_EQ(trace->requests[0].input_tokens, 513);
  EXPECT_EQ(trace->requests[0].output_tokens, 3);
  EXPECT_EQ(trace->requests[0].blocks.size(), 2u);
  EXPECT_EQ(trace->requests[1].arrival, TimePoint(std::chrono::milliseconds(1500)));
  EXPECT_EQ(trace->requests[1].blocks[0], trace->requests[0].blocks[0]);
  EXPECT_NE(trace->requests[0].blocks[0], trace->requests[0].blocks[1]);
}

TEST(ReadTraceTest, NamesFileAndLine) {
  EXPECT_EQ(Error(std::string(kFirst) + "{"), "t.jsonl:2: not a JSON object");
  EXPECT_EQ(Error(std::string(kFirst) + "\n"), "t.jsonl:2: not a JSON object");
  EXPECT_EQ(Error(""), "t.jsonl: holds no request");
  EXPECT_EQ(ReadTrace("/nonexistent", 512).status().message(), "/nonexistent: cannot be opened");
}

TEST(ReadTraceTest, RefusesWhatMakesNoSense) {
  EXPECT_EQ(Error(R"({"input_length": 1, "output_length": 1, "hash_ids": [0]})"),
            "t.jsonl:1: timestamp is missing");
  EXPECT_EQ(Error(R"({"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": [0]})"),
            "t.jsonl:1: timestamp must be an integer from 0 to 1099511627776");
  EXPECT_EQ(Error(R"({"timestamp": 0, "input_length": 0, "output_length": 1, "hash_ids": []})"),
            "t.jsonl:1: input_length must be an integer from 1 to 1073741824");
  EXPECT_EQ(Error(R"({"timestamp": 0, "input_length": 1, "output_length": "1", "hash_ids": [0]})"),
            "t.jsonl:1: output_length must be an integer from 0 to 1073741824");
  EXPECT_EQ(Error(R"({"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": 0})"),
            "t.jsonl:1: hash_ids must be an array");
  EXPECT_EQ(Error(R"({"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [0.5]})"),
            "t.jsonl:1: an id of hash_ids must be an integer from 0 to 9223372036854775807");
  EXPECT_EQ(Error(R"({"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [0]})"),
            "t.jsonl:1: 1 hash_ids for 513 tokens in blocks of 512: expected 2");
}

TEST(ReadTraceTest, RefusesLinesThatContradictThoseAbove) {
  const std::string later =
      R"({"timestamp": 5, "input_length": 513, "output_length": 3, "hash_ids": [0, 7]})"
      "\n";
  EXPECT_EQ(Error(later + kFirst), "t.jsonl:2: timestamp is before the one of the line above");
  EXPECT_EQ(Error(kFirst + std::string(R"({"timestamp": 1, "input_length": 513, )"
                                       R"("output_length": 3, "hash_ids": [1, 7]})")),
            "t.jsonl:2: block 7 follows another block than it did before");
}

}  // namespace
}  // namespace kvasir::sim
