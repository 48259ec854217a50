// A request of this process's own, for ApiServer::Handle: no connection, and whole answers only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "api/http/exchange.h"
#include "api/protocol/error.h"

namespace kvasir::api {

// Runs work in order, one piece at a time; never refuses. Thread-safe.
using Executor = std::function<void(std::function<void()> work)>;

class LocalExchange final : public Exchange {
 public:
  using Done = std::function<void(const HttpResponse& response, const ExchangeRecord& record)>;

  // `done` gets the answer, on the executor. A route that streams makes it an error.
  LocalExchange(HttpRequest request, Executor executor, Done done)
      : request_(std::move(request)), executor_(std::move(executor)), done_(std::move(done)) {}

  const HttpRequest& request() const override { return request_; }
  void SetCaller(std::shared_ptr<const Caller> caller, std::shared_ptr<Visit> visit) override {
    request_.caller = std::move(caller);
    request_.visit = std::move(visit);
  }
  ExchangeRecord& log() override { return record_; }
  void ReleaseBody() override { request_.body = {}; }
  void Post(std::function<void()> work) override { executor_(std::move(work)); }
  void AddHeader(std::string name, std::string value) override {
    headers_.emplace_back(std::move(name), std::move(value));
  }
  void Respond(HttpResponse response) override {
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    done_(response, record_);
  }
  void BeginStream(const HttpResponse&) override {}
  void Write(std::string_view) override {}
  void End() override { Respond(ErrorResponse(400, "stream: is not for a request of a batch")); }
  void OnGone(std::function<void()>) override {}  // it stays to the end

 private:
  HttpRequest request_;
  ExchangeRecord record_;
  const Executor executor_;
  const Done done_;
  std::vector<std::pair<std::string, std::string>> headers_;
};

}  // namespace kvasir::api
