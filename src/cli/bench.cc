#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "loadgen/loadgen.h"

namespace kvasir::cli {
namespace {

struct BenchConfig {
  loadgen::Options load;
  std::string prompts = "ids";
  std::string extra_body;      // a JSON object
  double request_timeout = 0;  // s
  std::string json;            // path, or "-"
};

Status WriteJson(const loadgen::Report& report, const std::string& path) {
  const std::string text = loadgen::ToJson(report).dump(2) + "\n";
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return absl::OkStatus();
  }
  std::ofstream out(path);
  out << text;
  out.close();
  if (!out) return absl::InternalError(fmt::format("cannot write {}", path));
  return absl::OkStatus();
}

StatusOr<int> Bench(const BenchConfig& config) {
  loadgen::Options load = config.load;
  KVASIR_ASSIGN_OR_RETURN(load.style, loadgen::ParsePromptStyle(config.prompts));
  load.request_timeout = FromSeconds(config.request_timeout);
  if (!config.extra_body.empty()) {
    load.extra_body = nlohmann::json::parse(config.extra_body, nullptr, false);
    if (!load.extra_body.is_object()) {
      return absl::InvalidArgumentError("--extra-body: must be a JSON object");
    }
  }
  if (::isatty(STDERR_FILENO) == 1) load.progress = &std::cerr;
  KVASIR_ASSIGN_OR_RETURN(const loadgen::Report report, loadgen::Run(load));
  if (config.json != "-") fmt::print("{}\n", loadgen::FormatTable(report));
  if (!config.json.empty()) KVASIR_RETURN_IF_ERROR(WriteJson(report, config.json));
  return report.failed == 0 ? 0 : 1;
}

void AddServerOptions(Command& command, BenchConfig* config) {
  loadgen::Options& load = config->load;
  command.Add("url", &load.url, "Any OpenAI-compatible server, with or without /v1");
  command.Add("model", &load.model, "Model (default: the first that the server lists)");
  command.Add("api-key", &load.api_key, "Key to send");
  command.AddSwitch(
      "insecure", &load.insecure,
      "Take any certificate of an https server (SSL_CERT_FILE names a file of those to trust)");
  command.Add("request-timeout", &config->request_timeout, "Seconds until a request has failed");
  command.Add("temperature", &load.temperature, "Temperature");
  command.AddSwitch("ignore-eos", &load.ignore_eos, "Give every answer its full length");
  command.Add("extra-body", &config->extra_body, "JSON object of more fields for each request");
}

void AddLoadOptions(Command& command, BenchConfig* config) {
  loadgen::Options& load = config->load;
  command.Add("prompts", &config->prompts, "ids (exact lengths), text or chat (lengths in words)")
      ->check(CLI::IsMember({"ids", "text", "chat"}));
  command.Add("num-prompts", &load.conversations, "Conversations");
  command.Add("turns", &load.turns, "Requests of a conversation, each holding those before it");
  command.Add("input-len", &load.input_length, "New tokens in each prompt");
  command.Add("output-len", &load.output_length, "Tokens of each answer");
  command.Add("range-ratio", &load.length_spread, "Lengths vary by this fraction");
  command.Add("prefix-len", &load.shared_prefix_length, "Tokens that prompts of a group share");
  command.Add("num-prefixes", &load.shared_prefix_groups, "Groups with a prefix of their own");
  command.Add("max-concurrency", &load.concurrency,
              "Conversations at a time (0: no limit, with a rate)");
  command.Add("request-rate", &load.rate,
              "Conversations a second, a Poisson process (0: as fast as concurrency allows)");
  command.Add("warmups", &load.warmup_conversations, "Conversations before the measurement");
  command.Add("first-token-id", &load.first_token_id, "Random ids are from here");
  command.Add("last-token-id", &load.last_token_id, "to here");
  command.Add("seed", &load.seed, "Of lengths, prompts and gaps");
}

}  // namespace

std::unique_ptr<Command> BenchCommand(CLI::App& program) {
  auto config = std::make_shared<BenchConfig>();
  config->request_timeout = ToSeconds(config->load.request_timeout);
  auto command = std::make_unique<Command>(
      program, "bench", "Put a load on a server and measure latency, throughput and goodput.",
      [config] { return Bench(*config); });
  AddServerOptions(*command, config.get());
  AddLoadOptions(*command, config.get());
  command->Add("slo-ttft-ms", &config->load.slo_ttft_ms,
               "First token within this counts for goodput (0: any)");
  command->Add("slo-tpot-ms", &config->load.slo_tpot_ms,
               "Milliseconds a token within this count for goodput (0: any)");
  command->Add("json", &config->json, "Write the report as JSON to this file ('-': stdout)");
  command->AddConfigFile();
  return command;
}

}  // namespace kvasir::cli
