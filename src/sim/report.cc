#include "sim/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvasir::sim {
namespace {

double Share(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

template <typename T>
double Imbalance(absl::Span<const T> work) {
  const double sum = std::accumulate(work.begin(), work.end(), 0.0);
  if (sum == 0) return 1;
  const double most = static_cast<double>(*std::max_element(work.begin(), work.end()));
  return most * static_cast<double>(work.size()) / sum;
}

nlohmann::json ResultJson(const ReplayResult& r) {
  const auto ms = [&](double percent) { return 1e3 * Percentile(r.ttft, percent); };
  const auto us = [&](double percent) { return 1e6 * Percentile(r.decision_time, percent); };
  return {{"policy", router::PolicyName(r.policy)},
          {"requests", r.requests},
          {"refused", r.refused},
          {"block_hit", Share(r.hit_blocks, r.blocks)},
          {"believed_block_hit", Share(r.believed_blocks, r.blocks)},
          {"token_hit", Share(r.hit_tokens, r.tokens)},
          {"work_blocks", r.work_blocks},
          {"max_over_mean_work", MaxOverMean(r.work_blocks)},
          {"max_over_mean_seconds", MaxOverMean(r.work_seconds)},
          {"ttft_ms", {{"p50", ms(50)}, {"p90", ms(90)}, {"p99", ms(99)}}},
          {"decision_us", {{"p50", us(50)}, {"p99", us(99)}}},
          {"events", r.events},
          {"lost_events", r.lost_events}};
}

}  // namespace

double Percentile(absl::Span<const double> sorted, double percent) {
  if (sorted.empty()) return 0;
  const double rank = std::ceil(percent / 100 * static_cast<double>(sorted.size()));
  return sorted[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

double MaxOverMean(absl::Span<const int64_t> work) { return Imbalance(work); }
double MaxOverMean(absl::Span<const double> work) { return Imbalance(work); }

std::string FormatTable(absl::Span<const ReplayResult> results) {
  std::string table =
      fmt::format("{:<13} {:>9} {:>9} {:>13} {:>9} {:>9} {:>9} {:>12}\n", "policy", "block hit",
                  "token hit", "max/mean work", "TTFT p50", "p90", "p99", "decision p99");
  for (const ReplayResult& r : results) {
    table += fmt::format(
        "{:<13} {:>9.4f} {:>9.4f} {:>13.3f} {:>7.2f} s {:>7.2f} s {:>7.2f} s {:>9.1f} us\n",
        router::PolicyName(r.policy), Share(r.hit_blocks, r.blocks), Share(r.hit_tokens, r.tokens),
        MaxOverMean(r.work_blocks), Percentile(r.ttft, 50), Percentile(r.ttft, 90),
        Percentile(r.ttft, 99), 1e6 * Percentile(r.decision_time, 99));
    if (r.refused > 0) {
      table += fmt::format("  {} of {} requests fit no worker\n", r.refused, r.requests);
    }
  }
  return table;
}

nlohmann::json ToJson(const ReplayOptions& options, absl::Span<const ReplayResult> results) {
  nlohmann::json out = {
      {"workers", options.workers},       {"blocks", options.blocks},
      {"frontends", options.frontends},   {"report_interval_s", options.report_interval},
      {"delay_s", options.delay},         {"lose_events", options.lose_events},
      {"seed", options.placement.seed},   {"weight", options.placement.weight},
      {"bound", options.placement.bound}, {"slack", options.placement.slack},
      {"near", options.placement.near},   {"results", nlohmann::json::array()}};
  for (const ReplayResult& result : results) out["results"].push_back(ResultJson(result));
  return out;
}

}  // namespace kvasir::sim
