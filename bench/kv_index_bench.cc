// What the router's index of KV blocks costs: changes a second and the time of a match, when
// workers hold what a replay of requests gave them.
//   kv_index_bench [TRACE.jsonl]   a Mooncake trace; without one, chats that grow turn by turn
// Prints a table and a last line of JSON.
#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "replay.h"
#include "router/kv_index.h"

namespace kvasir::router {
namespace {

using replay::Chain;
using replay::Event;
using replay::Load;
using Steady = std::chrono::steady_clock;

double SecondsSince(Steady::time_point begin) {
  return std::chrono::duration<double>(Steady::now() - begin).count();
}

// Tells the index of the event, at most `piece` blocks at a time.
void Apply(KvIndex& index, WorkerSlot worker, const Event& event, size_t piece) {
  const absl::Span<const Hash128> blocks = event.blocks;
  for (size_t i = 0; i < blocks.size(); i += piece) {
    const auto part = blocks.subspan(i, piece);
    event.stored ? index.Store(worker, i == 0 ? event.parent : blocks[i - 1], part)
                 : index.Remove(worker, part);
  }
}

double ThreadCpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Millions of block operations, by each writer thread.
struct Rate {
  double wall;  // a second
  double cpu;   // a second of the thread's CPU time: what a machine with idle cores would give
};

// Events of workers in turn, by `threads` threads that each have workers of their own, until the
// index has taken all of them.
Rate ChangeRate(KvIndex& index, const std::vector<std::vector<Event>>& events, int threads,
                size_t piece = SIZE_MAX) {
  int64_t blocks = 0;
  for (const auto& list : events) {
    for (const Event& event : list) blocks += static_cast<int64_t>(event.blocks.size());
  }
  std::vector<double> cpu(threads);
  const auto write = [&](size_t thread) {
    const double begin = ThreadCpuSeconds();
    for (size_t i = 0, more = 1; more > 0; ++i) {
      more = 0;
      for (size_t worker = thread; worker < events.size(); worker += threads) {
        if (i >= events[worker].size()) continue;
        Apply(index, static_cast<WorkerSlot>(worker), events[worker][i], piece);
        ++more;
      }
    }
    cpu[thread] = ThreadCpuSeconds() - begin;
  };
  const auto begin = Steady::now();
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(write, t);
  write(0);
  for (std::thread& thread : others) thread.join();
  const double each = static_cast<double>(blocks) / threads / 1e6;
  return {each / SecondsSince(begin),
          each * threads / std::accumulate(cpu.begin(), cpu.end(), 0.0)};
}

struct Quantiles {
  double p50, p99, p999;  // microseconds
};

Quantiles MatchTimes(const KvIndex& index, std::vector<Chain> chains) {
  std::shuffle(chains.begin(), chains.end(), std::mt19937(1));
  std::vector<int32_t> blocks(index.max_workers());
  std::vector<double> times;
  Chain chain;
  for (const Chain& request : chains) {
    chain = request;  // in the caches, as it is when its hashes have just been computed
    const auto begin = Steady::now();
    index.Match(chain, absl::MakeSpan(blocks));
    times.push_back(SecondsSince(begin) * 1e6);
  }
  std::sort(times.begin(), times.end());
  const auto at = [&](double q) { return times[static_cast<size_t>(q * (times.size() - 1))]; };
  return {at(.5), at(.99), at(.999)};
}

// The same while a thread removes and stores again, as fast as it can, what worker 0 holds.
Quantiles MatchTimesBesideWriter(KvIndex& index, const std::vector<Chain>& chains,
                                 const std::vector<Event>& stored) {
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (size_t i = 0; !stop; i = (i + 1) % stored.size()) {
      const Chain backwards(stored[i].blocks.rbegin(), stored[i].blocks.rend());
      index.Remove(0, backwards);
      index.Store(0, stored[i].parent, stored[i].blocks);
    }
  });
  const Quantiles times = MatchTimes(index, chains);
  stop = true;
  writer.join();
  return times;
}

int64_t AllocatedBytes() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
}

constexpr int kRounds = 5;

struct Round {
  KvIndex::Stats stats;
  double bytes_per_block;
  Rate store, remove;      // with one writer
  Rate store_2, remove_2;  // with two
  Rate store_single;       // with one writer, which tells of each block by itself
  Quantiles match, match_beside_writer;
};

Round MeasureOnce(const std::vector<Chain>& chains, const Load& load, int32_t workers) {
  Round round;
  {
    const int64_t before = AllocatedBytes();
    KvIndex index(workers);
    round.store = ChangeRate(index, load.store, 1);
    round.stats = index.GetStats();
    round.bytes_per_block =
        static_cast<double>(AllocatedBytes() - before) / static_cast<double>(round.stats.blocks);
    round.match = MatchTimes(index, chains);
    round.match_beside_writer = MatchTimesBesideWriter(index, chains, load.store[0]);
    round.remove = ChangeRate(index, load.remove, 1);
  }
  {
    KvIndex index(workers);
    round.store_single = ChangeRate(index, load.store, 1, 1);
  }
  KvIndex index(workers);
  round.store_2 = ChangeRate(index, load.store, 2);
  round.remove_2 = ChangeRate(index, load.remove, 2);
  return round;
}

// A line of the one table and of the other.
struct Row {
  nlohmann::ordered_json changes, matches;
};

Row Measure(const replay::Requests& requests, int32_t workers, int copies) {
  const std::vector<Chain> chains = replay::Copies(requests, copies);
  const Load load = replay::WholeLoad(chains, workers);
  std::vector<Round> rounds;
  for (int i = 0; i < kRounds; ++i) rounds.push_back(MeasureOnce(chains, load, workers));
  const auto median = [&](auto value) {
    std::vector<double> values;
    for (const Round& round : rounds) values.push_back(value(round));
    std::sort(values.begin(), values.end());
    return std::round(values[kRounds / 2] * 100) / 100;
  };
  const KvIndex::Stats& stats = rounds[0].stats;
  Row row;
  row.matches = row.changes = {{"workers", workers}, {"blocks", stats.blocks}};
  row.changes["held"] = stats.held;
  row.changes["nodes"] = stats.nodes;
  row.changes["bytes_per_block"] = median([](const Round& r) { return r.bytes_per_block; });
  const auto add_rate = [&](const std::string& name, Rate Round::* rate) {
    row.changes[name] = median([&](const Round& r) { return (r.*rate).wall; });
    row.changes[name + "_cpu"] = median([&](const Round& r) { return (r.*rate).cpu; });
  };
  add_rate("store", &Round::store);
  add_rate("remove", &Round::remove);
  add_rate("single", &Round::store_single);
  add_rate("store_2", &Round::store_2);
  add_rate("remove_2", &Round::remove_2);
  const auto add_times = [&](const std::string& name, Quantiles Round::* times) {
    row.matches[name + "_p50"] = median([&](const Round& r) { return (r.*times).p50; });
    row.matches[name + "_p99"] = median([&](const Round& r) { return (r.*times).p99; });
    row.matches[name + "_p999"] = median([&](const Round& r) { return (r.*times).p999; });
  };
  add_times("match", &Round::match);
  add_times("beside", &Round::match_beside_writer);
  return row;
}

void PrintTable(const char* title, const nlohmann::ordered_json& rows) {
  const auto print = [](const nlohmann::ordered_json& row, bool names) {
    std::string line;
    for (const auto& [name, value] : row.items()) {
      const std::string cell = names ? name : value.dump();
      const size_t width = std::max<size_t>(name.size(), 7) + 2;
      line += std::string(width - std::min(width, cell.size()), ' ') + cell;
    }
    std::puts(line.c_str());
  };
  std::printf("\n%s\n", title);
  print(rows[0], true);
  for (const nlohmann::ordered_json& row : rows) print(row, false);
}

int Main(int argc, char** argv) {
  constexpr int64_t kManyBlocks = 1'000'000;
  const replay::Requests requests = argc > 1 ? replay::ReadTrace(argv[1]) : replay::MakeChats();
  const int64_t blocks = replay::CountBlocks(requests);
  if (blocks == 0) {
    std::fprintf(stderr, "no requests in %s\n", argv[1]);
    return 1;
  }
  const int many = static_cast<int>((kManyBlocks + blocks - 1) / blocks);
  nlohmann::ordered_json changes, matches;
  for (const int copies : {1, many}) {
    for (const int32_t workers : {8, 64}) {
      const Row row = Measure(requests, workers, copies);
      changes.push_back(row.changes);
      matches.push_back(row.matches);
    }
  }
  std::printf("medians of %d rounds\n", kRounds);
  PrintTable(
      "Millions of block operations by each of one or two writers, a second and a second of its "
      "CPU time (target: 2.5)",
      changes);
  PrintTable("us of a match, alone and beside a writer (target: p99 below 5)", matches);
  std::printf("\n%s\n",
              nlohmann::ordered_json{{"changes", changes}, {"matches", matches}}.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace kvasir::router

int main(int argc, char** argv) { return kvasir::router::Main(argc, argv); }
