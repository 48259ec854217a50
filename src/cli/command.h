// One command of the program and its options. Each option is set by --name, by the environment
// variable KVASIR_NAME, or by `name = value` in the TOML file that --config names; the first of
// these that is there counts. An unknown flag or TOML key is an error.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace kvasir::cli {

class Command {
 public:
  // `run` returns the exit code, or an error that is printed as one line (exit code 1).
  Command(CLI::App& program, const std::string& name, const std::string& description,
          std::function<StatusOr<int>()> run);

  // `target` outlives the command and holds the default. `name` is without dashes; `letter` is
  // another, of one letter. A vector takes the option several times.
  template <typename T>
  CLI::Option* Add(const std::string& name, T* target, const std::string& help,
                   const std::string& letter = "") {
    const std::string names = letter.empty() ? "--" + name : "-" + letter + ",--" + name;
    CLI::Option* option = app_->add_option(names, *target, help);
    return Register(option->allow_extra_args(false), name);
  }
  // --NAME and --no-NAME.
  CLI::Option* AddSwitch(const std::string& name, bool* target, const std::string& help);
  // A number of bytes, with or without a suffix: 4GiB, 512MiB, 2000000.
  CLI::Option* AddBytes(const std::string& name, int64_t* target, const std::string& help);
  CLI::Option* AddPositional(const std::string& name, std::string* target, const std::string& help);
  // --config
  void AddConfigFile();

  // The heading in --help of the options that are added from now on.
  void SetGroup(const std::string& group) { group_ = group; }
  // The options under a heading that were given, by whatever way, as the command line would spell
  // them.
  std::vector<std::string> Given(const std::string& group) const;

  bool parsed() const { return app_->parsed(); }
  StatusOr<int> Run();

 private:
  CLI::Option* Register(CLI::Option* option, const std::string& name);
  Status ReadConfigFile();

  CLI::App* const app_;
  const std::function<StatusOr<int>()> run_;
  std::string config_file_;
  std::string group_ = "Options";
};

// "4GiB" -> 4294967296; also KiB, MiB, TiB, KB, MB, GB, TB (decimal) and plain bytes.
StatusOr<int64_t> ParseBytes(std::string_view text);

}  // namespace kvasir::cli
