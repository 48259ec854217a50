#include "api/http/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvasir::api {
namespace {

using ::testing::MatchesRegex;

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kParent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

HttpRequest With(std::vector<std::pair<std::string, std::string>> headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  return request;
}

TEST(RequestIdTest, TakesASaneOne) {
  for (const std::string& id : {std::string("a"), std::string("req-1/~!"), std::string(128, 'x')}) {
    EXPECT_EQ(RequestId(With({{"x-request-id", id}})), id);
  }
}

TEST(RequestIdTest, ReplacesAnother) {
  for (const std::string& id : {std::string(), std::string("a b"), std::string("a\tb"),
                                std::string("\xc3\xa9"), std::string(129, 'x')}) {
    EXPECT_THAT(RequestId(With({{"X-Request-Id", id}})), MatchesRegex("[0-9a-f]{32}"));
  }
  EXPECT_NE(RequestId({}), RequestId({}));
}

TEST(TraceTest, GoesOnWithTheCallersTrace) {
  const TraceContext trace = Trace(With({{"Traceparent", kParent}, {"tracestate", "a=1,b=2"}}));
  EXPECT_EQ(trace.trace_id, kTrace);
  EXPECT_EQ(trace.parent_id, "00f067aa0ba902b7");
  EXPECT_EQ(trace.state, "a=1,b=2");
  EXPECT_THAT(TraceParentHeader(trace),
              MatchesRegex("00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01"));
  EXPECT_NE(trace.span_id, trace.parent_id);
}

TEST(TraceTest, BeginsAnotherWithoutAValidOne) {
  const std::string parent = kParent;
  for (const std::string& bad :
       {std::string(), std::string("00"), parent.substr(0, 54), parent + "0", parent + "-00",
        "ff" + parent.substr(2), "0G" + parent.substr(2), "cc" + parent.substr(2) + ".",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736" + parent.substr(35),
        "00-" + std::string(32, '0') + parent.substr(35),
        parent.substr(0, 36) + std::string(16, '0') + "-01", parent.substr(0, 53) + "0x",
        parent.substr(0, 2) + "_" + parent.substr(3)}) {
    EXPECT_FALSE(ParseTraceParent(bad)) << bad;
    const TraceContext trace = Trace(With({{"traceparent", bad}, {"tracestate", "a=1"}}));
    EXPECT_THAT(trace.trace_id, MatchesRegex("[0-9a-f]{32}"));
    EXPECT_NE(trace.trace_id, kTrace);
    EXPECT_EQ(trace.parent_id, "");
    EXPECT_EQ(trace.flags, "00");
    EXPECT_EQ(trace.state, "");
  }
  EXPECT_NE(Trace(With({{"traceparent", kParent}, {"traceparent", kParent}})).trace_id, kTrace);
}

TEST(TraceTest, ReadsLaterVersionsByTheRulesOfTheFirst) {
  const std::string rest = std::string(kParent).substr(2);
  EXPECT_EQ(ParseTraceParent("cc" + rest)->trace_id, kTrace);
  EXPECT_EQ(ParseTraceParent("cc" + rest + "-what-the-future-brings")->flags, "01");
}

TEST(TraceTest, PassesDefinedFlagsOnly) {
  const std::string start = std::string(kParent).substr(0, 53);
  EXPECT_EQ(ParseTraceParent(start + "00")->flags, "00");
  EXPECT_EQ(ParseTraceParent(start + "03")->flags, "03");
  EXPECT_EQ(ParseTraceParent(start + "fd")->flags, "01");
}

TEST(TraceTest, JoinsStatesAndDropsLongOnes) {
  const auto state = [](std::vector<std::pair<std::string, std::string>> headers) {
    headers.emplace_back("traceparent", kParent);
    return Trace(With(std::move(headers))).state;
  };
  EXPECT_EQ(state({{"tracestate", "a=1"}, {"Tracestate", ""}, {"tracestate", "b=2"}}), "a=1,b=2");
  EXPECT_EQ(state({{"tracestate", std::string(512, 'a')}}), std::string(512, 'a'));
  EXPECT_EQ(state({{"tracestate", std::string(513, 'a')}}), "");
  EXPECT_EQ(state({{"tracestate", "a=\x01"}}), "");
}

}  // namespace
}  // namespace kvasir::api
