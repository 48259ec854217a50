#include "grammar/bridged_matcher.h"

#include <fmt/format.h>

#include <utility>

#include "text/bridge.h"

namespace kvasir::grammar {
namespace {

using text::BridgeIds;
using text::BridgeString;

class BridgedMatcher final : public Matcher {
 public:
  // A clone of `handle`.
  BridgedMatcher(const kvb_matcher* handle, int32_t vocab_size) : vocab_size_(vocab_size) {
    BridgeString error;
    handle_.reset(kvb_matcher_clone(handle, error.out()));
    if (handle_ == nullptr) status_ = Failure(error);
  }

  std::unique_ptr<Matcher> Clone() const override {
    auto clone = std::make_unique<BridgedMatcher>(handle_.get(), vocab_size_);
    if (!status_.ok()) clone->status_ = status_;
    return clone;
  }

  StatusOr<std::vector<TokenId>> Forced() override {
    if (!status_.ok()) return status_;
    BridgeIds ids;
    BridgeString error;
    if (!kvb_matcher_forced(handle_.get(), ids.out(), error.out())) return Fail(error);
    return ids.ToVector();
  }

  Status FillMask(absl::Span<uint32_t> mask) override {
    if (!status_.ok()) return status_;
    if (mask.size() != MaskWords(vocab_size_)) {
      return absl::InvalidArgumentError("the mask does not fit the vocabulary");
    }
    BridgeString error;
    if (!kvb_matcher_fill_mask(handle_.get(), mask.data(), mask.size(), error.out())) {
      return Fail(error);
    }
    return absl::OkStatus();
  }

  Status Consume(TokenId id) override {
    if (!status_.ok()) return status_;
    BridgeString error;
    // A negative id becomes one behind any vocabulary.
    if (!kvb_matcher_consume(handle_.get(), static_cast<uint32_t>(id), error.out())) {
      return Fail(error);
    }
    return absl::OkStatus();
  }

  Status Rollback(int32_t tokens) override {
    if (!status_.ok()) return status_;
    BridgeString error;
    // Likewise, more tokens than were consumed.
    if (!kvb_matcher_rollback(handle_.get(), static_cast<size_t>(tokens), error.out())) {
      return Fail(error);
    }
    return absl::OkStatus();
  }

  bool ended() const override { return handle_ == nullptr || kvb_matcher_ended(handle_.get()); }

 private:
  Status Fail(const BridgeString& error) {
    status_ = Failure(error);
    return status_;
  }
  static Status Failure(const BridgeString& error) {
    return absl::InvalidArgumentError(fmt::format("constraint: {}", error.view()));
  }

  int32_t vocab_size_;
  BridgeMatcher handle_;
  Status status_;  // the first error
};

class BridgedGrammar final : public Grammar {
 public:
  BridgedGrammar(BridgeMatcher beginning, int32_t vocab_size)
      : beginning_(std::move(beginning)), vocab_size_(vocab_size) {}

  std::unique_ptr<Matcher> NewMatcher() const override {
    return std::make_unique<BridgedMatcher>(beginning_.get(), vocab_size_);
  }

 private:
  BridgeMatcher beginning_;
  int32_t vocab_size_;
};

}  // namespace

std::shared_ptr<const Grammar> MakeGrammar(BridgeMatcher beginning, int32_t vocab_size) {
  return std::make_shared<BridgedGrammar>(std::move(beginning), vocab_size);
}

}  // namespace kvasir::grammar
