#include "text/json_scanner.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace kvasir::text {
namespace {

using Step = JsonScanner::Step;

// Where the value at the beginning of `text` ends, or -1.
int End(std::string_view text) {
  JsonScanner scanner;
  for (size_t i = 0; i < text.size(); ++i) {
    const Step step = scanner.Add(text[i]);
    if (step == Step::kBad) return -1;
    if (step == Step::kEnd) return static_cast<int>(i) + 1;
    if (step == Step::kEndBefore) return static_cast<int>(i);
  }
  return -1;
}

TEST(JsonScanner, FindsTheEndOfAValue) {
  EXPECT_EQ(End(R"({"a": [1, {"b": "}"}], "c": null} rest)"), 33);
  EXPECT_EQ(End(R"("a\"b\\" x)"), 8);
  EXPECT_EQ(End("true!"), 4);
  EXPECT_EQ(End("-1.5e+3,"), 7);
  EXPECT_EQ(End(" 0}"), 2);
  EXPECT_EQ(End("[]"), 2);
  EXPECT_EQ(End("{}"), 2);
}

TEST(JsonScanner, RefusesWhatIsNoJson) {
  for (const char* text : {"}", "{a", "{\"a\"}", "[1,]", "{\"a\":1,}", "[1 2]", "01", "+1", "1.x",
                           "tru ", "\"\n\"", "\"\\x\"", "\"\\u12g4\"", "[}", "{\"a\":]", "'a'"}) {
    EXPECT_EQ(End(text), -1) << text;
  }
  EXPECT_NE(End(std::string(64, '[') + std::string(64, ']')), -1);
  EXPECT_EQ(End(std::string(65, '[') + std::string(65, ']')), -1);
}

TEST(JsonScanner, AgreesWithAParser) {
  constexpr std::string_view kAlphabet = "{}[],:\"\"\\u0019.-+eE tfn\n";
  std::mt19937 random(7);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = R"({"a":[1.5e2,"\u00e9",-0,true],"b":{"c":null,"d":[]}})";
    for (int edits = static_cast<int>(random() % 4); edits > 0; --edits) {
      text[random() % text.size()] = kAlphabet[random() % kAlphabet.size()];
    }
    const bool valid = nlohmann::json::accept(text);
    EXPECT_EQ(End(text) == static_cast<int>(text.size()), valid) << text;
    accepted += valid;
  }
  EXPECT_GT(accepted, 4000);
}

}  // namespace
}  // namespace kvasir::text
