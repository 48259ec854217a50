// From the engine's thread to the one that publishes: KV events, joined into chains while they
// wait, and the blocks that are held now.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/mutex.h"
#include "cluster/held_blocks.h"
#include "cluster/kv_event_codec.h"
#include "kv/kv_event.h"

namespace kvasir::cluster {

// Makes events of blocks: each that continues the chain of the one before it joins its event.
class EventJoiner {
 public:
  void Store(const Hash128& hash, const std::optional<Hash128>& parent,
             absl::Span<const TokenId> token_ids);
  void Remove(const Hash128& hash);

  int64_t values() const { return values_; }  // hashes and token ids
  std::vector<KvEvent> Take();

 private:
  std::vector<KvEvent> events_;
  int64_t values_ = 0;
};

// Thread-safe. The engine's thread waits at most for `kCopySlots` blocks to be copied.
class KvEventMailbox final : public kv::KvEventListener {
 public:
  static constexpr size_t kCopySlots = 256;

  // `max_values` hashes and token ids may wait; when there are more, events are lost until the next
  // Take(). `keep_held`: CopyHeld is wanted. `on_mail` is called by the engine's thread when events
  // come to an empty mailbox; it must not block.
  KvEventMailbox(int64_t max_values, bool keep_held, std::function<void()> on_mail);

  void OnStored(const kv::BlockStored& event) override;
  void OnRemoved(const kv::BlockRemoved& event) override;

  struct Mail {
    std::vector<KvEvent> events;
    int64_t lost = 0;  // events that came after these
  };
  Mail Take();

  // What is held, parents first. A block that comes or goes meanwhile may or may not be among them:
  // its event is in a later Take().
  std::vector<HeldBlock> CopyHeld() const;

 private:
  // Whether there is room for an event.
  bool Admit() REQUIRES(mutex_);

  const int64_t max_values_;
  const bool keep_held_;
  const std::function<void()> on_mail_;

  mutable Mutex mutex_;
  EventJoiner waiting_ GUARDED_BY(mutex_);
  int64_t lost_ GUARDED_BY(mutex_) = 0;
  HeldBlocks held_ GUARDED_BY(mutex_);
};

}  // namespace kvasir::cluster
