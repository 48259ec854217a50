#include "text/decoding.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "text/utf8.h"

namespace kvasir::text {
namespace {

using nlohmann::json;

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

bool IsPrintableByte(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

// GPT-2's alphabet turned round: printable bytes stand for themselves, the others for the code
// points from 256 on, in order. -1: no letter of the alphabet.
constexpr int kAlphabetEnd = 256 + 68;
std::array<int16_t, kAlphabetEnd> MakeByteOfLetter() {
  std::array<int16_t, kAlphabetEnd> byte_of;
  byte_of.fill(-1);
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    byte_of[IsPrintableByte(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return byte_of;
}

std::optional<std::string> ByteLevelBytes(std::string_view name) {
  static const std::array<int16_t, kAlphabetEnd> kByteOfLetter = MakeByteOfLetter();
  std::string bytes;
  while (!name.empty()) {
    const Utf8Sequence letter = FirstSequence(name);
    if (letter.kind != Utf8Sequence::kValid || letter.code_point >= kAlphabetEnd) return {};
    const int byte = kByteOfLetter[letter.code_point];
    if (byte < 0) return {};
    bytes += static_cast<char>(byte);
    name.remove_prefix(letter.length);
  }
  return bytes;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

std::optional<char> ByteOfName(std::string_view name) {
  if (name.size() != 6 || !name.starts_with("<0x") || name.back() != '>') return {};
  const int high = HexDigit(name[3]);
  const int low = HexDigit(name[4]);
  if (high < 0 || low < 0) return {};
  return static_cast<char>(high * 16 + low);
}

std::string SentencePieceBytes(std::string_view name) {
  if (const std::optional<char> byte = ByteOfName(name)) return std::string(1, *byte);
  std::string bytes;
  while (!name.empty()) {
    if (name.starts_with(kSpaceMark)) {
      bytes += ' ';
      name.remove_prefix(kSpaceMark.size());
    } else {
      bytes += name.front();
      name.remove_prefix(1);
    }
  }
  return bytes;
}

Status Unsupported(const json& step) {
  return absl::UnimplementedError(fmt::format("decoder: unsupported: {}", step.dump()));
}

// One step of a decoder, folded into what the steps before it gave.
Status Apply(const json& step, Decoding& decoding) {
  const std::string type = step.value("type", "");
  if (type == "ByteLevel") {
    decoding.alphabet = Decoding::kByteLevel;
    return absl::OkStatus();
  }
  if (type == "ByteFallback" || type == "Fuse") return absl::OkStatus();
  if (type == "Metaspace") {
    if (step.value("replacement", "") != kSpaceMark) return Unsupported(step);
    decoding.alphabet = Decoding::kSentencePiece;
    decoding.drops_first_space = step.value("prepend_scheme", "always") != "never";
    return absl::OkStatus();
  }
  if (type == "Replace") {
    const json pattern = step.value("pattern", json::object());
    if (pattern.value("String", "") != kSpaceMark || step.value("content", "") != " ") {
      return Unsupported(step);
    }
    decoding.alphabet = Decoding::kSentencePiece;
    return absl::OkStatus();
  }
  if (type == "Strip") {
    if (step.value("content", "") != " " || step.value("stop", 0) != 0 ||
        step.value("start", 0) > 1) {
      return Unsupported(step);
    }
    decoding.drops_first_space = step.value("start", 0) == 1;
    return absl::OkStatus();
  }
  return Unsupported(step);
}

}  // namespace

std::string Decoding::BytesOf(std::string_view name) const {
  if (alphabet == kSentencePiece) return SentencePieceBytes(name);
  return ByteLevelBytes(name).value_or(std::string(name));
}

StatusOr<Decoding> ParseDecoding(std::string_view decoder_json) {
  const json decoder = json::parse(decoder_json, nullptr, /*allow_exceptions=*/false);
  if (!decoder.is_object()) {
    return absl::UnimplementedError(fmt::format("decoder: unsupported: {}", decoder_json));
  }
  Decoding decoding;
  if (decoder.value("type", "") != "Sequence") {
    KVASIR_RETURN_IF_ERROR(Apply(decoder, decoding));
    return decoding;
  }
  for (const json& step : decoder.value("decoders", json::array())) {
    KVASIR_RETURN_IF_ERROR(Apply(step, decoding));
  }
  return decoding;
}

}  // namespace kvasir::text
