#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <utility>

#include "loadgen/conversation.h"
#include "loadgen/http_client.h"
#include "loadgen/loadgen.h"
#include "loadgen/progress.h"
#include "loadgen/protocol.h"
#include "loadgen/workload.h"

namespace kvasir::loadgen {
namespace {

namespace asio = boost::asio;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

// One load, on one thread.
class LoadRun {
 public:
  LoadRun(const Options& options, Url url)
      : options_(options),
        workload_(options),
        client_(io_, std::move(url),
                {.api_key = options.api_key,
                 .timeout = options.request_timeout,
                 .insecure = options.insecure}),
        model_(options.model) {}

  StatusOr<Report> Execute() {
    KVASIR_RETURN_IF_ERROR(FindModel());
    RunClosedLoop(-options_.warmup_conversations, 0);
    if (!records_.empty() && AllFailed()) {
      return absl::UnavailableError("warm-up: " + records_.front().error);
    }
    records_.clear();
    {
      ProgressBar progress(options_.progress, int64_t{options_.conversations} * options_.turns,
                           clock_);
      progress_ = &progress;
      if (options_.rate > 0) {
        RunOpenLoop();
      } else {
        RunClosedLoop(0, options_.conversations);
      }
      progress_ = nullptr;
    }
    return MakeReport(options_, model_, records_);
  }

 private:
  bool AllFailed() const {
    return std::none_of(records_.begin(), records_.end(),
                        [](const RequestRecord& r) { return r.error.empty(); });
  }

  void RunIo() {
    io_.restart();
    io_.run();
  }

  // Also finds out whether there is a server at all.
  Status FindModel() {
    Status status;
    asio::co_spawn(
        io_,
        [this, &status]() -> asio::awaitable<void> {
          StatusOr<std::string> model = co_await FirstModel(client_);
          status = model.status();
          if (model.ok() && model_.empty()) model_ = *model;
        },
        asio::detached);
    RunIo();
    return status;
  }

  // Conversations [next, end), options_.concurrency at a time.
  void RunClosedLoop(int64_t next, int64_t end) {
    const int64_t workers = std::min<int64_t>(std::max(options_.concurrency, 1), end - next);
    for (int64_t i = 0; i < workers; ++i) {
      asio::co_spawn(
          io_,
          [this, &next, end]() -> asio::awaitable<void> {
            while (next < end) co_await Converse(next++);
          },
          asio::detached);
    }
    RunIo();
  }

  void RunOpenLoop() {
    asio::co_spawn(io_, Arrivals(), asio::detached);
    RunIo();
  }

  // Conversations begin when their time comes, however long the others take; past the limit they
  // queue here.
  asio::awaitable<void> Arrivals() {
    asio::steady_timer timer(io_);
    auto due = asio::steady_timer::clock_type::now();
    for (int64_t i = 0; i < options_.conversations; ++i) {
      timer.expires_at(due);
      co_await timer.async_wait(kAwait);
      waiting_.push_back(i);
      StartWaiting();
      due += FromSeconds(workload_.DrawGap(i));
    }
  }

  void StartWaiting() {
    while (!waiting_.empty() && (options_.concurrency == 0 || active_ < options_.concurrency)) {
      const int64_t index = waiting_.front();
      waiting_.pop_front();
      ++active_;
      asio::co_spawn(
          io_,
          [this, index]() -> asio::awaitable<void> {
            co_await Converse(index);
            --active_;
            StartWaiting();
          },
          asio::detached);
    }
  }

  // Ends at the first turn that fails.
  asio::awaitable<void> Converse(int64_t index) {
    const Conversation conversation = workload_.Draw(index);
    ConversationState state(options_, model_, conversation.prefix);
    for (size_t i = 0; i < conversation.turns.size(); ++i) {
      RequestRecord record;
      HttpRequest request = state.NextRequest(conversation.turns[i]);
      StatusOr<CompletionStream::Answer> answer = co_await Ask(std::move(request), record);
      Status status = answer.status();
      if (status.ok() && i + 1 < conversation.turns.size()) status = state.Add(*answer);
      record.error = std::string(status.message());
      records_.push_back(std::move(record));
      if (progress_ != nullptr) progress_->Advance(records_.back().output_tokens);
      if (!status.ok()) break;
    }
  }

  asio::awaitable<StatusOr<CompletionStream::Answer>> Ask(HttpRequest request,
                                                          RequestRecord& record) {
    CompletionStream stream(
        [this, &record](std::string_view) { record.chunks.push_back(clock_.Now()); });
    HttpClient::Sink sink = [&stream](int status, std::string_view bytes) {
      stream.Add(status, bytes);
    };
    record.sent = clock_.Now();
    Status fetched = co_await client_.Fetch(std::move(request), std::move(sink));
    record.ended = clock_.Now();
    if (!fetched.ok()) co_return fetched;
    StatusOr<CompletionStream::Answer> answer = stream.Finish();
    if (answer.ok()) {
      record.input_tokens = answer->input_tokens;
      record.cached_tokens = answer->cached_tokens;
      record.output_tokens = answer->output_tokens;
    }
    co_return answer;
  }

  const Options options_;
  const Workload workload_;
  const SteadyClock clock_;
  asio::io_context io_{1};
  HttpClient client_;
  std::string model_;
  std::vector<RequestRecord> records_;
  ProgressBar* progress_ = nullptr;
  std::deque<int64_t> waiting_;  // conversations that have arrived
  int active_ = 0;
};

}  // namespace

StatusOr<Report> Run(const Options& options) {
  KVASIR_RETURN_IF_ERROR(Validate(options));
  KVASIR_ASSIGN_OR_RETURN(Url url, ParseUrl(options.url));
  return LoadRun(options, std::move(url)).Execute();
}

}  // namespace kvasir::loadgen
