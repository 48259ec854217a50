// What a client may send on a connection: through the parser and its limits, the router and the
// parsers of the protocol. The first byte says in what pieces the rest arrives.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "api/http/access_log.h"
#include "api/http/request_parser.h"
#include "api/http/router.h"
#include "api/http/trace.h"
#include "api/protocol/embedding_request.h"
#include "api/protocol/error.h"
#include "api/protocol/fields.h"
#include "api/protocol/messages_api.h"
#include "api/protocol/ollama_api.h"
#include "api/protocol/request.h"
#include "api/protocol/responses_api.h"
#include "api/protocol/sglang_api.h"
#include "views.h"

namespace kvasir::fuzz {
namespace {

using namespace kvasir::api;

constexpr size_t kMaxBody = 4096;

// Takes one answer, and answers at once.
class OneAnswer final : public Exchange {
 public:
  explicit OneAnswer(HttpRequest request) : request_(std::move(request)) {
    request_.id = RequestId(request_);
    request_.trace = Trace(request_);
  }

  const HttpRequest& request() const override { return request_; }
  void SetCaller(std::shared_ptr<const Caller>, std::shared_ptr<Visit>) override {}
  ExchangeRecord& log() override { return record_; }
  void ReleaseBody() override {}
  void Post(std::function<void()> work) override { work(); }
  void AddHeader(std::string, std::string) override {}
  void Respond(HttpResponse response) override {
    Require(record_.status == 0 && response.status >= 200 && response.status < 500);
    record_.status = response.status;
    if (response.status >= 400) Require(ParseJsonObject(response.body).ok());
  }
  void BeginStream(const HttpResponse&) override { Require(false); }
  void Write(std::string_view) override { Require(false); }
  void End() override { Require(false); }
  void OnGone(std::function<void()>) override {}

 private:
  HttpRequest request_;
  ExchangeRecord record_;
};

template <auto kRead>
void Answer(const std::shared_ptr<Exchange>& exchange) {
  const StatusOr<Json> json = ParseJsonObject(exchange->request().body);
  const Status status = json.ok() ? ReadBody(*json, kRead).status() : json.status();
  exchange->Respond(status.ok() ? HttpResponse{} : ErrorResponse(status));
}

const Router& TheRouter() {
  static const Router* router = [] {
    auto* made = new Router({.allowed_origins = {"http://a"}});
    const auto post = [&](const char* path, Handler handler) {
      made->Add("POST", path, Access::kKey, std::move(handler));
    };
    post("/v1/chat/completions", &Answer<&ReadChatRequest>);
    post("/v1/completions", &Answer<&ReadCompletionRequest>);
    post("/v1/responses", &Answer<&ReadResponsesRequest>);
    post("/v1/messages", &Answer<&ReadMessagesRequest>);
    post("/v1/embeddings", &Answer<&ReadEmbeddingRequest>);
    post("/v1/rerank", &Answer<&ReadRerankRequest>);
    post("/v1/score", &Answer<&ReadScoreRequest>);
    post("/api/chat", &Answer<&ReadOllamaChat>);
    post("/api/generate", &Answer<&ReadOllamaGenerate>);
    post("/generate", &Answer<&ReadSglangRequest>);
    post("/tokenize", &Answer<&ReadTokenizeText>);
    post("/tokenize/chat", &Answer<&ReadTokenizeChat>);
    post("/detokenize", &Answer<&ReadDetokenizeRequest>);
    made->Add("GET", "/v1/models/*", Access::kKey, [](const auto& e) { e->Respond({}); });
    return made;
  }();
  return *router;
}

void Serve(HttpRequest request) {
  const auto exchange = std::make_shared<OneAnswer>(std::move(request));
  const HttpRequest& served = exchange->request();
  Require(!served.id.empty() && served.id.size() <= 128);
  Require(ParseTraceParent(TraceParentHeader(served.trace)).has_value());
  TheRouter().Handle(exchange);
  Require(exchange->log().status != 0);
  const std::string line = AccessLogLine(served, exchange->log(), {});
  Require(ParseJsonObject(line).ok() && line.find('\n') == std::string::npos);
}

std::string Spell(const HttpRequest& request) {
  std::string text = request.method + ' ' + request.path + ' ' + request.query + '\n';
  for (const auto& [name, value] : request.headers) text += name + ": " + value + '\n';
  return text + '\n' + request.body;
}

// The requests that a connection reads, as Connection::ReadRequest() does, up to an error. (How
// soon an error is seen depends on the pieces; which requests are read must not.)
std::vector<std::string> Read(std::string_view bytes, size_t piece, bool serve) {
  const HttpServerOptions options{.max_header_bytes = 1024, .max_body_bytes = kMaxBody};
  std::vector<std::string> out;
  std::string inbox;
  for (;;) {
    RequestParser parser(options);
    for (;;) {
      const size_t taken = parser.Put(inbox);
      Require(taken <= inbox.size());
      inbox.erase(0, taken);
      Require(parser.body_size() <= kMaxBody);
      if (parser.error()) {
        Require(parser.error()->status >= 400 && parser.error()->status < 500);
        Spell(parser.Release());
        return out;
      }
      if (parser.done()) break;
      if (bytes.empty()) return out;
      inbox += bytes.substr(0, piece);
      bytes.remove_prefix(std::min(piece, bytes.size()));
    }
    const bool keep_alive = parser.keep_alive();
    HttpRequest request = parser.Release();
    out.push_back(Spell(request));
    if (serve) Serve(std::move(request));
    if (!keep_alive) return out;
  }
}

}  // namespace
}  // namespace kvasir::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir::fuzz;
  if (size < 2) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::vector<std::string> whole = Read(bytes, bytes.size(), /*serve=*/true);
  Require(Read(bytes, 1 + data[0], /*serve=*/false) == whole);
  return 0;
}
