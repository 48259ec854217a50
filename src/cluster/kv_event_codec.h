// KV events on the wire, as vLLM publishes them, so that routers written for vLLM can index Kvasir
// and Kvasir's can index vLLM: msgpack of a batch
//
//   [ts, [event, ...], data_parallel_rank?]
//   ["BlockStored", block_hashes, parent_block_hash, token_ids, block_size, lora_id, medium,
//    lora_name, extra_keys, group_idx, ...]
//   ["BlockRemoved", block_hashes, medium, group_idx, ...]
//   ["AllBlocksCleared"]
//
// Fields were added at the end over time; those from lora_id on may be missing. Later versions of
// vLLM send events, and then the batch too, as maps with these names as keys and the event's in
// "type". All of these are read; arrays are written, which is what the most readers know.
//
// Source: vllm/distributed/kv_events.py and examples/online_serving/kv_events_subscriber.py of
// github.com/vllm-project/vllm.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "cluster/external_hash.h"
#include "core/sampling_params.h"

namespace kvasir::cluster {

struct StoredEvent {
  std::vector<ExternalHash> hashes;    // each the child of the one before it
  std::optional<ExternalHash> parent;  // of the first; none: it begins a prompt
  // [hashes x block_size], where the publisher keeps to it: whoever uses them checks.
  std::vector<TokenId> token_ids;
  int32_t block_size = 0;  // tokens, > 0
  std::optional<int64_t> lora_id;
  std::optional<std::string> medium;  // none: where the engine computes, which vLLM calls "GPU"
  std::optional<std::string> lora_name;
  // More than tokens and adapter went into a hash: images, a cache salt. Read only.
  bool has_extra_keys = false;
  std::optional<int32_t> group;  // of layers with a cache of their own. Read only.

  friend bool operator==(const StoredEvent&, const StoredEvent&) = default;
};

struct RemovedEvent {
  std::vector<ExternalHash> hashes;
  std::optional<std::string> medium;
  std::optional<int32_t> group;  // Read only.

  friend bool operator==(const RemovedEvent&, const RemovedEvent&) = default;
};

struct ClearedEvent {
  friend bool operator==(const ClearedEvent&, const ClearedEvent&) = default;
};

using KvEvent = std::variant<StoredEvent, RemovedEvent, ClearedEvent>;

struct KvEventBatch {
  double timestamp = 0;  // s since 1970
  std::vector<KvEvent> events;
  std::optional<int32_t> data_parallel_rank;

  friend bool operator==(const KvEventBatch&, const KvEventBatch&) = default;
};

// What a payload may take of its reader.
struct KvEventLimits {
  size_t max_bytes = 4 << 20;
  int64_t max_values = 1 << 20;  // in all arrays and maps together
  int max_depth = 8;
};

// Events of other names are left out, as are fields that are not named above. InvalidArgument names
// the field at fault.
StatusOr<KvEventBatch> DecodeKvEvents(absl::Span<const uint8_t> payload,
                                      const KvEventLimits& limits = {});

// Integers are what vLLM sends unless it is told otherwise, and all that some routers read.
enum class HashForm { kInt64, kBytes };

std::vector<uint8_t> EncodeKvEvents(const KvEventBatch& batch, HashForm form);

}  // namespace kvasir::cluster
