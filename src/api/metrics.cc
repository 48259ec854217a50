#include "api/metrics.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>
#include <map>
#include <sstream>
#include <utility>
#include <vector>

namespace kvasir::api {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

using Labels = std::map<std::string, std::string>;

prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const std::string& model,
                                    const char* name, const char* help,
                                    const prometheus::Histogram::BucketBoundaries& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(
      Labels{{"model_name", model}}, bounds);
}

prometheus::Counter& AddCounter(prometheus::Registry& registry, const char* name, const char* help,
                                const Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Counter& AddFinished(prometheus::Registry& registry, const std::string& model,
                                 const char* reason) {
  return AddCounter(registry, "kvasir_request_success_total", "Finished requests by reason.",
                    {{"model_name", model}, {"finished_reason", reason}});
}

prometheus::Counter& AddHttp(prometheus::Registry& registry, const char* status) {
  return AddCounter(registry, "kvasir_http_responses_total", "HTTP answers by class of status.",
                    {{"status", status}});
}

prometheus::Gauge& AddGauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(Labels{});
}

const std::vector<double> kFirstTokenBounds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08,
                                               0.1,   0.25,  0.5,  0.75, 1,    2.5,  5,
                                               7.5,   10,    20,   40,   80,   160};
const std::vector<double> kTokenBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                          0.2,   0.3,    0.4,   0.5,  0.75,  1,    2.5,   5};
const std::vector<double> kRequestBounds = {0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,  2.5, 5,
                                            10,  15,  20,  30,  40, 50,  60, 120, 240};
const std::vector<double> kLengthBounds = {1,   2,    5,    10,   20,    50,    100,   200,
                                           500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

// One family whose samples are read from the engine at scrape time.
class EngineFamily {
 public:
  EngineFamily(std::string name, std::string help, MetricType type) {
    family_.name = std::move(name);
    family_.help = std::move(help);
    family_.type = type;
  }

  EngineFamily& Add(std::vector<ClientMetric::Label> labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    if (family_.type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    family_.metric.push_back(std::move(metric));
    return *this;
  }

  EngineFamily& Add(std::vector<ClientMetric::Label> labels, const Histogram& histogram) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.histogram.sample_sum = histogram.sum();
    uint64_t below = 0;
    for (size_t i = 0; i < histogram.counts().size(); ++i) {
      below += histogram.counts()[i];
      const bool last = i == histogram.bounds().size();
      metric.histogram.bucket.push_back(
          {below, last ? std::numeric_limits<double>::infinity() : histogram.bounds()[i]});
    }
    metric.histogram.sample_count = below;
    family_.metric.push_back(std::move(metric));
    return *this;
  }

  MetricFamily Take() { return std::move(family_); }

 private:
  MetricFamily family_;
};

std::vector<MetricFamily> EngineFamilies(const std::string& model, const EngineStats& s) {
  std::vector<MetricFamily> out;
  const ClientMetric::Label label{"model_name", model};
  const auto gauge = [&](const char* name, const char* help, double value) {
    out.push_back(EngineFamily(name, help, MetricType::Gauge).Add({label}, value).Take());
  };
  const auto counter = [&](const char* name, const char* help, int64_t value) {
    out.push_back(EngineFamily(name, help, MetricType::Counter)
                      .Add({label}, static_cast<double>(value))
                      .Take());
  };
  const auto histogram = [&](const char* name, const char* help, const Histogram& value) {
    out.push_back(EngineFamily(name, help, MetricType::Histogram).Add({label}, value).Take());
  };
  gauge("kvasir_num_requests_running", "Sequences in the batch.", s.running);
  gauge("kvasir_num_requests_waiting", "Sequences waiting for room in the batch.", s.waiting);
  const double total = std::max<int64_t>(1, s.blocks_total);
  gauge("kvasir_kv_cache_usage_perc", "KV blocks held by sequences, 1 being all of them.",
        s.blocks_held / total);
  out.push_back(EngineFamily("kvasir_kv_blocks", "KV blocks by state.", MetricType::Gauge)
                    .Add({label, {"state", "total"}}, s.blocks_total)
                    .Add({label, {"state", "held"}}, s.blocks_held)
                    .Add({label, {"state", "cached"}}, s.blocks_cached)
                    .Take());
  counter("kvasir_prompt_tokens_total", "Prompt tokens of admitted requests.", s.prompt_tokens);
  counter("kvasir_generation_tokens_total", "Generated tokens.", s.generated_tokens);
  counter("kvasir_prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
          s.prompt_tokens);
  counter("kvasir_prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
          s.cached_prompt_tokens);
  counter("kvasir_prefill_tokens_computed_total",
          "Prompt tokens computed, recomputation after preemption included.",
          s.computed_prompt_tokens);
  counter("kvasir_num_preemptions_total", "Preempted sequences.", s.preemptions);
  counter("kvasir_forks_total",
          "Choices forked from a prefilled prompt, and beams from one another.", s.forks);
  counter("kvasir_copy_on_writes_total", "KV blocks copied before a write.", s.copy_on_writes);
  counter("kvasir_prefill_chunks_total", "Prefill chunks that did not end their prompt.",
          s.prefill_chunks);
  counter("kvasir_forced_tokens_total", "Tokens that a constraint forced without a pass.",
          s.forced_tokens);
  counter("kvasir_late_guides_total", "Draws that waited for their constraint.", s.late_guides);
  counter("kvasir_spec_decode_num_draft_tokens_total", "Drafts that were computed.",
          s.drafted_tokens);
  counter("kvasir_spec_decode_num_accepted_tokens_total", "Drafts that came true.",
          s.accepted_drafts);
  counter("kvasir_engine_steps_total", "Forward passes.", s.steps);
  histogram("kvasir_request_queue_time_seconds", "From a request's acceptance to its first pass.",
            s.queue_seconds);
  histogram("kvasir_engine_step_seconds", "A step of the engine.", s.step_seconds);
  histogram("kvasir_iteration_tokens", "Tokens computed in a step.", s.step_tokens);
  return out;
}

}  // namespace

Metrics::Metrics(const EngineClient& engine,
                 std::vector<std::shared_ptr<const prometheus::Collectable>> others)
    : engine_(engine),
      others_(std::move(others)),
      time_to_first_token(
          AddHistogram(registry_, engine.Model().name, "kvasir_time_to_first_token_seconds",
                       "From the request's arrival to its first token.", kFirstTokenBounds)),
      inter_token_latency(AddHistogram(registry_, engine.Model().name,
                                       "kvasir_inter_token_latency_seconds",
                                       "Between two tokens of a choice.", kTokenBounds)),
      e2e_request_latency(
          AddHistogram(registry_, engine.Model().name, "kvasir_e2e_request_latency_seconds",
                       "From the request's arrival to its last token.", kRequestBounds)),
      request_prompt_tokens(AddHistogram(registry_, engine.Model().name,
                                         "kvasir_request_prompt_tokens", "Prompt tokens a request.",
                                         kLengthBounds)),
      request_generation_tokens(AddHistogram(registry_, engine.Model().name,
                                             "kvasir_request_generation_tokens",
                                             "Generated tokens a request.", kLengthBounds)),
      finished_stop(AddFinished(registry_, engine.Model().name, "stop")),
      finished_length(AddFinished(registry_, engine.Model().name, "length")),
      finished_abort(AddFinished(registry_, engine.Model().name, "abort")),
      finished_error(AddFinished(registry_, engine.Model().name, "error")),
      http_2xx(AddHttp(registry_, "2xx")),
      http_4xx(AddHttp(registry_, "4xx")),
      http_5xx(AddHttp(registry_, "5xx")),
      http_connections(AddGauge(registry_, "kvasir_http_connections", "Open client connections.")),
      text_pool_waiting(
          AddGauge(registry_, "kvasir_text_pool_waiting", "Large inputs waiting to be tokenized.")),
      access_log_dropped(
          AddCounter(registry_, "kvasir_access_log_dropped_total",
                     "Lines of the access log that its file was too slow for or refused.", {})) {}

std::string Metrics::Serialize() const {
  std::vector<MetricFamily> families = EngineFamilies(engine_.Model().name, engine_.Stats());
  const auto add = [&](std::vector<MetricFamily> more) {
    families.insert(families.end(), std::make_move_iterator(more.begin()),
                    std::make_move_iterator(more.end()));
  };
  add(registry_.Collect());
  for (const auto& other : others_) add(other->Collect());
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return std::move(out).str();
}

}  // namespace kvasir::api
