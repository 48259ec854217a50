#include "grammar/ebnf.h"

#include <absl/container/flat_hash_map.h>
#include <absl/strings/ascii.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "text/utf8.h"

namespace kvasir::grammar {
namespace {

constexpr int kMaxDepth = 100;       // of brackets
constexpr int kMaxRepeats = 100000;  // that a text may ask for
constexpr char32_t kLastCharacter = 0x10ffff;

struct Node {
  enum class Kind { kText, kClass, kRule, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kSequence;
  std::string lark = {};            // of a text or class
  size_t rule = 0;                  // that is referred to
  std::vector<Node> children = {};  // one of kRepeat
  int min = 0;                      // of kRepeat
  std::optional<int> max = {};      // none: no limit
};

struct Rule {
  std::string name;
  size_t defined_at = 0;  // offset of its definition or, until it has one, of its first use
  std::optional<Node> body;
};

bool StartsName(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool ContinuesName(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
}

// One grammar's text, read once from begin to end.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  StatusOr<std::vector<Rule>> Parse() {
    if (!text::IsValidUtf8(text_)) return absl::InvalidArgumentError("not valid UTF-8");
    SkipSpace();
    while (at_ < text_.size()) KVASIR_RETURN_IF_ERROR(ParseRule());
    for (const Rule& rule : rules_) {
      if (!rule.body) return ErrorAt(rule.defined_at, fmt::format("no rule \"{}\"", rule.name));
    }
    return std::move(rules_);
  }

 private:
  Status ParseRule() {
    const size_t begin = at_;
    const std::string name = TakeName();
    if (name.empty()) return Error("expected the name of a rule");
    if (!Take("::=")) return Error("expected ::=");
    const size_t index = RuleIndex(name, begin);
    if (rules_[index].body) return ErrorAt(begin, fmt::format("a second rule \"{}\"", name));
    KVASIR_ASSIGN_OR_RETURN(Node body, ParseChoice());
    if (at_ < text_.size() && !AtRule()) return Error("unexpected character");
    rules_[index].body = std::move(body);
    return absl::OkStatus();
  }

  StatusOr<Node> ParseChoice() {
    Node choice{.kind = Node::Kind::kChoice};
    do {
      KVASIR_ASSIGN_OR_RETURN(Node sequence, ParseSequence());
      choice.children.push_back(std::move(sequence));
    } while (Take("|"));
    return choice;
  }

  StatusOr<Node> ParseSequence() {
    Node sequence{.kind = Node::Kind::kSequence};
    while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')' && !AtRule()) {
      KVASIR_ASSIGN_OR_RETURN(Node item, ParseItem());
      KVASIR_RETURN_IF_ERROR(ParseRepeat(item));
      sequence.children.push_back(std::move(item));
    }
    return sequence;
  }

  StatusOr<Node> ParseItem() {
    const size_t begin = at_;
    if (text_[at_] == '"') return ParseText();
    if (text_[at_] == '[') return ParseClass();
    if (text_[at_] == '(') return ParseGroup();
    if (Take(".")) return Node{.kind = Node::Kind::kClass, .lark = ClassOf({{0, kLastCharacter}})};
    const std::string name = TakeName();
    if (name.empty()) return Error("expected a text, a class, a rule or a group");
    return Node{.kind = Node::Kind::kRule, .rule = RuleIndex(name, begin)};
  }

  StatusOr<Node> ParseGroup() {
    const size_t begin = at_;
    if (++depth_ > kMaxDepth) return Error("nested too deeply");
    Take("(");
    if (at_ < text_.size() && text_[at_] == '=') return Error("lookahead is not supported");
    KVASIR_ASSIGN_OR_RETURN(Node choice, ParseChoice());
    if (!Take(")")) return ErrorAt(begin, "this ( is not closed");
    --depth_;
    return choice;
  }

  StatusOr<Node> ParseText() {
    const size_t begin = at_++;
    std::string content;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\n') {
      KVASIR_ASSIGN_OR_RETURN(const char32_t c, TakeCharacter());
      text::AppendUtf8(c, content);
    }
    if (!Take("\"")) return ErrorAt(begin, "this text is not closed");
    return Node{.kind = Node::Kind::kText,
                .lark = nlohmann::json(content).dump(-1, ' ', /*ensure_ascii=*/true)};
  }

  StatusOr<Node> ParseClass() {
    const size_t begin = at_++;
    const bool negated = at_ < text_.size() && text_[at_] == '^';
    if (negated) ++at_;
    std::vector<Range> ranges;
    while (at_ < text_.size() && text_[at_] != ']' && text_[at_] != '\n') {
      KVASIR_ASSIGN_OR_RETURN(const Range range, ParseRange());
      ranges.push_back(range);
    }
    if (!Take("]")) return ErrorAt(begin, "this class is not closed");
    if (ranges.empty() && !negated) return ErrorAt(begin, "this class is empty");
    return Node{.kind = Node::Kind::kClass,
                .lark = ranges.empty() ? ClassOf({{0, kLastCharacter}}) : ClassOf(ranges, negated)};
  }

  using Range = std::pair<char32_t, char32_t>;

  StatusOr<Range> ParseRange() {
    const size_t begin = at_;
    KVASIR_ASSIGN_OR_RETURN(const char32_t first, TakeCharacter());
    // A hyphen at the end stands for itself.
    const bool is_range = text_.substr(at_, 1) == "-" && text_.substr(at_ + 1, 1) != "]";
    if (!is_range) return Range{first, first};
    ++at_;
    KVASIR_ASSIGN_OR_RETURN(const char32_t last, TakeCharacter());
    if (last < first) return ErrorAt(begin, "this range is empty");
    return Range{first, last};
  }

  Status ParseRepeat(Node& item) {
    const size_t begin = at_;
    Node repeat{.kind = Node::Kind::kRepeat};
    if (Take("+")) {
      repeat.min = 1;
    } else if (Take("?")) {
      repeat.max = 1;
    } else if (Take("{")) {
      KVASIR_RETURN_IF_ERROR(ParseBounds(begin, repeat));
    } else if (!Take("*")) {
      return absl::OkStatus();
    }
    repeat.children.push_back(std::move(item));
    item = std::move(repeat);
    return absl::OkStatus();
  }

  Status ParseBounds(size_t begin, Node& repeat) {
    const std::optional<int> min = TakeNumber();
    const bool comma = Take(",");
    repeat.max = comma ? TakeNumber() : min;
    if (!Take("}") || (!min && !repeat.max)) {
      return ErrorAt(begin, "expected {n}, {n,}, {,m} or {n,m}");
    }
    repeat.min = min.value_or(0);
    if (repeat.max && *repeat.max < repeat.min) return ErrorAt(begin, "this range is empty");
    if (std::max(repeat.min, repeat.max.value_or(0)) > kMaxRepeats) {
      return ErrorAt(begin, fmt::format("more than {} repetitions", kMaxRepeats));
    }
    return absl::OkStatus();
  }

  // A character of a text or class, perhaps escaped.
  StatusOr<char32_t> TakeCharacter() {
    const size_t begin = at_;
    if (at_ == text_.size()) return Error("unexpected end");
    if (text_[at_] != '\\') {
      const text::Utf8Sequence sequence = text::FirstSequence(text_.substr(at_));
      at_ += sequence.length;
      return sequence.code_point;
    }
    ++at_;
    const char escape = at_ < text_.size() ? text_[at_++] : '\0';
    switch (escape) {
      case 'n':
        return U'\n';
      case 'r':
        return U'\r';
      case 't':
        return U'\t';
      case 'x':
        return TakeHex(begin, 2);
      case 'u':
        return TakeHex(begin, 4);
      case 'U':
        return TakeHex(begin, 8);
      default:
        if (escape != '\0' &&
            std::string_view("\\\"'-[]^").find(escape) != std::string_view::npos) {
          return static_cast<char32_t>(escape);
        }
        return ErrorAt(begin, "unknown escape");
    }
  }

  StatusOr<char32_t> TakeHex(size_t begin, size_t digits) {
    uint64_t value = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) {
        return ErrorAt(begin, fmt::format("expected {} hexadecimal digits", digits));
      }
      value = value * 16 + static_cast<uint64_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (value > kLastCharacter || (value >= 0xd800 && value < 0xe000)) {
      return ErrorAt(begin, "not a character");
    }
    return static_cast<char32_t>(value);
  }

  static std::string ClassOf(const std::vector<Range>& ranges, bool negated = false) {
    std::string out = negated ? "/[^" : "/[";
    for (const auto& [first, last] : ranges) {
      out += fmt::format("\\U{:08x}-\\U{:08x}", static_cast<uint32_t>(first),
                         static_cast<uint32_t>(last));
    }
    return out + "]/";
  }

  bool Take(std::string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    SkipSpace();
    return true;
  }

  std::string TakeName() {
    const size_t begin = at_;
    if (at_ < text_.size() && StartsName(text_[at_])) {
      while (at_ < text_.size() && ContinuesName(text_[at_])) ++at_;
    }
    std::string name(text_.substr(begin, at_ - begin));
    SkipSpace();
    return name;
  }

  std::optional<int> TakeNumber() {
    const size_t begin = at_;
    int value = 0;
    while (at_ < text_.size() && absl::ascii_isdigit(static_cast<unsigned char>(text_[at_]))) {
      value = std::min(value * 10 + (text_[at_++] - '0'), kMaxRepeats + 1);
    }
    if (at_ == begin) return std::nullopt;
    SkipSpace();
    return value;
  }

  void SkipSpace() {
    while (at_ < text_.size()) {
      if (text_[at_] == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (absl::ascii_isspace(static_cast<unsigned char>(text_[at_]))) {
        ++at_;
      } else {
        return;
      }
    }
  }

  // Whether a rule begins here: a name and ::=.
  bool AtRule() {
    if (!StartsName(text_[at_])) return false;
    const size_t begin = at_;
    TakeName();
    const bool is_rule = text_.substr(at_, 3) == "::=";
    at_ = begin;
    return is_rule;
  }

  size_t RuleIndex(const std::string& name, size_t at) {
    const auto [it, is_new] = index_.try_emplace(name, rules_.size());
    if (is_new) rules_.push_back({name, at, std::nullopt});
    return it->second;
  }

  Status Error(std::string_view what) const { return ErrorAt(at_, what); }
  Status ErrorAt(size_t offset, std::string_view what) const {
    const std::string_view before = text_.substr(0, offset);
    const size_t line = static_cast<size_t>(std::count(before.begin(), before.end(), '\n')) + 1;
    const size_t column = offset - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
    return absl::InvalidArgumentError(fmt::format("line {}, column {}: {}", line, column, what));
  }

  std::string_view text_;
  size_t at_ = 0;  // behind spaces and comments, between tokens
  int depth_ = 0;
  std::vector<Rule> rules_;
  absl::flat_hash_map<std::string, size_t> index_;  // into rules_
};

void CollectReferences(const Node& node, std::vector<size_t>& references) {
  if (node.kind == Node::Kind::kRule) references.push_back(node.rule);
  for (const Node& child : node.children) CollectReferences(child, references);
}

// [rule]: whether no rule behind it refers to itself, however far around.
std::vector<bool> RegularRules(const std::vector<Rule>& rules) {
  std::vector<std::vector<size_t>> users(rules.size());
  std::vector<size_t> unknown(rules.size());  // references to rules that are not known as regular
  std::vector<size_t> regular;
  for (size_t rule = 0; rule < rules.size(); ++rule) {
    std::vector<size_t> references;
    CollectReferences(*rules[rule].body, references);
    for (const size_t reference : references) users[reference].push_back(rule);
    unknown[rule] = references.size();
    if (references.empty()) regular.push_back(rule);
  }
  std::vector<bool> is_regular(rules.size());
  while (!regular.empty()) {
    const size_t rule = regular.back();
    regular.pop_back();
    is_regular[rule] = true;
    for (const size_t user : users[rule]) {
      if (--unknown[user] == 0) regular.push_back(user);
    }
  }
  return is_regular;
}

// Lark's lexer takes the longest match of a terminal, whatever comes behind; inside of a terminal
// every match counts. So all that is regular becomes terminals, as large as can be.
class LarkWriter {
 public:
  explicit LarkWriter(const std::vector<Rule>& rules)
      : rules_(rules), is_regular_(RegularRules(rules)) {}

  std::string Write(size_t root) {
    out_ = fmt::format("start: {}\n", NameOf(root));
    for (size_t rule = 0; rule < rules_.size(); ++rule) {
      const std::string body =
          is_regular_[rule] ? Terminal(*rules_[rule].body) : Production(*rules_[rule].body);
      out_ += fmt::format("{}: {}\n", NameOf(rule), body);
    }
    return std::move(out_);
  }

 private:
  std::string NameOf(size_t rule) const {
    return fmt::format("{}{}", is_regular_[rule] ? "T" : "r", rule);
  }

  bool IsRegular(const Node& node) const {
    if (node.kind == Node::Kind::kRule) return is_regular_[node.rule];
    return std::all_of(node.children.begin(), node.children.end(),
                       [this](const Node& child) { return IsRegular(child); });
  }

  std::string Terminal(const Node& node) {
    return Expression(node, [this](const Node& child) { return Terminal(child); });
  }

  std::string Production(const Node& node) {
    if (node.kind == Node::Kind::kSequence) return Production(Grouped(node), node);
    return Expression(node, [this](const Node& child) { return AsItem(child); });
  }

  // Items of a sequence; neighbours that are regular are one.
  std::vector<std::pair<size_t, size_t>> Grouped(const Node& sequence) const {
    std::vector<std::pair<size_t, size_t>> groups;  // [begin, end) of children
    bool extends = false;
    for (size_t i = 0; i < sequence.children.size(); ++i) {
      const bool regular = IsRegular(sequence.children[i]);
      if (extends && regular) {
        groups.back().second = i + 1;
      } else {
        groups.emplace_back(i, i + 1);
      }
      extends = regular;
    }
    return groups;
  }

  std::string Production(const std::vector<std::pair<size_t, size_t>>& groups,
                         const Node& sequence) {
    std::string out;
    for (const auto& [begin, end] : groups) {
      const auto first = sequence.children.begin();
      if (!out.empty()) out += ' ';
      out += end - begin == 1
                 ? AsItem(sequence.children[begin])
                 : AsItem(Node{.kind = Node::Kind::kSequence,
                               .children = {first + static_cast<std::ptrdiff_t>(begin),
                                            first + static_cast<std::ptrdiff_t>(end)}});
    }
    return out.empty() ? "\"\"" : out;
  }

  // A regular node gets a terminal of its own.
  std::string AsItem(const Node& node) {
    if (node.kind == Node::Kind::kRule) return NameOf(node.rule);
    if (!IsRegular(node)) return Production(node);
    const std::string name = fmt::format("T{}", rules_.size() + terminals_++);
    out_ += fmt::format("{}: {}\n", name, Terminal(node));
    return name;
  }

  template <typename WriteChild>
  std::string Expression(const Node& node, WriteChild write) {
    switch (node.kind) {
      case Node::Kind::kText:
      case Node::Kind::kClass:
        return node.lark;
      case Node::Kind::kRule:
        return NameOf(node.rule);
      case Node::Kind::kSequence:
        return Joined(node, " ", write);
      case Node::Kind::kChoice:
        return fmt::format("({})", Joined(node, " | ", write));
      case Node::Kind::kRepeat:
        if (node.max == 0) return "\"\"";
        return fmt::format("({}){}", write(node.children[0]), Bounds(node));
    }
    return "";
  }

  template <typename WriteChild>
  static std::string Joined(const Node& node, std::string_view separator, WriteChild write) {
    std::string out;
    for (size_t i = 0; i < node.children.size(); ++i) {
      if (i > 0) out += separator;
      out += write(node.children[i]);
    }
    return out.empty() ? "\"\"" : out;
  }

  static std::string Bounds(const Node& repeat) {
    if (repeat.max) return fmt::format("{{{},{}}}", repeat.min, *repeat.max);
    return repeat.min == 0 ? "*" : repeat.min == 1 ? "+" : fmt::format("{{{},}}", repeat.min);
  }

  const std::vector<Rule>& rules_;
  const std::vector<bool> is_regular_;
  size_t terminals_ = 0;  // besides the rules'
  std::string out_;
};

}  // namespace

StatusOr<std::string> EbnfToLark(std::string_view ebnf) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Rule> rules, Parser(ebnf).Parse());
  const auto root = std::find_if(rules.begin(), rules.end(),
                                 [](const Rule& rule) { return rule.name == "root"; });
  if (root == rules.end()) return absl::InvalidArgumentError("line 1, column 1: no rule \"root\"");
  return LarkWriter(rules).Write(static_cast<size_t>(root - rules.begin()));
}

}  // namespace kvasir::grammar
