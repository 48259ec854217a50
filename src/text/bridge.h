// RAII over the bridge's C ABI. For the .cc files of this folder and of grammar/.
#pragma once

#include <kvasir_bridge.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/sampling_params.h"

namespace kvasir::text {

inline kvb_str ToBridge(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view FromBridge(kvb_str text) { return {text.data, text.len}; }

// Receives a string of the bridge and frees it.
class BridgeString {
 public:
  BridgeString() = default;
  ~BridgeString() { kvb_string_free(value_); }
  BridgeString(const BridgeString&) = delete;
  BridgeString& operator=(const BridgeString&) = delete;

  kvb_string* out() { return &value_; }
  std::string_view view() const { return {value_.data, value_.len}; }
  std::string text() const { return std::string(view()); }

 private:
  kvb_string value_{};
};

// Receives ids of the bridge and frees them.
class BridgeIds {
 public:
  BridgeIds() = default;
  ~BridgeIds() { kvb_ids_free(value_); }
  BridgeIds(const BridgeIds&) = delete;
  BridgeIds& operator=(const BridgeIds&) = delete;

  kvb_ids* out() { return &value_; }
  std::vector<TokenId> ToVector() const { return {value_.data, value_.data + value_.len}; }

 private:
  kvb_ids value_{};
};

struct FreeBridgeHandle {
  void operator()(kvb_tokenizer* handle) const { kvb_tokenizer_free(handle); }
  void operator()(kvb_template* handle) const { kvb_template_free(handle); }
};
using BridgeTokenizer = std::unique_ptr<kvb_tokenizer, FreeBridgeHandle>;
using BridgeTemplate = std::unique_ptr<kvb_template, FreeBridgeHandle>;

}  // namespace kvasir::text
