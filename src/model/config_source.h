// One way to read a configuration, whether it is GGUF metadata or config.json: an architecture
// names a field once, by both spellings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"

namespace kvasir::model {

// A field's names. Null where that kind of file does not say it.
struct FieldName {
  const char* hugging_face;  // in config.json; dots lead into objects
  const char* gguf;          // after "ARCHITECTURE."
};

// Integers of all widths become int64_t, floats double.
using ConfigValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>,
                                 std::vector<double>, std::vector<std::string>>;

// The first error is kept, with the field's name, and makes later reads give their fallbacks or
// the least value allowed. Not thread-safe.
class ConfigSource {
 public:
  virtual ~ConfigSource() = default;

  virtual bool is_gguf() const = 0;
  bool Has(FieldName field) const { return Find(field).has_value(); }
  // Both bounds inclusive. Without a fallback the field must be there.
  int32_t Int(FieldName field, int64_t low, int64_t high, std::optional<int32_t> fallback = {});
  // Positive and finite.
  float Float(FieldName field, std::optional<float> fallback = {});
  bool Bool(FieldName field, bool fallback) const;
  std::string String(FieldName field, std::string fallback) const;
  std::vector<std::string> Strings(FieldName field) const;
  std::vector<float> Floats(FieldName field) const;

  // Whether it is an object that is not empty.
  virtual bool HasFields(FieldName) const { return false; }

  void Fail(FieldName field, const std::string& what);
  // The error says that the value is not supported, and what is.
  void FailUnsupported(FieldName field, const std::string& value, const std::string& supported);
  const Status& status() const { return status_; }

 protected:
  // Nothing where the field is absent, null, or of a type that ConfigValue has no place for.
  virtual std::optional<ConfigValue> Find(FieldName field) const = 0;
  virtual std::string Path(FieldName field) const = 0;  // as errors name it

 private:
  Status status_;
};

}  // namespace kvasir::model
