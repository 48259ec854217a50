// Loads and chats over TLS, against a server of the test's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "base/testing/tls_identity.h"
#include "loadgen/chat_client.h"
#include "loadgen/loadgen.h"
#include "loadgen/testing/tiny_server.h"

namespace kvasir::loadgen {
namespace {

using kvasir::testing::TlsIdentity;
using testing::Answer;
using testing::EventStream;
using ::testing::HasSubstr;
using testing::TinyServer;

std::vector<std::string> Reply(const TinyServer::Request& request) {
  if (request.Path() == "/v1/models") return {Answer("200 OK", testing::kModels)};
  return EventStream({R"({"choices": [{"text": "safe"}]})",
                      R"({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})"});
}

class HttpsTest : public ::testing::Test {
 protected:
  ~HttpsTest() override { ::unsetenv("SSL_CERT_FILE"); }

  // As if the machine's administrator had installed the certificate.
  void Trust() {
    const std::string path = ::testing::TempDir() + "https_test_authorities.pem";
    ASSERT_TRUE(identity_.Write(path));
    ::setenv("SSL_CERT_FILE", path.c_str(), /*overwrite=*/1);
  }

  StatusOr<Report> Load(const std::string& url, bool insecure = false) {
    return loadgen::Run({.url = url,
                         .insecure = insecure,
                         .conversations = 5,
                         .input_length = 3,
                         .output_length = 1,
                         .concurrency = 1});
  }

  void ExpectAllAnswered(const StatusOr<Report>& report) {
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->succeeded, 5);
    EXPECT_EQ(report->output_tokens, 5);
    EXPECT_EQ(server_.connections(), 1u);  // kept, as with http
  }

  TlsIdentity identity_;
  TinyServer server_{Reply, identity_.server_context()};
};

TEST_F(HttpsTest, RefusesACertificateThatNobodyVouchesFor) {
  const auto report = Load(server_.url());
  EXPECT_EQ(report.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("self-signed certificate"));
  EXPECT_TRUE(server_.requests().empty());
}

TEST_F(HttpsTest, TakesACertificateThatTheSystemTrusts) {
  Trust();
  ExpectAllAnswered(Load(server_.url()));
}

TEST_F(HttpsTest, RefusesATrustedCertificateOfAnotherHost) {
  Trust();
  const auto report = Load(server_.UrlOf("localhost"));
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("hostname mismatch"));
  EXPECT_TRUE(server_.requests().empty());
}

TEST_F(HttpsTest, TakesAnyCertificateWhenTold) {
  ExpectAllAnswered(Load(server_.url(), /*insecure=*/true));
}

TEST_F(HttpsTest, ChatsToo) {
  std::istringstream in("hello\n");
  std::ostringstream out;
  EXPECT_EQ(RunChat({.url = server_.url()}, in, out), 1);
  EXPECT_EQ(RunChat({.url = server_.url(), .insecure = true}, in, out), 0);
  EXPECT_THAT(out.str(), HasSubstr("> safe\n"));
}

}  // namespace
}  // namespace kvasir::loadgen
