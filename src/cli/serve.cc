#include "cli/serve.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "api/access/keys_file.h"
#include "api/api_server.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/cache_dir.h"
#include "cli/commands.h"
#include "cli/hub/pull.h"
#include "cli/served_model.h"
#include "cli/signals.h"
#include "engine/local_engine.h"
#include "text/output_format.h"

namespace kvasir::cli {
namespace {

constexpr int kMany = 1 << 20;
constexpr std::string_view kHubPrefix = "hf:";

StatusOr<std::string> ModelPath(const std::string& model) {
  if (model.starts_with(kHubPrefix)) {
    KVASIR_ASSIGN_OR_RETURN(const std::filesystem::path path,
                            PullModel(std::string_view(model).substr(kHubPrefix.size())));
    return path.string();
  }
  if (model != "default") return model;
  const std::filesystem::path path = DefaultModelPath();
  if (std::filesystem::exists(path)) return path.string();
  return absl::NotFoundError(
      fmt::format("the default model is not at {}: scripts/fetch_default_model.sh fetches it, "
                  "and so does make serve",
                  path.string()));
}

StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) return absl::NotFoundError(fmt::format("cannot read {}", path));
  return std::move(text).str();
}

StatusOr<ModelOptions> MakeModelOptions(const ServeConfig& config) {
  ModelOptions options{.max_model_len = config.max_model_len,
                       .block_size = config.block_size,
                       .kv_cache_bytes = config.kv_cache_memory,
                       .max_batch_tokens = config.max_num_batched_tokens,
                       .threads = config.threads,
                       .isa = config.isa,
                       .activations = config.activations,
                       .kv_dtype = config.kv_cache_dtype,
                       .skip_tokenizer = config.skip_tokenizer_init,
                       .tool_call_parser = config.tool_call_parser,
                       .reasoning_parser = config.reasoning_parser,
                       .served_model_name = config.served_model_name};
  KVASIR_ASSIGN_OR_RETURN(options.path, ModelPath(config.model));
  if (!config.chat_template.empty()) {
    KVASIR_ASSIGN_OR_RETURN(options.chat_template_override, ReadTextFile(config.chat_template));
  }
  return options;
}

engine::EngineOptions MakeEngineOptions(const ServeConfig& config) {
  return {.max_num_seqs = config.max_num_seqs,
          .max_num_batched_tokens = config.max_num_batched_tokens,
          .max_queue = config.max_queue,
          .max_queue_delay =
              config.max_queue_delay == 0 ? Duration::max() : FromSeconds(config.max_queue_delay),
          .enable_prefix_caching = config.enable_prefix_caching,
          .jump_forward = config.jump_forward,
          .max_drafts = config.max_drafts,
          .itl_target = FromSeconds(config.itl_target / 1e3)};
}

StatusOr<api::ApiOptions> MakeApiOptions(const ServeConfig& config) {
  api::ApiOptions options{
      .keys = {.plain_keys = config.api_keys, .salt_per_key = config.cache_salt_per_key},
      .allowed_origins = config.allowed_origins,
      .request_timeout = FromSeconds(config.request_timeout),
      .text_threads = config.text_threads,
      .version = KVASIR_VERSION,
      .access_log = config.access_log};
  if (!config.api_keys_file.empty()) {
    KVASIR_ASSIGN_OR_RETURN(options.keys.keys, api::ReadKeysFile(config.api_keys_file));
  }
  options.http.host = config.host;
  options.http.port = config.port;
  options.http.tls_cert = config.tls_cert;
  options.http.tls_key = config.tls_key;
  options.http.threads = config.http_threads;
  options.http.max_connections = config.max_connections;
  options.http.max_header_bytes = static_cast<size_t>(config.max_header_bytes);
  options.http.max_body_bytes = static_cast<size_t>(config.max_body_bytes);
  return options;
}

// Whether there is something that SIGHUP can make the server read or open anew.
bool Reloads(const ServeConfig& config) {
  const bool log_file = !config.access_log.empty() && config.access_log != "-";
  return log_file || !config.tls_cert.empty();
}

std::string UrlHost(const std::string& host) {
  return host.find(':') == std::string::npos ? host : "[" + host + "]";
}

StatusOr<int> Serve(const ServeConfig& config) {
  KVASIR_RETURN_IF_ERROR(InitLog(config.log_level));
  KVASIR_ASSIGN_OR_RETURN(const ModelOptions model_options, MakeModelOptions(config));
  KVASIR_ASSIGN_OR_RETURN(api::ApiOptions api_options, MakeApiOptions(config));
  StopSignal stop(Reloads(config));
  KVASIR_ASSIGN_OR_RETURN(ServedModel model, LoadModel(model_options));
  const SteadyClock clock;
  KVASIR_ASSIGN_OR_RETURN(
      const std::unique_ptr<engine::LocalEngine> engine,
      engine::LocalEngine::Create(std::move(model.runner), model.info, MakeEngineOptions(config),
                                  clock, model.grammars.get()));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<api::ApiServer> server,
                          api::ApiServer::Start(*engine,
                                                {model.tokenizer.get(), model.chat_template.get(),
                                                 model.output_format, model.grammars.get()},
                                                std::move(api_options)));
  const std::string url = fmt::format("{}://{}:{}", config.tls_cert.empty() ? "http" : "https",
                                      UrlHost(config.host), server->port());
  spdlog::info("serving {} on {}", engine->Model().name, url);
  fmt::print("Kvasir serves {} on {}\n", engine->Model().name, url);
  std::fflush(stdout);
  stop.Wait([&] { server->Reload(); });
  spdlog::info("shutting down");
  server->Drain(FromSeconds(config.drain_timeout));
  KVASIR_RETURN_IF_ERROR(engine->Drain(Duration::zero()));
  return 0;
}

template <size_t kCount>
std::vector<std::string> Names(const std::string_view (&names)[kCount]) {
  return {std::begin(names), std::end(names)};
}

void AddModelOptions(Command& command, ServeConfig* config) {
  command.AddPositional("model", &config->model,
                        "GGUF file, Hugging Face folder, hf:OWNER/REPO[:FILE], or 'default'");
  command.Add("served-model-name", &config->served_model_name,
              "Name of the model in the API (default: from the file)");
  command.Add("chat-template", &config->chat_template,
              "Jinja file to use instead of the model's own chat template");
  command
      .Add("tool-call-parser", &config->tool_call_parser,
           "Form of the model's tool calls (auto: by its chat template)")
      ->check(CLI::IsMember(Names(text::kToolParserNames)));
  command
      .Add("reasoning-parser", &config->reasoning_parser,
           "Form of the model's reasoning (auto: by its chat template)")
      ->check(CLI::IsMember(Names(text::kReasoningParserNames)));
  command.AddSwitch("skip-tokenizer-init", &config->skip_tokenizer_init,
                    "Load no tokenizer: prompts and answers are token ids");
  command
      .Add("max-model-len", &config->max_model_len,
           "Longest prompt and output together, in tokens (0: the model's own)")
      ->check(CLI::Range(0, INT32_MAX));
  command.Add("threads", &config->threads, "Compute threads (0: all cores)")
      ->check(CLI::Range(0, 1024));
  command.Add("isa", &config->isa, "Kernel family")
      ->check(CLI::IsMember({"auto", "avx512", "avx2", "scalar"}));
  command.Add("activations", &config->activations, "Type of activations in matrix products")
      ->check(CLI::IsMember({"int8", "f32"}));
  command.Add("kv-cache-dtype", &config->kv_cache_dtype, "Type of the KV cache")
      ->check(CLI::IsMember({"bf16", "f32"}));
}

void AddEngineOptions(Command& command, ServeConfig* config) {
  command.Add("block-size", &config->block_size, "Tokens a KV block, a multiple of 16")
      ->check(CLI::Range(16, 4096));
  command.AddBytes("kv-cache-memory", &config->kv_cache_memory,
                   "Memory of the KV cache, such as 4GiB (0: chosen by free memory)");
  command.Add("max-num-seqs", &config->max_num_seqs, "Sequences that run at once")
      ->check(CLI::Range(1, kMany));
  command.Add("max-num-batched-tokens", &config->max_num_batched_tokens, "Tokens of one step")
      ->check(CLI::Range(1, kMany));
  command.Add("max-queue", &config->max_queue, "Requests that wait before 429 is answered")
      ->check(CLI::Range(1, kMany));
  command
      .Add("max-queue-delay", &config->max_queue_delay,
           "Seconds that a request may be predicted to wait before 429 is answered (0: until its "
           "timeout)")
      ->check(CLI::Range(0.0, 1e6));
  command
      .Add("max-drafts", &config->max_drafts,
           "Tokens that prompt lookup may draft for a sequence at a time (0: none)")
      ->check(CLI::Range(0, 64));
  command.AddSwitch("jump-forward", &config->jump_forward,
                    "Append the tokens that a constraint forces without computing them one by one");
  command.AddSwitch("enable-prefix-caching", &config->enable_prefix_caching,
                    "Keep the KV of prompts for later requests");
  command.Add("itl-target", &config->itl_target, "Milliseconds that a step with decodes may take")
      ->check(CLI::Range(1.0, 60000.0));
}

void AddHttpOptions(Command& command, ServeConfig* config) {
  command.Add("host", &config->host, "Address to listen on");
  command.Add("port", &config->port, "Port to listen on (0: any free one)");
  command.Add("api-key", &config->api_keys, "Key that clients must send; may be repeated")
      ->default_str("");
  command.Add("api-keys-file", &config->api_keys_file,
              "TOML file of [[keys]]: name, key or key_sha256, and as wanted priority, "
              "requests_per_minute, tokens_per_minute, max_concurrent, cache_salt");
  command.AddSwitch("cache-salt-per-key", &config->cache_salt_per_key,
                    "Share no cached prefix between API keys that have no cache_salt");
  command.Add("tls-cert", &config->tls_cert,
              "PEM file of the certificate and its chain: serve HTTPS; SIGHUP reads it again");
  command.Add("tls-key", &config->tls_key, "PEM file of the certificate's key");
  command.Add("allowed-origins", &config->allowed_origins,
              "Origins whose pages browsers let in (CORS), '*' for all; may be repeated");
  command.AddBytes("max-body-bytes", &config->max_body_bytes, "Largest request body");
  command.AddBytes("max-header-bytes", &config->max_header_bytes, "Largest request header");
  command.Add("max-connections", &config->max_connections, "Open connections")
      ->check(CLI::Range(1, kMany));
  command.Add("request-timeout", &config->request_timeout, "Seconds until a request is ended")
      ->check(CLI::Range(0.1, 1e6));
  command
      .Add("drain-timeout", &config->drain_timeout,
           "Seconds that requests under way get after SIGTERM")
      ->check(CLI::Range(0.0, 1e6));
  command.Add("http-threads", &config->http_threads, "Threads for connections")
      ->check(CLI::Range(1, 64));
  command.Add("text-threads", &config->text_threads, "Threads for tokenizing long inputs")
      ->check(CLI::Range(1, 64));
  command.Add("access-log", &config->access_log,
              "File for a JSON line a request ('-': standard output); SIGHUP opens it anew");
  command.Add("log-level", &config->log_level, "trace, debug, info, warn, error or off");
}

}  // namespace

std::unique_ptr<Command> ServeCommand(CLI::App& program) {
  auto config = std::make_shared<ServeConfig>();
  auto command = std::make_unique<Command>(program, "serve", "Serve a model over HTTP.",
                                           [config] { return Serve(*config); });
  AddModelOptions(*command, config.get());
  AddEngineOptions(*command, config.get());
  AddHttpOptions(*command, config.get());
  command->AddConfigFile();
  return command;
}

}  // namespace kvasir::cli
