#include "cluster/kv_event_mailbox.h"

#include <utility>

namespace kvasir::cluster {
namespace {

// vLLM's name for the memory that the engine computes from, whatever the device.
constexpr const char* kMedium = "GPU";

}  // namespace

void EventJoiner::Store(const Hash128& hash, const std::optional<Hash128>& parent,
                        absl::Span<const TokenId> token_ids) {
  values_ += 1 + static_cast<int64_t>(token_ids.size());
  auto* last = events_.empty() ? nullptr : std::get_if<StoredEvent>(&events_.back());
  if (last == nullptr || !parent || last->hashes.back() != ExternalHash(*parent)) {
    last = &std::get<StoredEvent>(events_.emplace_back(StoredEvent{}));
    if (parent) last->parent = ExternalHash(*parent);
    last->block_size = static_cast<int32_t>(token_ids.size());
    last->medium = kMedium;
  }
  last->hashes.emplace_back(hash);
  last->token_ids.insert(last->token_ids.end(), token_ids.begin(), token_ids.end());
}

void EventJoiner::Remove(const Hash128& hash) {
  ++values_;
  auto* last = events_.empty() ? nullptr : std::get_if<RemovedEvent>(&events_.back());
  if (last == nullptr) {
    last = &std::get<RemovedEvent>(events_.emplace_back(RemovedEvent{.medium = kMedium}));
  }
  last->hashes.emplace_back(hash);
}

std::vector<KvEvent> EventJoiner::Take() {
  values_ = 0;
  return std::exchange(events_, {});
}

KvEventMailbox::KvEventMailbox(int64_t max_values, bool keep_held, std::function<void()> on_mail)
    : max_values_(max_values), keep_held_(keep_held), on_mail_(std::move(on_mail)) {}

// What was lost lies in one place, after all that waits: nothing may come behind it.
bool KvEventMailbox::Admit() {
  if (lost_ == 0 && waiting_.values() < max_values_) return true;
  ++lost_;
  return false;
}

void KvEventMailbox::OnStored(const kv::BlockStored& event) {
  bool first = false;
  {
    MutexLock lock(mutex_);
    first = waiting_.values() == 0;
    if (keep_held_) held_.Store(event);
    if (Admit()) {
      waiting_.Store(event.hash, event.is_first ? std::nullopt : std::optional(event.parent),
                     event.token_ids);
    }
  }
  if (first) on_mail_();
}

void KvEventMailbox::OnRemoved(const kv::BlockRemoved& event) {
  bool first = false;
  {
    MutexLock lock(mutex_);
    first = waiting_.values() == 0;
    if (keep_held_) held_.Remove(event.hash);
    if (Admit()) waiting_.Remove(event.hash);
  }
  if (first) on_mail_();
}

KvEventMailbox::Mail KvEventMailbox::Take() {
  MutexLock lock(mutex_);
  return {waiting_.Take(), std::exchange(lost_, 0)};
}

std::vector<HeldBlock> KvEventMailbox::CopyHeld() const {
  std::vector<HeldBlock> blocks;
  size_t slots = 1;
  for (size_t first = 0; first < slots; first += kCopySlots) {
    MutexLock lock(mutex_);
    slots = held_.slots();
    held_.Copy(first, kCopySlots, &blocks);
  }
  return ParentsFirst(std::move(blocks));
}

}  // namespace kvasir::cluster
