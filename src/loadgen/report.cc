#include "loadgen/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace kvasir::loadgen {
namespace {

double Ms(Duration d) { return ToSeconds(d) * 1000; }

// None where there are no two tokens to be apart.
std::optional<double> TpotMs(const RequestRecord& record) {
  if (record.chunks.size() < 2 || record.output_tokens < 2) return {};
  return Ms(record.chunks.back() - record.chunks.front()) /
         static_cast<double>(record.output_tokens - 1);
}

bool IsGood(const RequestRecord& record, const Options& options) {
  if (record.chunks.empty()) return false;
  const double ttft = Ms(record.chunks.front() - record.sent);
  const double tpot = TpotMs(record).value_or(0);
  return (options.slo_ttft_ms <= 0 || ttft <= options.slo_ttft_ms) &&
         (options.slo_tpot_ms <= 0 || tpot <= options.slo_tpot_ms);
}

double WallSeconds(const std::vector<RequestRecord>& records) {
  if (records.empty()) return 0;
  TimePoint first = records.front().sent;
  TimePoint last = records.front().ended;
  for (const RequestRecord& record : records) {
    first = std::min(first, record.sent);
    last = std::max(last, record.ended);
  }
  return ToSeconds(last - first);
}

struct Samples {
  std::vector<double> ttft, tpot, itl, e2e;

  void Add(const RequestRecord& record) {
    e2e.push_back(Ms(record.ended - record.sent));
    if (record.chunks.empty()) return;
    ttft.push_back(Ms(record.chunks.front() - record.sent));
    if (const auto value = TpotMs(record)) tpot.push_back(*value);
    for (size_t i = 1; i < record.chunks.size(); ++i) {
      itl.push_back(Ms(record.chunks[i] - record.chunks[i - 1]));
    }
  }
};

std::string Slo(double bound) { return bound > 0 ? fmt::format("{:g} ms", bound) : "any"; }

nlohmann::json DistributionJson(const Distribution& d) {
  return {{"count", d.count}, {"mean", d.mean}, {"p50", d.p50},
          {"p90", d.p90},     {"p99", d.p99},   {"max", d.max}};
}

double Percent(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

nlohmann::json OptionsJson(const Options& o) {
  return {{"url", o.url},
          {"prompts", PromptStyleName(o.style)},
          {"conversations", o.conversations},
          {"turns", o.turns},
          {"input_length", o.input_length},
          {"output_length", o.output_length},
          {"length_spread", o.length_spread},
          {"shared_prefix_length", o.shared_prefix_length},
          {"shared_prefix_groups", o.shared_prefix_groups},
          {"concurrency", o.concurrency},
          {"rate", o.rate},
          {"warmup_conversations", o.warmup_conversations},
          {"temperature", o.temperature},
          {"ignore_eos", o.ignore_eos},
          {"extra_body", o.extra_body},
          {"seed", o.seed}};
}

}  // namespace

Report MakeReport(const Options& options, std::string model,
                  const std::vector<RequestRecord>& records) {
  Report report;
  report.options = options;
  report.model = std::move(model);
  report.duration_s = WallSeconds(records);
  Samples samples;
  for (const RequestRecord& record : records) {
    if (!record.error.empty()) {
      ++report.failed;
      ++report.errors[record.error];
      continue;
    }
    ++report.succeeded;
    report.input_tokens += record.input_tokens;
    report.cached_tokens += record.cached_tokens;
    report.output_tokens += record.output_tokens;
    if (IsGood(record, options)) ++report.good;
    samples.Add(record);
  }
  report.ttft = Summarize(std::move(samples.ttft));
  report.tpot = Summarize(std::move(samples.tpot));
  report.itl = Summarize(std::move(samples.itl));
  report.e2e = Summarize(std::move(samples.e2e));
  if (report.duration_s > 0) {
    const auto rate = [&report](int64_t n) { return static_cast<double>(n) / report.duration_s; };
    report.request_rate = rate(report.succeeded);
    report.input_rate = rate(report.input_tokens);
    report.output_rate = rate(report.output_tokens);
    report.goodput = rate(report.good);
  }
  return report;
}

std::string FormatTable(const Report& r) {
  std::string out;
  const auto line = std::back_inserter(out);
  fmt::format_to(line, "{:<12}{} at {}\n", "model", r.model.empty() ? "?" : r.model, r.options.url);
  fmt::format_to(line, "{:<12}{} ok, {} failed in {:.2f} s\n", "requests", r.succeeded, r.failed,
                 r.duration_s);
  for (const auto& [message, count] : r.errors) {
    fmt::format_to(line, "{:<12}{} x {}\n", "", count, message);
  }
  fmt::format_to(line, "{:<12}{} in ({:.1f} % cached), {} out\n", "tokens", r.input_tokens,
                 Percent(r.cached_tokens, r.input_tokens), r.output_tokens);
  fmt::format_to(line, "{:<12}{:.2f} requests/s, {:.1f} input tokens/s, {:.1f} output tokens/s\n",
                 "throughput", r.request_rate, r.input_rate, r.output_rate);
  fmt::format_to(line, "{:<12}{:.2f} requests/s, {:.1f} % (TTFT <= {}, TPOT <= {})\n\n", "goodput",
                 r.goodput, Percent(r.good, r.succeeded + r.failed), Slo(r.options.slo_ttft_ms),
                 Slo(r.options.slo_tpot_ms));
  fmt::format_to(line, "{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "ms", "mean", "p50", "p90", "p99",
                 "max");
  for (const auto& [name, d] : {std::pair("TTFT", r.ttft), std::pair("TPOT", r.tpot),
                                std::pair("ITL", r.itl), std::pair("E2E", r.e2e)}) {
    fmt::format_to(line, "{:<12}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}\n", name, d.mean,
                   d.p50, d.p90, d.p99, d.max);
  }
  return out;
}

nlohmann::json ToJson(const Report& r) {
  return {{"options", OptionsJson(r.options)},
          {"model", r.model},
          {"succeeded", r.succeeded},
          {"failed", r.failed},
          {"errors", r.errors},
          {"duration_s", r.duration_s},
          {"input_tokens", r.input_tokens},
          {"cached_tokens", r.cached_tokens},
          {"output_tokens", r.output_tokens},
          {"ttft_ms", DistributionJson(r.ttft)},
          {"tpot_ms", DistributionJson(r.tpot)},
          {"itl_ms", DistributionJson(r.itl)},
          {"e2e_ms", DistributionJson(r.e2e)},
          {"requests_per_s", r.request_rate},
          {"input_tokens_per_s", r.input_rate},
          {"output_tokens_per_s", r.output_rate},
          {"goodput",
           {{"slo_ttft_ms", r.options.slo_ttft_ms},
            {"slo_tpot_ms", r.options.slo_tpot_ms},
            {"requests", r.good},
            {"requests_per_s", r.goodput}}}};
}

}  // namespace kvasir::loadgen
