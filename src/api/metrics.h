// The server's metrics, in the Prometheus text format. Names follow vLLM's with the prefix kvasir_.
//
// Thread-safe. Handles are resolved once, at construction: recording takes no label look-up. What
// the engine counts is read from its Stats() when a scrape comes.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>
#include <vector>

#include "core/engine_client.h"

namespace kvasir::api {

class Metrics {
 private:
  prometheus::Registry registry_;  // owns what the handles below point to
  const EngineClient& engine_;
  const std::vector<std::shared_ptr<const prometheus::Collectable>> others_;

 public:
  // `engine` outlives this. What `others` collect is shown too.
  explicit Metrics(const EngineClient& engine,
                   std::vector<std::shared_ptr<const prometheus::Collectable>> others = {});

  // The text exposition format, version 0.0.4.
  std::string Serialize() const;

  // Seconds.
  prometheus::Histogram& time_to_first_token;
  prometheus::Histogram& inter_token_latency;
  prometheus::Histogram& e2e_request_latency;
  // Tokens a request.
  prometheus::Histogram& request_prompt_tokens;
  prometheus::Histogram& request_generation_tokens;
  // Requests by how they ended.
  prometheus::Counter& finished_stop;
  prometheus::Counter& finished_length;
  prometheus::Counter& finished_abort;
  prometheus::Counter& finished_error;
  // Answers by class of status.
  prometheus::Counter& http_2xx;
  prometheus::Counter& http_4xx;
  prometheus::Counter& http_5xx;
  prometheus::Gauge& http_connections;
  prometheus::Gauge& text_pool_waiting;
  prometheus::Counter& access_log_dropped;
};

}  // namespace kvasir::api
