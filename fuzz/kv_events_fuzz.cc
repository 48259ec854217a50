// The reader of KV events on arbitrary bytes: what it accepts is written and read again the same.
#include "cluster/kv_event_codec.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir::cluster;
  const KvEventLimits limits{.max_bytes = 1 << 16, .max_values = 1 << 12};
  kvasir::StatusOr<KvEventBatch> batch = DecodeKvEvents({data, size}, limits);
  if (!batch.ok()) return 0;
  if (batch->timestamp != batch->timestamp) batch->timestamp = 0;  // not a number equals nothing
  for (KvEvent& event : batch->events) {                           // what is read only
    if (auto* stored = std::get_if<StoredEvent>(&event)) {
      stored->has_extra_keys = false;
      stored->group.reset();
    } else if (auto* removed = std::get_if<RemovedEvent>(&event)) {
      removed->group.reset();
    }
  }
  const auto again = DecodeKvEvents(EncodeKvEvents(*batch, HashForm::kBytes));
  if (!again.ok() || !(*again == *batch)) std::abort();
  DecodeKvEvents(EncodeKvEvents(*batch, HashForm::kInt64)).IgnoreError();
  return 0;
}
