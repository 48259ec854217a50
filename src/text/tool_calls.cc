#include "text/tool_calls.h"

#include <utility>

#include "text/call_object.h"
#include "text/json_scanner.h"
#include "text/marker_matcher.h"

namespace kvasir::text {
namespace {

constexpr std::string_view kArgsTag = "[ARGS]";
constexpr std::string_view kCallIdTag = "[CALL_ID]";
constexpr size_t kMaxNameBytes = 256;

class NoCalls final : public ToolCallParser {
 public:
  Output Add(std::string_view text) override { return {std::string(text), {}}; }
  Output Finish() override { return {}; }
  int32_t calls() const override { return 0; }
};

// What all formats share: content up to a marker, text that is held until it is a call or is none,
// calls as they come out. What follows the marker is for the format to say.
class MarkedCalls : public ToolCallParser {
 public:
  explicit MarkedCalls(std::string_view marker) : marker_(marker) {}

  Output Add(std::string_view text) final {
    for (const char byte : text) {
      while (!(in_content_ ? TakeContent(byte) : AfterMarker(byte))) {
      }
    }
    return std::exchange(out_, {});
  }

  Output Finish() final {
    if (in_content_) {
      const bool after_call = calls_ > 0 && !content_since_call_;
      const bool layout = after_call && marker_.only_space();
      const std::string rest = marker_.Take();
      if (!layout) AddContent(rest);
    } else if (!held_is_syntax_) {
      AddContent(std::exchange(held_, {}));
    }
    return std::exchange(out_, {});
  }

  int32_t calls() const final { return calls_; }

 protected:
  // A byte after the marker. Returns false when the byte is to be taken again, because the state
  // has changed.
  virtual bool AfterMarker(char byte) = 0;
  virtual void Restart() = 0;  // the next byte will be the first after a marker
  // May a call begin with `byte` although there is no marker? That is asked at the very beginning.
  virtual bool BeginsCall(char) const { return false; }

  bool Hold(char byte) {
    held_ += byte;
    return true;
  }

  void BeginCall() { held_is_syntax_ = announced_ = false; }

  // More arguments of the call at hand. What was held is its syntax.
  void AddArguments(const std::string& name, std::string_view arguments) {
    if (arguments.empty()) return;
    EndSyntax();
    const bool first = !std::exchange(announced_, true);
    if (first) ++calls_;
    content_since_call_ = false;
    const int32_t index = calls_ - 1;
    std::vector<ToolCallDelta>& calls = out_.calls;
    if (calls.empty() || calls.back().index != index) calls.push_back({.index = index});
    if (first) calls.back().name = name;
    calls.back().arguments += arguments;
  }

  // All that was held belongs to complete calls; what comes next does unless a call begins.
  void EndSyntax() {
    held_.clear();
    held_is_syntax_ = true;
  }

  // What was held is no call, and the byte begins content.
  bool Break() {
    AddContent(std::exchange(held_, {}));
    in_content_ = true;
    return false;
  }

  // No further call follows here: what was held may be the beginning of content or of a marker.
  bool Leave() {
    in_content_ = true;
    for (const char byte : std::exchange(held_, {})) {
      while (!TakeContent(byte)) {
      }
    }
    return false;
  }

 private:
  bool TakeContent(char byte) {
    const MarkerMatcher::Step step = marker_.Add(byte);
    if (step == MarkerMatcher::Step::kHeld) return true;
    const bool found = step == MarkerMatcher::Step::kFound;
    const bool at_start = calls_ == 0 && !content_since_call_ && marker_.only_space();
    if (found || (at_start && BeginsCall(byte))) {
      held_ = marker_.Take();
      in_content_ = false;
      BeginCall();
      Restart();
      return found;
    }
    const bool retry = !marker_.only_space();
    AddContent(marker_.Take());
    if (!retry) AddContent(std::string_view(&byte, 1));
    return !retry;
  }

  void AddContent(std::string_view text) {
    if (text.empty()) return;
    out_.content += text;
    content_since_call_ = true;
  }

  MarkerMatcher marker_;
  bool in_content_ = true;
  std::string held_;             // after a marker
  bool held_is_syntax_ = false;  // held_ is dropped at the end, not content
  bool announced_ = false;       // the call at hand
  bool content_since_call_ = false;
  int32_t calls_ = 0;
  Output out_;
};

// Formats whose calls are objects.
class ObjectCalls : public MarkedCalls {
 public:
  using MarkedCalls::MarkedCalls;

 protected:
  bool AfterMarker(char byte) override {
    switch (state_) {
      case State::kBefore:
        if (IsJsonSpace(byte)) return Hold(byte);
        if (byte != '{') return BeforeObject(byte);
        BeginCall();
        object_ = {};
        state_ = State::kObject;
        return InObject(byte);
      case State::kObject:
        return InObject(byte);
      case State::kAfter:
        return AfterObject(byte);
    }
    return true;
  }

  void Restart() override { state_ = State::kBefore; }

  virtual bool BeforeObject(char) { return Break(); }
  virtual bool AfterObject(char byte) = 0;

 private:
  enum class State { kBefore, kObject, kAfter };

  bool InObject(char byte) {
    std::string arguments;
    const CallObject::Step step = object_.Add(byte, &arguments);
    if (step == CallObject::Step::kBad) return Break();
    Hold(byte);
    AddArguments(object_.name(), arguments);
    if (step == CallObject::Step::kEnd) {
      EndSyntax();
      state_ = State::kAfter;
    }
    return true;
  }

  State state_ = State::kBefore;
  CallObject object_;
};

class HermesCalls final : public ObjectCalls {
 public:
  HermesCalls() : ObjectCalls("<tool_call>") {}

 private:
  void Restart() override {
    ObjectCalls::Restart();
    close_.Take();
  }

  bool AfterObject(char byte) override {
    const MarkerMatcher::Step step = close_.Add(byte);
    if (step == MarkerMatcher::Step::kMiss) return Leave();
    Hold(byte);
    if (step == MarkerMatcher::Step::kFound) {
      EndSyntax();
      Leave();
    }
    return true;
  }

  MarkerMatcher close_{"</tool_call>"};
};

class LlamaCalls final : public ObjectCalls {
 public:
  LlamaCalls() : ObjectCalls("<|python_tag|>") {}

 private:
  bool BeginsCall(char byte) const override { return byte == '{'; }

  bool AfterObject(char byte) override {
    if (byte == ';') Restart();
    return byte == ';' || IsJsonSpace(byte) ? Hold(byte) : Leave();
  }
};

// Both of Mistral's: a list of objects, or names with arguments behind them.
class MistralCalls final : public ObjectCalls {
 public:
  MistralCalls() : ObjectCalls("[TOOL_CALLS]") {}

 private:
  enum class Named { kNo, kName, kTag, kCallId, kBeforeArguments, kArguments };

  void Restart() override {
    ObjectCalls::Restart();
    in_list_ = false;
    named_ = Named::kNo;
  }

  bool AfterMarker(char byte) override {
    switch (named_) {
      case Named::kNo:
        return ObjectCalls::AfterMarker(byte);
      case Named::kName:
        return InName(byte);
      case Named::kTag:
        return InTag(byte);
      case Named::kCallId:
        if (byte == '[') return BeginTag(byte);
        return byte > ' ' ? Hold(byte) : Break();
      case Named::kBeforeArguments:
        if (IsJsonSpace(byte)) return Hold(byte);
        return byte == '{' ? BeginArguments(byte) : Break();
      case Named::kArguments:
        return InArguments(byte);
    }
    return true;
  }

  bool BeforeObject(char byte) override {
    if (byte == '[' && !in_list_) {
      in_list_ = true;
      return Hold(byte);
    }
    if (in_list_) return Break();
    name_.clear();
    named_ = Named::kName;
    return InName(byte);
  }

  bool AfterObject(char byte) override {
    if (!in_list_) return Leave();
    if (byte == ',') ObjectCalls::Restart();
    if (byte == ',' || IsJsonSpace(byte)) return Hold(byte);
    if (byte != ']') return Leave();
    EndSyntax();
    Leave();
    return true;
  }

  bool InName(char byte) {
    constexpr std::string_view kNever = "\"]}<>,";
    if (!name_.empty()) {
      if (byte == '{') return BeginArguments(byte);
      if (byte == '[') return BeginTag(byte);
    }
    const bool space = static_cast<unsigned char>(byte) <= ' ';
    if (space || name_.size() == kMaxNameBytes || kNever.find(byte) != kNever.npos) return Break();
    name_ += byte;
    return Hold(byte);
  }

  bool BeginTag(char byte) {
    tag_ = byte;
    named_ = Named::kTag;
    return Hold(byte);
  }

  bool InTag(char byte) {
    tag_ += byte;
    if (!kArgsTag.starts_with(tag_) && !kCallIdTag.starts_with(tag_)) return Break();
    if (tag_ == kArgsTag) named_ = Named::kBeforeArguments;
    if (tag_ == kCallIdTag) named_ = Named::kCallId;
    return Hold(byte);
  }

  bool BeginArguments(char byte) {
    scanner_ = {};
    named_ = Named::kArguments;
    return InArguments(byte);
  }

  bool InArguments(char byte) {
    const JsonScanner::Step step = scanner_.Add(byte);
    if (step == JsonScanner::Step::kBad) return Break();
    AddArguments(name_, std::string_view(&byte, 1));
    if (step == JsonScanner::Step::kEnd) Leave();
    return true;
  }

  bool in_list_ = false;
  Named named_ = Named::kNo;
  std::string name_;
  std::string tag_;
  JsonScanner scanner_;
};

}  // namespace

std::unique_ptr<ToolCallParser> ToolCallParser::Create(ToolFormat format) {
  switch (format) {
    case ToolFormat::kHermes:
      return std::make_unique<HermesCalls>();
    case ToolFormat::kLlama3Json:
      return std::make_unique<LlamaCalls>();
    case ToolFormat::kMistral:
    case ToolFormat::kMistralArgs:
      return std::make_unique<MistralCalls>();
    case ToolFormat::kNone:
      break;
  }
  return std::make_unique<NoCalls>();
}

}  // namespace kvasir::text
