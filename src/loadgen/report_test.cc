#include "loadgen/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvasir::loadgen {
namespace {

using ::testing::HasSubstr;

TimePoint At(double ms) { return TimePoint(FromSeconds(ms / 1000)); }

// Sent at `sent`, with output at each of `chunks`, all in ms.
RequestRecord Record(double sent, std::vector<double> chunks) {
  RequestRecord record{.sent = At(sent)};
  for (const double ms : chunks) record.chunks.push_back(At(ms));
  record.ended = At(chunks.empty() ? sent + 1 : chunks.back() + 1);
  record.input_tokens = 10;
  record.output_tokens = static_cast<int64_t>(chunks.size());
  return record;
}

TEST(ReportTest, MeasuresWhatItSaysItDoes) {
  RequestRecord first = Record(0, {100, 110, 130});
  first.cached_tokens = 4;
  const RequestRecord second = Record(50, {250, 350});
  RequestRecord failed = Record(400, {});
  failed.ended = At(2000);
  failed.error = "HTTP 429: full";
  const Report report =
      MakeReport({.slo_ttft_ms = 150, .slo_tpot_ms = 20}, "tiny", {first, second, failed});
  EXPECT_EQ(report.succeeded, 2);
  EXPECT_EQ(report.failed, 1);
  EXPECT_EQ(report.errors.at("HTTP 429: full"), 1);
  EXPECT_DOUBLE_EQ(report.duration_s, 2);
  EXPECT_EQ(report.input_tokens, 20);
  EXPECT_EQ(report.cached_tokens, 4);
  EXPECT_EQ(report.output_tokens, 5);
  EXPECT_DOUBLE_EQ(report.output_rate, 2.5);
  EXPECT_DOUBLE_EQ(report.ttft.mean, 150);   // 100 and 200
  EXPECT_DOUBLE_EQ(report.tpot.mean, 57.5);  // 30 / 2 and 100 / 1
  EXPECT_EQ(report.itl.count, 3u);           // 10, 20, 100
  EXPECT_DOUBLE_EQ(report.itl.p50, 20);
  EXPECT_DOUBLE_EQ(report.e2e.max, 301);
  EXPECT_EQ(report.good, 1);
  EXPECT_DOUBLE_EQ(report.goodput, 0.5);
}

TEST(ReportTest, ABoundOfZeroIsNone) {
  const std::vector<RequestRecord> records = {Record(0, {5000, 9000})};
  EXPECT_EQ(MakeReport({.slo_ttft_ms = 0, .slo_tpot_ms = 0}, "", records).good, 1);
  EXPECT_EQ(MakeReport({.slo_ttft_ms = 0, .slo_tpot_ms = 1}, "", records).good, 0);
}

TEST(ReportTest, RequestsWithOneOutputOrNoneHaveNoTpot) {
  const Report report = MakeReport({}, "", {Record(0, {10}), Record(0, {})});
  EXPECT_EQ(report.ttft.count, 1u);
  EXPECT_EQ(report.tpot.count, 0u);
  EXPECT_EQ(report.e2e.count, 2u);
  EXPECT_EQ(report.good, 1);
}

TEST(ReportTest, PrintsAsTableAndJson) {
  const Report report = MakeReport({.url = "http://h:1"}, "tiny", {Record(0, {100, 120})});
  const std::string table = FormatTable(report);
  EXPECT_THAT(table, HasSubstr("tiny at http://h:1"));
  EXPECT_THAT(table, HasSubstr("1 ok, 0 failed"));
  EXPECT_THAT(table, HasSubstr("TTFT            100.00"));
  const nlohmann::json json = ToJson(report);
  EXPECT_EQ(json["ttft_ms"]["p99"], 100);
  EXPECT_EQ(json["output_tokens"], 2);
  EXPECT_EQ(json["options"]["prompts"], "ids");
  EXPECT_FALSE(FormatTable(MakeReport({}, "", {})).empty());
}

}  // namespace
}  // namespace kvasir::loadgen
