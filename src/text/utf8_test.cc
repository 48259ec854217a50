#include "text/utf8.h"

#include <gtest/gtest.h>

#include <random>

namespace kvasir::text {
namespace {

std::string Repaired(std::string_view bytes, std::mt19937& random) {
  Utf8Repair repair;
  std::string out;
  while (!bytes.empty()) {
    const size_t size = std::uniform_int_distribution<size_t>(0, bytes.size())(random);
    const std::string piece = repair.Add(bytes.substr(0, size));
    EXPECT_TRUE(IsValidUtf8(piece));
    out += piece;
    bytes.remove_prefix(size);
  }
  return out + repair.Flush();
}

TEST(Utf8Test, EveryCodePointSurvivesARoundTrip) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string bytes;
    AppendUtf8(c, bytes);
    const Utf8Sequence sequence = FirstSequence(bytes);
    ASSERT_EQ(sequence.kind, Utf8Sequence::kValid) << static_cast<uint32_t>(c);
    ASSERT_EQ(sequence.code_point, c);
    ASSERT_EQ(static_cast<size_t>(sequence.length), bytes.size());
  }
}

TEST(Utf8Test, RejectsWhatUnicodeRejects) {
  for (const std::string_view bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82"}) {
    EXPECT_FALSE(IsValidUtf8(bad));
  }
  EXPECT_TRUE(IsValidUtf8(std::string_view("a\0ä€😀", 11)));
}

// The examples of the Unicode standard, section 3.9.
TEST(Utf8Test, ReplacesMaximalSubparts) {
  std::mt19937 random(1);
  EXPECT_EQ(Repaired("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", random),
            "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
  EXPECT_EQ(Repaired("\xED\xA0\x80", random), "\uFFFD\uFFFD\uFFFD");
}

TEST(Utf8RepairTest, TheCutsChangeNothing) {
  std::mt19937 random(2);
  constexpr std::string_view kBytes = "ab\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\xFF\xC0\xED\xA0";
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (int i = 0; i < 12; ++i) bytes += kBytes[random() % kBytes.size()];
    Utf8Repair whole;
    std::string expected = whole.Add(bytes);
    expected += whole.Flush();
    EXPECT_EQ(Repaired(bytes, random), expected);
  }
}

TEST(Utf8RepairTest, HoldsASequenceBackUntilItIsWhole) {
  Utf8Repair repair;
  EXPECT_EQ(repair.Add("a\xF0\x9F"), "a");
  EXPECT_EQ(repair.Add("\x98"), "");
  EXPECT_EQ(repair.Add("\x80"), "😀");
  EXPECT_EQ(repair.Add("\xE2\x82"), "");
  EXPECT_EQ(repair.Flush(), "\uFFFD");
  EXPECT_EQ(repair.Flush(), "");
}

}  // namespace
}  // namespace kvasir::text
