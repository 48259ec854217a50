#include "loadgen/chat_client.h"

#include <iostream>
#include <memory>

#include "cli/commands.h"

namespace kvasir::cli {

std::unique_ptr<Command> ChatCommand(CLI::App& program) {
  auto options = std::make_shared<loadgen::ChatOptions>();
  auto command = std::make_unique<Command>(
      program, "chat", "Talk to a server from this terminal.",
      [options]() -> StatusOr<int> { return loadgen::RunChat(*options, std::cin, std::cout); });
  command->Add("url", &options->url, "Server, with or without /v1");
  command->Add("model", &options->model, "Model (default: the first that the server lists)");
  command->Add("api-key", &options->api_key, "Key to send");
  command->AddSwitch(
      "insecure", &options->insecure,
      "Take any certificate of an https server (SSL_CERT_FILE names a file of those to trust)");
  command->Add("system", &options->system_prompt, "System prompt");
  command->Add("max-tokens", &options->max_tokens, "Longest answer in tokens (0: the server's)")
      ->check(CLI::Range(0, INT32_MAX));
  command->Add("temperature", &options->temperature, "Temperature (below 0: the server's)");
  command->AddConfigFile();
  return command;
}

}  // namespace kvasir::cli
