#include "cli/command.h"

#include <absl/strings/ascii.h>
#include <absl/strings/numbers.h>
#include <fmt/format.h>
#include <toml++/toml.h>

#include <array>
#include <cmath>
#include <utility>
#include <vector>

namespace kvasir::cli {
namespace {

std::string EnvironmentName(std::string name) {
  for (char& c : name) c = c == '-' ? '_' : absl::ascii_toupper(static_cast<unsigned char>(c));
  return "KVASIR_" + name;
}

// A scalar as the command line would spell it.
StatusOr<std::string> Spell(const toml::node& node, const std::string& key) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* boolean = node.as_boolean())
    return std::string(boolean->get() ? "true" : "false");
  return absl::InvalidArgumentError(
      fmt::format("{}: must be a string, a number or a boolean", key));
}

StatusOr<std::vector<std::string>> SpellAll(const toml::node& node, const std::string& key) {
  std::vector<std::string> values;
  if (const toml::array* array = node.as_array()) {
    for (const toml::node& item : *array) {
      KVASIR_ASSIGN_OR_RETURN(std::string value, Spell(item, key));
      values.push_back(std::move(value));
    }
    return values;
  }
  KVASIR_ASSIGN_OR_RETURN(std::string value, Spell(node, key));
  values.push_back(std::move(value));
  return values;
}

}  // namespace

Command::Command(CLI::App& program, const std::string& name, const std::string& description,
                 std::function<StatusOr<int>()> run)
    : app_(program.add_subcommand(name, description)), run_(std::move(run)) {}

CLI::Option* Command::Register(CLI::Option* option, const std::string& name) {
  return option->capture_default_str()->envname(EnvironmentName(name))->group(group_);
}

CLI::Option* Command::AddSwitch(const std::string& name, bool* target, const std::string& help) {
  const std::string names = fmt::format("--{0},!--no-{0}", name);
  CLI::Option* option = app_->add_flag(names, *target, help);
  option->default_str(*target ? "true" : "false");
  return option->envname(EnvironmentName(name))->group(group_);
}

CLI::Option* Command::AddBytes(const std::string& name, int64_t* target, const std::string& help) {
  const auto parse = [target](const CLI::results_t& values) {
    const StatusOr<int64_t> bytes = ParseBytes(values.back());
    if (!bytes.ok()) throw CLI::ValidationError(std::string(bytes.status().message()));
    *target = *bytes;
    return true;
  };
  CLI::Option* option = app_->add_option("--" + name, parse, help);
  return option->type_name("BYTES")
      ->default_str(std::to_string(*target))
      ->envname(EnvironmentName(name))
      ->group(group_);
}

CLI::Option* Command::AddPositional(const std::string& name, std::string* target,
                                    const std::string& help) {
  return Register(app_->add_option(name, *target, help), name);
}

std::vector<std::string> Command::Given(const std::string& group) const {
  std::vector<std::string> out;
  for (const CLI::Option* option : app_->get_options()) {
    if (option->get_group() != group || option->count() == 0) continue;
    for (const std::string& value : option->results()) {
      out.push_back(fmt::format("--{}={}", option->get_lnames().front(), value));
    }
  }
  return out;
}

void Command::AddConfigFile() {
  Add("config", &config_file_, "TOML file with any of these options, spelled without the dashes");
}

Status Command::ReadConfigFile() {
  if (config_file_.empty()) return absl::OkStatus();
  const auto fail = [&](std::string_view what) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", config_file_, what));
  };
  toml::table table;
  try {
    table = toml::parse_file(config_file_);
  } catch (const toml::parse_error& e) {
    return fail(fmt::format("line {}: {}", e.source().begin.line, e.description()));
  }
  for (const auto& [toml_key, node] : table) {
    const std::string key(toml_key.str());
    CLI::Option* option = app_->get_option_no_throw("--" + key);
    if (option == nullptr) option = app_->get_option_no_throw(key);
    if (option == nullptr || key == "config" || key == "help") {
      return fail(fmt::format("unknown key '{}'", key));
    }
    if (option->count() > 0) continue;  // a flag or the environment says otherwise
    StatusOr<std::vector<std::string>> values = SpellAll(node, key);
    if (!values.ok()) return fail(std::string(values.status().message()));
    try {
      for (std::string& value : *values) option->add_result(std::move(value));
      option->run_callback();
    } catch (const CLI::Error& e) {
      return fail(fmt::format("{}: {}", key, e.what()));
    }
  }
  return absl::OkStatus();
}

StatusOr<int> Command::Run() {
  KVASIR_RETURN_IF_ERROR(ReadConfigFile());
  return run_();
}

StatusOr<int64_t> ParseBytes(std::string_view text) {
  struct Unit {
    std::string_view suffix;
    double bytes;
  };
  static constexpr std::array<Unit, 13> kUnits = {{{"kib", 0x1p10},
                                                   {"mib", 0x1p20},
                                                   {"gib", 0x1p30},
                                                   {"tib", 0x1p40},
                                                   {"kb", 1e3},
                                                   {"mb", 1e6},
                                                   {"gb", 1e9},
                                                   {"tb", 1e12},
                                                   {"k", 0x1p10},
                                                   {"m", 0x1p20},
                                                   {"g", 0x1p30},
                                                   {"t", 0x1p40},
                                                   {"b", 1}}};
  std::string number = absl::AsciiStrToLower(std::string(text));
  double unit = 1;
  for (const Unit& u : kUnits) {
    if (!number.ends_with(u.suffix)) continue;
    number.resize(number.size() - u.suffix.size());
    unit = u.bytes;
    break;
  }
  double value = 0;
  if (number.empty() || !absl::SimpleAtod(number, &value) || !(value >= 0) ||
      !(value * unit < 0x1p62)) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not a size: expected bytes, or a number with KiB, MiB or GiB", text));
  }
  return static_cast<int64_t>(std::llround(value * unit));
}

}  // namespace kvasir::cli
