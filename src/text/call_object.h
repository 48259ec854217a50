// The object that most formats write a tool call as: {"name": ..., "arguments": {...}}.
#pragma once

#include <optional>
#include <string>

#include "text/json_scanner.h"

namespace kvasir::text {

// Follows one object byte by byte. "parameters" is another name for the arguments; other members
// are passed over; without arguments they are {}. Not thread-safe.
class CallObject {
 public:
  enum class Step {
    kMore,
    kEnd,  // the byte is the object's last
    kBad,  // this is no call
  };
  // Appends to `arguments` the text of the arguments as far as it is known and the name with it.
  // The first byte must be the opening brace.
  Step Add(char byte, std::string* arguments);

  // Set before arguments come out.
  const std::string& name() const { return name_; }

 private:
  enum class State { kOpen, kFirstKey, kKey, kInKey, kColon, kBeforeValue, kValue, kAfterValue };
  enum class Member { kOther, kName, kArguments };

  Step BeginKey(char byte);
  Step InKey(char byte);
  Step BeginValue(char byte, std::string* arguments);
  Step InValue(char byte, std::string* arguments);
  Step EndValue(std::string* arguments);
  Step AfterValue(char byte, std::string* arguments);

  State state_ = State::kOpen;
  Member member_ = Member::kOther;
  JsonScanner scanner_;
  std::string text_;  // of the key or the name at hand
  std::string name_;
  bool has_arguments_ = false;
  std::string early_;  // arguments that came before the name
};

}  // namespace kvasir::text
