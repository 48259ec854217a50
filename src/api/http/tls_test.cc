// The server over TLS, with a client that knows its certificate.
#include "api/http/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>

#include "api/http/server.h"
#include "api/testing/http_client.h"
#include "base/testing/tls_identity.h"

namespace kvasir::api {
namespace {

namespace asio = boost::asio;
namespace ssl = asio::ssl;
using kvasir::testing::TlsIdentity;
using ::testing::HasSubstr;
using testing::HttpConnection;
using ::testing::StartsWith;

class TlsClient {
 public:
  TlsClient(uint16_t port, const std::string& authority, int max_version = TLS1_3_VERSION) {
    context_.set_verify_mode(ssl::verify_peer);
    context_.load_verify_file(authority);
    SSL_CTX_set_max_proto_version(context_.native_handle(), max_version);
    // So that an attempt with an old version fails for its version.
    SSL_CTX_set_min_proto_version(context_.native_handle(), TLS1_VERSION);
    SSL_CTX_set_cipher_list(context_.native_handle(), "DEFAULT@SECLEVEL=0");
    stream_.emplace(io_, context_);
    stream_->lowest_layer().connect({asio::ip::make_address("127.0.0.1"), port});
    stream_->handshake(ssl::stream_base::client, error_);
  }

  bool connected() const { return !error_; }
  std::string error() const { return error_.message(); }

  void Send(std::string_view bytes) {
    asio::write(*stream_, asio::buffer(bytes.data(), bytes.size()), error_);
  }

  // Until the server says that nothing follows; empty text is added when it just broke off.
  std::string ReadToEnd() {
    std::string text;
    asio::read(*stream_, asio::dynamic_buffer(text), error_);
    return error_ == asio::error::eof ? text : text + " [" + error_.message() + "]";
  }

  bool ReadUntil(std::string_view text) {
    asio::read_until(*stream_, asio::dynamic_buffer(inbox_), std::string(text), error_);
    if (error_) return false;
    inbox_.erase(0, inbox_.find(text) + text.size());
    return true;
  }

  void Close() { stream_->lowest_layer().close(); }

 private:
  asio::io_context io_;
  ssl::context context_{ssl::context::tls_client};
  std::optional<ssl::stream<asio::ip::tcp::socket>> stream_;
  boost::system::error_code error_;
  std::string inbox_;
};

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() {
    std::filesystem::create_directories(directory_);
    EXPECT_TRUE(identity_.Write(cert_) && identity_.WriteKey(key_));
    options_.port = 0;
    options_.tls_cert = cert_;
    options_.tls_key = key_;
  }
  ~TlsTest() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Start() {
    auto server = HttpServer::Start(options_, [this](const std::shared_ptr<Exchange>& exchange) {
      if (exchange->request().path == "/never") {
        exchange->OnGone([this] { gone_ = true; });
        asked_.set_value();
        return;
      }
      if (exchange->request().path != "/stream") {
        return exchange->Respond({.body = exchange->request().body});
      }
      exchange->BeginStream({});
      for (int i = 0; i < 100; ++i) exchange->Write(std::string(5000, 'x'));
      exchange->End();
    });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  const std::string directory_ = ::testing::TempDir() + "tls_test_" + std::to_string(::getpid());
  const std::string cert_ = directory_ + "/cert.pem";
  const std::string key_ = directory_ + "/key.pem";
  TlsIdentity identity_;
  HttpServerOptions options_;
  std::promise<void> asked_;  // for /never
  std::atomic<bool> gone_{false};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(TlsTest, ServesRequestsAndEndsProperly) {
  Start();
  TlsClient client(server_->port(), cert_);
  ASSERT_TRUE(client.connected()) << client.error();
  const std::string body(100000, 'b');
  client.Send("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + body +
              "GET /stream HTTP/1.1\r\nConnection: close\r\n\r\n");
  const std::string answers = client.ReadToEnd();
  EXPECT_THAT(answers, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answers, HasSubstr(body + "HTTP/1.1 200 OK\r\n"));
  EXPECT_EQ(std::count(answers.begin(), answers.end(), 'x'), 500000);
  EXPECT_TRUE(answers.ends_with("0\r\n\r\n"));
}

// The body may come while "100 Continue" is being written.
TEST_F(TlsTest, ServesWhoDoesNotWaitToContinue) {
  options_.read_timeout = std::chrono::seconds(2);
  Start();
  TlsClient hasty(server_->port(), cert_);
  for (int i = 0; i < 1000; ++i) {
    hasty.Send("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    const TimePoint later = SteadyClock().Now() + std::chrono::microseconds(i / 5);
    while (SteadyClock().Now() < later) {
    }
    hasty.Send("body");
    ASSERT_TRUE(hasty.ReadUntil("\r\n\r\nbody")) << i;
  }
}

TEST_F(TlsTest, NoticesAClientThatLeaves) {
  Start();
  TlsClient client(server_->port(), cert_);
  client.Send("GET /never HTTP/1.1\r\n\r\n");
  asked_.get_future().wait_for(std::chrono::seconds(20));
  client.Close();
  server_->Drain(std::chrono::seconds(20));
  EXPECT_TRUE(gone_);
}

TEST_F(TlsTest, SpeaksNoOldVersion) {
  Start();
  EXPECT_FALSE(TlsClient(server_->port(), cert_, TLS1_1_VERSION).connected());
  EXPECT_TRUE(TlsClient(server_->port(), cert_, TLS1_2_VERSION).connected());
}

TEST_F(TlsTest, TellsAClientThatSpeaksPlainHttp) {
  Start();
  HttpConnection plain(server_->port());
  plain.Request("GET", "/");
  const testing::Reply reply = plain.ReadReply();
  EXPECT_EQ(reply.status, 400);
  EXPECT_THAT(reply.body, HasSubstr("https://"));
  EXPECT_TRUE(plain.AtEnd());
}

TEST_F(TlsTest, EndsWhatIsNoHandshake) {
  options_.tls_handshake_timeout = std::chrono::milliseconds(20);
  Start();
  HttpConnection silent(server_->port());
  EXPECT_TRUE(silent.AtEnd());
  HttpConnection half(server_->port());
  half.Send("\x16\x03\x01\x02");
  EXPECT_TRUE(half.AtEnd());
  HttpConnection garbage(server_->port());
  garbage.Send(std::string(10000, '\xff'));
  EXPECT_TRUE(garbage.AtEnd());
}

TEST_F(TlsTest, ADrainDoesNotWaitForHandshakes) {
  options_.tls_handshake_timeout = std::chrono::hours(1);
  Start();
  HttpConnection silent(server_->port());
  ASSERT_TRUE(TlsClient(server_->port(), cert_).connected());  // accepted after the silent one
  server_->Drain(std::chrono::hours(1));
  EXPECT_TRUE(silent.AtEnd());
}

TEST_F(TlsTest, ReadsItsFilesAgain) {
  Start();
  const TlsIdentity other;
  const std::string authority = directory_ + "/other.pem";
  ASSERT_TRUE(other.Write(authority) && other.Write(cert_));
  EXPECT_THAT(std::string(server_->ReloadTls().message()), HasSubstr("tls-key: " + key_));
  EXPECT_FALSE(TlsClient(server_->port(), authority).connected());
  ASSERT_TRUE(other.WriteKey(key_));
  EXPECT_TRUE(server_->ReloadTls().ok());
  EXPECT_TRUE(TlsClient(server_->port(), authority).connected());
}

TEST_F(TlsTest, NamesTheFileAtFault) {
  const auto error = [](const std::string& cert, const std::string& key) {
    return std::string(LoadTls(cert, key).status().message());
  };
  const std::string garbage = directory_ + "/garbage.pem";
  std::ofstream(garbage) << "garbage";
  EXPECT_EQ(error("/nonexistent", key_), "tls-cert: cannot read /nonexistent");
  EXPECT_EQ(error(cert_, directory_), "tls-key: cannot read " + directory_);
  EXPECT_THAT(error(garbage, key_), StartsWith("tls-cert: " + garbage + ": "));
  EXPECT_THAT(error(cert_, cert_), StartsWith("tls-key: " + cert_ + ": "));
  ASSERT_TRUE(TlsIdentity().WriteKey(key_));
  EXPECT_THAT(error(cert_, key_), StartsWith("tls-key: " + key_ + ": key values mismatch"));
  options_.tls_key = "";
  EXPECT_EQ(HttpServer::Start(options_, nullptr).status().message(),
            "tls-cert and tls-key: give both or neither");
}

}  // namespace
}  // namespace kvasir::api
