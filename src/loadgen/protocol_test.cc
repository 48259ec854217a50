#include "loadgen/protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "loadgen/sse.h"
#include "loadgen/url.h"

namespace kvasir::loadgen {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SseParserTest, TheCutsChangeNothing) {
  const std::string stream =
      ": comment\r\ndata: one\r\n\r\nevent: x\ndata:two\ndata: lines\n\n\n\ndata\n\ndata: \n\n";
  for (size_t size = 1; size <= stream.size(); ++size) {
    std::vector<std::string> events;
    SseParser parser([&events](std::string_view data) { events.emplace_back(data); });
    for (size_t at = 0; at < stream.size(); at += size) {
      ASSERT_TRUE(parser.Add(std::string_view(stream).substr(at, size)).ok());
    }
    ASSERT_THAT(events, ElementsAre("one", "two\nlines", ""));
  }
}

TEST(SseParserTest, AnEventWithoutEndIsAnError) {
  SseParser parser([](std::string_view) {});
  const std::string part(1 << 20, 'x');
  Status status;
  for (int i = 0; i < 20 && status.ok(); ++i) status = parser.Add(part);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
}

StatusOr<CompletionStream::Answer> Feed(int status, std::string_view body,
                                        std::vector<std::string>* pieces = nullptr) {
  CompletionStream stream([pieces](std::string_view text) {
    if (pieces != nullptr) pieces->emplace_back(text);
  });
  stream.Add(status, body);
  return stream.Finish();
}

TEST(CompletionStreamTest, ReadsChatsAndCompletions) {
  std::vector<std::string> pieces;
  const auto chat =
      Feed(200,
           "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
           "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n"
           "data: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\n"
           "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
           "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,"
           "\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n"
           "data: [DONE]\n\n",
           &pieces);
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_THAT(pieces, ElementsAre("Hel", "lo"));
  EXPECT_EQ(chat->text, "Hello");
  EXPECT_EQ(chat->input_tokens, 7);
  EXPECT_EQ(chat->cached_tokens, 4);
  EXPECT_EQ(chat->output_tokens, 3);

  const auto completion =
      Feed(200,
           "data: {\"choices\":[{\"text\":\"a\",\"token_ids\":[1]}]}\n\n"
           "data: {\"choices\":[{\"text\":\"\",\"token_ids\":[2,3]}],\"usage\":null}\n\ndata: "
           "[DONE]\n\n",
           &pieces);
  ASSERT_TRUE(completion.ok());
  EXPECT_THAT(completion->ids, ElementsAre(1, 2, 3));
  EXPECT_EQ(completion->output_tokens, 2) << "pieces, for want of a count";
}

TEST(CompletionStreamTest, ErrorsSayWhatTheServerSaid) {
  const auto message = [](const StatusOr<CompletionStream::Answer>& answer) {
    return std::string(answer.status().message());
  };
  EXPECT_EQ(message(Feed(429, "{\"error\":{\"message\":\"full\"}}")), "HTTP 429: full");
  EXPECT_EQ(message(Feed(500, "oops")), "HTTP 500: oops");
  EXPECT_EQ(message(Feed(200, "data: {\"error\":{\"message\":\"late\"}}\n\ndata: [DONE]\n\n")),
            "HTTP 200: late");
  EXPECT_EQ(message(Feed(200, "data: {\"choices\":[]}\n\n")), "the stream broke off");
  EXPECT_THAT(message(Feed(200, "data: {nonsense\n\ndata: [DONE]\n\n")), HasSubstr("not JSON"));
  EXPECT_FALSE(Feed(200, "").ok());
  // Nothing that is of the wrong type is believed.
  EXPECT_TRUE(Feed(200,
                   "data: 1\n\ndata: {\"choices\":3,\"usage\":[]}\n\n"
                   "data: {\"choices\":[7]}\n\ndata: {\"choices\":[{\"text\":5,\"delta\":6}]}\n\n"
                   "data: [DONE]\n\n")
                  .ok());
}

TEST(UrlTest, TakesAddressesApart) {
  const auto plain = ParseUrl("http://example.org:81/proxy/v1/");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->host, "example.org");
  EXPECT_EQ(plain->port, "81");
  EXPECT_EQ(plain->prefix, "/proxy");
  const auto ipv6 = ParseUrl("[::1]:8000/v1");
  ASSERT_TRUE(ipv6.ok());
  EXPECT_EQ(ipv6->host, "::1");
  EXPECT_EQ(ipv6->Host(), "[::1]:8000");
  EXPECT_EQ(ipv6->prefix, "");
  EXPECT_EQ(ParseUrl("localhost")->port, "80");
  EXPECT_FALSE(plain->secure);
  const auto secure = ParseUrl("https://example.org/v1");
  ASSERT_TRUE(secure.ok());
  EXPECT_TRUE(secure->secure);
  EXPECT_EQ(secure->Origin(), "https://example.org:443");
  EXPECT_EQ(ParseUrl("https://[::1]:8443")->Origin(), "https://[::1]:8443");
  for (const char* bad :
       {"", "http://", "https://", "http://:80", "ftp://x", "h:port", "h:", "[::1", "h:123456"}) {
    EXPECT_FALSE(ParseUrl(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace kvasir::loadgen
