#include "loadgen/chat_client.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <nlohmann/json.hpp>
#include <utility>

#include "loadgen/http_client.h"
#include "loadgen/protocol.h"

namespace kvasir::loadgen {
namespace {

namespace asio = boost::asio;
using nlohmann::json;

constexpr Duration kTimeout = std::chrono::hours(1);

// A model must not steer the terminal: control characters but newline and tab are left out.
std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 ? byte != 0x7f : c == '\n' || c == '\t') out += c;
  }
  return out;
}

class Chat {
 public:
  Chat(const ChatOptions& options, Url url, std::ostream& out)
      : options_(options),
        client_(io_, std::move(url),
                {.api_key = options.api_key, .timeout = kTimeout, .insecure = options.insecure}),
        out_(out),
        model_(options.model) {
    Reset();
  }

  Status Open() {
    Status status;
    Run([this, &status]() -> asio::awaitable<void> {
      StatusOr<std::string> model = co_await FirstModel(client_);
      status = model.status();
      if (model.ok() && model_.empty()) model_ = *model;
    });
    return status;
  }

  const std::string& model() const { return model_; }

  void Reset() {
    messages_ = json::array();
    if (!options_.system_prompt.empty()) {
      messages_.push_back({{"role", "system"}, {"content", options_.system_prompt}});
    }
  }

  void Ask(const std::string& question) {
    messages_.push_back({{"role", "user"}, {"content", question}});
    StatusOr<CompletionStream::Answer> answer = absl::InternalError("no answer");
    Run([this, &answer]() -> asio::awaitable<void> {
      CompletionStream stream(
          [this](std::string_view text) { out_ << Printable(text) << std::flush; });
      HttpRequest request = Request();
      HttpClient::Sink sink = [&stream](int status, std::string_view bytes) {
        stream.Add(status, bytes);
      };
      Status fetched = co_await client_.Fetch(std::move(request), std::move(sink));
      if (fetched.ok()) {
        answer = stream.Finish();
      } else {
        answer = fetched;
      }
    });
    out_ << '\n';
    if (answer.ok()) {
      messages_.push_back({{"role", "assistant"}, {"content", answer->text}});
    } else {
      out_ << "error: " << Printable(std::string(answer.status().message())) << '\n';
      messages_.erase(messages_.size() - 1);
    }
  }

 private:
  template <typename Coroutine>
  void Run(Coroutine coroutine) {
    asio::co_spawn(io_, std::move(coroutine), asio::detached);
    io_.restart();
    io_.run();
  }

  HttpRequest Request() const {
    json body = {{"messages", messages_}, {"stream", true}};
    if (!model_.empty()) body["model"] = model_;
    if (options_.max_tokens > 0) body["max_tokens"] = options_.max_tokens;
    if (options_.temperature >= 0) body["temperature"] = options_.temperature;
    // A terminal may hand over bytes that are no UTF-8.
    return {.method = "POST",
            .path = "/v1/chat/completions",
            .body = body.dump(-1, ' ', false, json::error_handler_t::replace)};
  }

  const ChatOptions options_;
  asio::io_context io_{1};
  HttpClient client_;
  std::ostream& out_;
  std::string model_;
  json messages_;
};

}  // namespace

int RunChat(const ChatOptions& options, std::istream& in, std::ostream& out) {
  StatusOr<Url> url = ParseUrl(options.url);
  if (!url.ok()) {
    out << url.status().message() << '\n';
    return 1;
  }
  Chat chat(options, *std::move(url), out);
  if (const Status opened = chat.Open(); !opened.ok()) {
    out << opened.message() << '\n';
    return 1;
  }
  out << "Chat with " << (chat.model().empty() ? "the server's model" : chat.model())
      << ". /reset starts anew, /quit ends.\n";
  std::string line;
  while (out << "> " << std::flush, std::getline(in, line)) {
    if (line == "/quit") return 0;
    if (line == "/reset") {
      chat.Reset();
    } else if (!line.empty()) {
      chat.Ask(line);
    }
  }
  out << '\n';
  return 0;
}

}  // namespace kvasir::loadgen
