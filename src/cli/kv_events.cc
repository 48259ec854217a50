#include "cli/kv_events.h"

#include <prometheus/metric_family.h>

#include <utility>
#include <vector>

#include "base/log.h"

namespace kvasir::cli {
namespace {

class Counters final : public prometheus::Collectable {
 public:
  explicit Counters(std::shared_ptr<const cluster::KvEventPublisher> publisher)
      : publisher_(std::move(publisher)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    const cluster::KvEventPublisher::Stats stats = publisher_->stats();
    return {Family("kvasir_kv_event_batches_published_total", "Batches of KV events published.",
                   stats.published),
            Family("kvasir_kv_event_batches_dropped_total",
                   "Batches of KV events that came faster than they could be published.",
                   stats.dropped),
            Family("kvasir_kv_event_replays_total", "Replays of KV events that were asked for.",
                   stats.replays),
            Family("kvasir_kv_event_snapshots_total", "Snapshots of KV blocks that were sent.",
                   stats.snapshots)};
  }

 private:
  static prometheus::MetricFamily Family(const char* name, const char* help, int64_t value) {
    prometheus::ClientMetric metric;
    metric.counter.value = static_cast<double>(value);
    return {name, help, prometheus::MetricType::Counter, {std::move(metric)}};
  }

  const std::shared_ptr<const cluster::KvEventPublisher> publisher_;
};

}  // namespace

void AddKvEventsOptions(Command& command, KvEventsConfig* config) {
  command
      .Add("kv-events-endpoint", &config->endpoint,
           "Publish KV events there as vLLM does, for example on tcp://127.0.0.1:5557")
      ->default_str("");
  command
      .Add("kv-events-replay-endpoint", &config->replay_endpoint,
           "Replay KV events there, and send snapshots of what is cached")
      ->default_str("");
  command.Add("kv-events-topic", &config->topic, "Topic that KV events are published under")
      ->default_str("");
  command
      .Add("kv-events-hashes", &config->hashes,
           "Form of block hashes in KV events: int64 is read by all routers, bytes is exact")
      ->check(CLI::IsMember({"int64", "bytes"}));
  command.AddSwitch("kv-events-allow-remote", &config->allow_remote,
                    "Let KV events, which are not encrypted, be read from other machines");
}

StatusOr<std::shared_ptr<cluster::KvEventPublisher>> StartKvEvents(const KvEventsConfig& config) {
  if (config.endpoint.empty()) {
    if (config.replay_endpoint.empty()) return nullptr;
    return absl::InvalidArgumentError("kv-events-replay-endpoint: needs a kv-events-endpoint");
  }
  KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<cluster::KvEventPublisher> publisher,
                          cluster::KvEventPublisher::Start(
                              {.endpoint = config.endpoint,
                               .replay_endpoint = config.replay_endpoint,
                               .topic = config.topic,
                               .allow_remote = config.allow_remote,
                               .hash_form = config.hashes == "bytes" ? cluster::HashForm::kBytes
                                                                     : cluster::HashForm::kInt64}));
  spdlog::info("publishing KV events on {}", publisher->endpoint());
  if (!config.replay_endpoint.empty()) {
    spdlog::info("replaying KV events on {}", publisher->replay_endpoint());
  }
  return publisher;
}

std::shared_ptr<prometheus::Collectable> KvEventMetrics(
    std::shared_ptr<const cluster::KvEventPublisher> publisher) {
  return std::make_shared<Counters>(std::move(publisher));
}

}  // namespace kvasir::cli
