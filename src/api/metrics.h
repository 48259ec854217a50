// The server's metrics, in the Prometheus text format. Names follow vLLM's with the prefix kvasir_.
//
// Thread-safe. Handles are resolved once, at construction: recording takes no label look-up. What
// the engine counts is read from its Stats() when a scrape comes.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "core/engine_client.h"

namespace kvasir::api {

class Metrics {
 private:
  prometheus::Registry registry_;  // owns what the handles below point to
  const EngineClient& engine_;

 public:
  // `engine` outlives this.
  explicit Metrics(const EngineClient& engine);

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
