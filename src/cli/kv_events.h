// `kvasir serve --kv-events-endpoint`: the KV events of the server's engine, published.
#pragma once

#include <prometheus/collectable.h>

#include <memory>
#include <string>

#include "base/status.h"
#include "cli/command.h"
#include "cluster/kv_event_publisher.h"

namespace kvasir::cli {

struct KvEventsConfig {
  std::string endpoint;  // empty: none are published
  std::string replay_endpoint;
  std::string topic;
  std::string hashes = "int64";
  bool allow_remote = false;
};

void AddKvEventsOptions(Command& command, KvEventsConfig* config);

// Null where the configuration wants none.
StatusOr<std::shared_ptr<cluster::KvEventPublisher>> StartKvEvents(const KvEventsConfig& config);

// What `publisher` counts, for /metrics.
std::shared_ptr<prometheus::Collectable> KvEventMetrics(
    std::shared_ptr<const cluster::KvEventPublisher> publisher);

}  // namespace kvasir::cli
