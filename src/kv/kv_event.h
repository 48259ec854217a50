// What a prefix index tells of its contents, in the terms of the KV-event wire format: enough to
// build a copy of the index elsewhere.
#pragma once

#include <absl/types/span.h>

#include <cstdint>

#include "base/hash128.h"
#include "core/batch.h"

namespace kvasir::kv {

struct BlockStored {
  Hash128 hash;
  Hash128 parent;  // the hash of the block before it, or the request's cache root
  absl::Span<const TokenId> token_ids;  // [block size]; valid during the call
  BlockId block = 0;                    // where it lies in this engine's pool
  bool is_first = false;                // `parent` is the cache root
};

struct BlockRemoved {
  Hash128 hash;
};

// Called on the thread that owns the index, in the order of the changes: must not block, and must
// not call the index.
class KvEventListener {
 public:
  virtual ~KvEventListener() = default;
  virtual void OnStored(const BlockStored& event) = 0;
  virtual void OnRemoved(const BlockRemoved& event) = 0;
};

}  // namespace kvasir::kv
