#include "model/config_source.h"

#include <fmt/format.h>

#include <limits>
#include <utility>

namespace kvasir::model {

int32_t ConfigSource::Int(FieldName field, int64_t low, int64_t high,
                          std::optional<int32_t> fallback) {
  const std::optional<ConfigValue> value = Find(field);
  if (!value && fallback) return *fallback;
  const auto* integer = value ? std::get_if<int64_t>(&*value) : nullptr;
  if (integer == nullptr) {
    Fail(field, "missing, or no integer");
    return static_cast<int32_t>(low);
  }
  if (*integer < low || *integer > high) {
    Fail(field, fmt::format("{} is out of range [{}, {}]", *integer, low, high));
    return static_cast<int32_t>(low);
  }
  return static_cast<int32_t>(*integer);
}

float ConfigSource::Float(FieldName field, std::optional<float> fallback) {
  const std::optional<ConfigValue> value = Find(field);
  if (!value && fallback) return *fallback;
  double number = 0.0;
  if (value && std::holds_alternative<double>(*value)) number = std::get<double>(*value);
  if (value && std::holds_alternative<int64_t>(*value)) {
    number = static_cast<double>(std::get<int64_t>(*value));
  }
  // Bounded so that the float is neither zero nor infinite.
  if (!(number >= std::numeric_limits<float>::min() && number < 1e12)) {
    Fail(field, "missing, or no positive number");
    return 1.0f;
  }
  return static_cast<float>(number);
}

bool ConfigSource::Bool(FieldName field, bool fallback) const {
  const std::optional<ConfigValue> value = Find(field);
  return value && std::holds_alternative<bool>(*value) ? std::get<bool>(*value) : fallback;
}

std::string ConfigSource::String(FieldName field, std::string fallback) const {
  const std::optional<ConfigValue> value = Find(field);
  return value && std::holds_alternative<std::string>(*value) ? std::get<std::string>(*value)
                                                              : std::move(fallback);
}

std::vector<std::string> ConfigSource::Strings(FieldName field) const {
  const std::optional<ConfigValue> value = Find(field);
  if (!value || !std::holds_alternative<std::vector<std::string>>(*value)) return {};
  return std::get<std::vector<std::string>>(*value);
}

std::vector<float> ConfigSource::Floats(FieldName field) const {
  const std::optional<ConfigValue> value = Find(field);
  if (!value) return {};
  if (const auto* integers = std::get_if<std::vector<int64_t>>(&*value)) {
    return {integers->begin(), integers->end()};
  }
  const auto* numbers = std::get_if<std::vector<double>>(&*value);
  if (numbers == nullptr) return {};
  return {numbers->begin(), numbers->end()};
}

void ConfigSource::Fail(FieldName field, const std::string& what) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(Path(field) + ": " + what);
}

void ConfigSource::FailUnsupported(FieldName field, const std::string& value,
                                   const std::string& supported) {
  if (!status_.ok()) return;
  status_ = absl::UnimplementedError(
      fmt::format("{}: '{}' is not supported ({})", Path(field), value.substr(0, 64), supported));
}

}  // namespace kvasir::model
