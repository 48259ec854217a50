// A server over a FakeEngine and a toy vocabulary, for tests.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string_view>

#include "api/api_server.h"
#include "api/testing/fake_engine.h"
#include "api/testing/http_client.h"
#include "api/testing/toy_text.h"

namespace kvasir::api::testing {

class ServerFixture : public ::testing::Test {
 protected:
  ServerFixture() {
    options_.http.port = 0;
    options_.version = "1.2.3";
  }

  void Start() {
    auto server = ApiServer::Start(engine_, text_, options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  Reply Post(std::string_view path, std::string_view body, std::string_view headers = "") {
    return Call(server_->port(), "POST", path, body, headers);
  }
  Reply Get(std::string_view path, std::string_view headers = "") {
    return Call(server_->port(), "GET", path, "", headers);
  }

  FakeEngine engine_;
  ToyTokenizer tokenizer_;
  ToyChatTemplate chat_template_;
  ServedText text_{&tokenizer_, &chat_template_};
  ApiOptions options_;
  std::unique_ptr<ApiServer> server_;
};

}  // namespace kvasir::api::testing
