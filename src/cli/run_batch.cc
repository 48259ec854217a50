// `kvasir run-batch`: answers a file of requests, with a model in this process.
#include <fmt/format.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <fstream>
#include <iostream>
#include <mutex>
#include <utility>

#include "api/api_server.h"
#include "api/local_exchange.h"
#include "base/log.h"
#include "cli/batch/batch_file.h"
#include "cli/commands.h"
#include "cli/model_config.h"
#include "loadgen/progress.h"

namespace kvasir::cli {
namespace {

struct RunBatchConfig {
  ModelConfig model;
  std::string input;
  std::string output = "-";
  double request_timeout = 3600;  // s
  std::string log_level = "warn";
};

// Work for the thread that runs the batch: it is the executor of every exchange.
class WorkQueue {
 public:
  void Add(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    work_.push_back(std::move(work));
    ready_.notify_one();
  }

  void RunOne() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return !work_.empty(); });
    const std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> work_;
};

// So that the engine never runs dry.
int32_t MostInFlight(const RunBatchConfig& config) { return 2 * config.model.max_num_seqs; }

struct Tally {
  int64_t answered = 0;
  int64_t failed = 0;  // answers that are errors, and lines that could not be asked
};

// Reads a few lines ahead, and writes each answer when it comes; its custom_id says whose it is.
class BatchRun {
 public:
  BatchRun(api::ApiServer& server, std::istream& in, std::ostream& out,
           const RunBatchConfig& config, loadgen::ProgressBar& progress)
      : server_(server), in_(in), out_(out), most_(MostInFlight(config)), progress_(progress) {}

  Tally Run() {
    std::string line;
    while (std::getline(in_, line)) {
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      while (in_flight_ >= most_) queue_.RunOne();
      Ask(line);
    }
    while (in_flight_ > 0) queue_.RunOne();
    return tally_;
  }

 private:
  void Ask(const std::string& line) {
    const std::string id = fmt::format("batch_req_{}", ++lines_);
    std::string custom_id;
    StatusOr<BatchRequest> request = reader_.Read(line, &custom_id);
    if (!request.ok()) {
      ++tally_.failed;
      return Write(BatchError(id, custom_id, request.status()), 0);
    }
    api::HttpRequest http{.method = "POST", .path = request->url, .body = std::move(request->body)};
    http.arrival = SteadyClock().Now();
    http.id = id;
    ++in_flight_;
    auto exchange = std::make_shared<api::LocalExchange>(
        std::move(http), [this](std::function<void()> work) { queue_.Add(std::move(work)); },
        [this, id, custom_id](const api::HttpResponse& response,
                              const api::ExchangeRecord& record) {
          --in_flight_;
          ++(response.status == 200 ? tally_.answered : tally_.failed);
          Write(BatchAnswer(id, custom_id, response), record.completion_tokens.value_or(0));
        });
    server_.Handle(exchange);
  }

  void Write(const std::string& line, int64_t tokens) {
    out_ << line << '\n' << std::flush;
    progress_.Advance(tokens);
  }

  api::ApiServer& server_;
  std::istream& in_;
  std::ostream& out_;
  const int32_t most_;
  loadgen::ProgressBar& progress_;
  WorkQueue queue_;
  BatchReader reader_;
  int64_t lines_ = 0;
  int32_t in_flight_ = 0;
  Tally tally_;
};

StatusOr<int64_t> CountLines(const std::string& path) {
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(fmt::format("cannot read {}", path));
  int64_t lines = 0;
  for (std::string line; std::getline(in, line);) lines += !line.empty();
  return lines;
}

StatusOr<int> RunBatch(const RunBatchConfig& config) {
  KVASIR_RETURN_IF_ERROR(InitLog(config.log_level));
  KVASIR_ASSIGN_OR_RETURN(const int64_t lines, CountLines(config.input));
  std::ifstream in(config.input);
  std::ofstream file;
  if (config.output != "-") {
    file.open(config.output, std::ios::app);
    if (!file) return absl::NotFoundError(fmt::format("cannot write {}", config.output));
  }
  std::ostream& out = config.output == "-" ? std::cout : file;
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<RunningModel> model, StartModel(config.model));
  api::ApiOptions options{.request_timeout = FromSeconds(config.request_timeout),
                          .max_waiting_texts = static_cast<size_t>(MostInFlight(config)),
                          .pooling = PoolingOf(config.model),
                          .version = KVASIR_VERSION};
  KVASIR_ASSIGN_OR_RETURN(
      const std::unique_ptr<api::ApiServer> server,
      api::ApiServer::Create(*model->engine, model->text(), std::move(options)));
  Tally tally;
  {
    const SteadyClock clock;
    const bool terminal = ::isatty(STDERR_FILENO) == 1;
    loadgen::ProgressBar progress(terminal ? &std::cerr : nullptr, lines, clock);
    tally = BatchRun(*server, in, out, config, progress).Run();
  }
  fmt::print(stderr, "{} answered, {} failed\n", tally.answered, tally.failed);
  if (!out) return absl::DataLossError(fmt::format("cannot write {}", config.output));
  return 0;
}

}  // namespace

std::unique_ptr<Command> RunBatchCommand(CLI::App& program) {
  auto config = std::make_shared<RunBatchConfig>();
  config->model.max_queue = 1 << 16;  // what waits is bounded by what is read ahead
  auto command = std::make_unique<Command>(
      program, "run-batch", "Answer the requests of an OpenAI batch file, without a server.",
      [config] { return RunBatch(*config); });
  command->AddPositional("input", &config->input, "JSON lines: custom_id, method, url, body")
      ->required();
  command->Add("output", &config->output,
               "File that the answers are added to as they come ('-': stdout)");
  command->Add("model", &config->model.model, kModelHelp);
  AddModelOptions(*command, &config->model);
  command->Add("request-timeout", &config->request_timeout, "Seconds until a request is ended")
      ->check(CLI::Range(0.1, 1e6));
  command->Add("log-level", &config->log_level, "trace, debug, info, warn, error or off");
  command->AddConfigFile();
  return command;
}

}  // namespace kvasir::cli
