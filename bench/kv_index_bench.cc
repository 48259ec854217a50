// What the router's index of KV blocks costs: changes a second and the time of a match, when
// workers hold what a replay of requests gave them.
//   kv_index_bench [TRACE.jsonl]   a Mooncake trace; without one, chats that grow turn by turn
// Prints a table and a last line of JSON.
#include <absl/container/flat_hash_map.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <list>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "router/kv_index.h"

namespace kvasir::router {
namespace {

using Chain = std::vector<Hash128>;
using Steady = std::chrono::steady_clock;

double SecondsSince(Steady::time_point begin) {
  return std::chrono::duration<double>(Steady::now() - begin).count();
}

uint64_t Mix(uint64_t x) {  // SplitMix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

Hash128 MakeHash(uint64_t copy, uint64_t id) {
  const uint64_t words[2] = {Mix(copy << 40 | id), Mix(Mix(copy << 40 | id))};
  Hash128 hash;
  std::memcpy(hash.bytes.data(), words, sizeof(words));
  return hash;
}

const Hash128 kRoot = MakeHash(1 << 20, 0);

// Requests as lists of block numbers; a number stands for all that comes before it too.
using Requests = std::vector<std::vector<uint64_t>>;

Requests ReadTrace(const char* path) {
  Requests requests;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    requests.push_back(nlohmann::json::parse(line).at("hash_ids").get<std::vector<uint64_t>>());
  }
  return requests;
}

// Chats behind one system prompt of 4 blocks; a turn adds 1 to 16 blocks, a chat has about 5.
Requests MakeChats() {
  constexpr int kTurns = 12000;
  constexpr size_t kAtOnce = 500;
  std::mt19937 random(1);
  uint64_t next = 4;
  Requests chats(kAtOnce), requests;
  for (int turn = 0; turn < kTurns; ++turn) {
    std::vector<uint64_t>& chat = chats[random() % kAtOnce];
    if (chat.empty() || random() % 5 == 0) chat = {0, 1, 2, 3};
    for (int i = 0, n = 1 + random() % 16; i < n; ++i) chat.push_back(next++);
    requests.push_back(chat);
  }
  return requests;
}

std::vector<Chain> Copies(const Requests& requests, int copies) {
  std::vector<Chain> chains;
  for (int copy = 0; copy < copies; ++copy) {
    for (const std::vector<uint64_t>& request : requests) {
      Chain& chain = chains.emplace_back();
      for (uint64_t id : request) chain.push_back(MakeHash(copy, id));
    }
  }
  return chains;
}

int64_t CountBlocks(const Requests& requests) {
  absl::flat_hash_map<uint64_t, bool> seen;
  for (const std::vector<uint64_t>& request : requests) {
    for (uint64_t id : request) seen[id] = true;
  }
  return static_cast<int64_t>(seen.size());
}

// What a worker tells: that it stored blocks, or that it removed some.
struct Event {
  bool stored;
  Hash128 parent;
  Chain blocks;
};

// A worker's cache, which gives up the blocks used least recently, leaves first.
class Worker {
 public:
  int64_t Held(const Chain& chain) const {
    const auto gap = std::find_if_not(chain.begin(), chain.end(),
                                      [&](const Hash128& h) { return places_.contains(h); });
    return gap - chain.begin();
  }

  void Serve(const Chain& chain) {
    const int64_t held = Held(chain);
    for (size_t i = chain.size(); i-- > 0;) Use(chain[i]);
    if (held < static_cast<int64_t>(chain.size())) {
      events.push_back(
          {true, held > 0 ? chain[held - 1] : kRoot, {chain.begin() + held, chain.end()}});
    }
    ++served;
  }

  void Evict(size_t count) {
    Event& event = events.emplace_back(Event{false, {}, {}});
    for (; count > 0 && !order_.empty(); --count, order_.pop_back()) {
      event.blocks.push_back(order_.back());
      places_.erase(order_.back());
    }
  }

  bool empty() const { return order_.empty(); }

  std::vector<Event> events;
  int64_t served = 0;

 private:
  void Use(const Hash128& hash) {
    if (const auto it = places_.find(hash); it != places_.end()) order_.erase(it->second);
    order_.push_front(hash);
    places_[hash] = order_.begin();
  }

  std::list<Hash128> order_;  // the latest used first
  absl::flat_hash_map<Hash128, std::list<Hash128>::iterator> places_;
};

// Requests go where most of their blocks are, else to whom fewest have gone; every fourth goes to
// the next worker in turn, as if for balance.
std::vector<Worker> Replay(const std::vector<Chain>& chains, int32_t workers) {
  std::vector<Worker> out(workers);
  for (size_t i = 0; i < chains.size(); ++i) {
    Worker* best = &out[i / 4 % workers];
    if (i % 4 != 0) {
      std::pair<int64_t, int64_t> most{-1, 0};
      for (Worker& worker : out) {
        const std::pair score(worker.Held(chains[i]), -worker.served);
        if (score > most) most = score, best = &worker;
      }
    }
    best->Serve(chains[i]);
  }
  return out;
}

void Apply(KvIndex& index, WorkerSlot worker, const Event& event) {
  event.stored ? index.Store(worker, event.parent, event.blocks)
               : index.Remove(worker, event.blocks);
}

// Block operations a second and thread, in millions: events of workers in turn, by `threads`
// threads that each have workers of their own, until the index has taken all of them.
double ChangeRate(KvIndex& index, const std::vector<std::vector<Event>>& events, int threads) {
  int64_t blocks = 0;
  for (const auto& list : events) {
    for (const Event& event : list) blocks += static_cast<int64_t>(event.blocks.size());
  }
  const auto write = [&](size_t first) {
    for (size_t i = 0, more = 1; more > 0; ++i) {
      more = 0;
      for (size_t worker = first; worker < events.size(); worker += threads) {
        if (i >= events[worker].size()) continue;
        Apply(index, static_cast<WorkerSlot>(worker), events[worker][i]);
        ++more;
      }
    }
  };
  const auto begin = Steady::now();
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(write, t);
  write(0);
  for (std::thread& thread : others) thread.join();
  return static_cast<double>(blocks) / SecondsSince(begin) / threads / 1e6;
}

struct Quantiles {
  double p50, p99, p999;  // microseconds
};

Quantiles MatchTimes(const KvIndex& index, std::vector<Chain> chains) {
  std::shuffle(chains.begin(), chains.end(), std::mt19937(1));
  std::vector<int32_t> blocks(index.max_workers());
  std::vector<double> times;
  for (const Chain& chain : chains) {
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

struct Load {
  std::vector<std::vector<Event>> store, remove;  // [workers]
};

// All that the workers stored, and after that all of it removed, the least recently used first.
Load WholeLoad(const std::vector<Chain>& chains, int32_t workers) {
  constexpr size_t kRemoved = 16;  // blocks an event
  Load load;
  for (Worker& worker : Replay(chains, workers)) {
    load.store.push_back(std::move(worker.events));
    worker.events.clear();
    while (!worker.empty()) worker.Evict(kRemoved);
    load.remove.push_back(std::move(worker.events));
  }
  return load;
}

nlohmann::ordered_json Measure(const Requests& requests, int32_t workers, int copies) {
  const std::vector<Chain> chains = Copies(requests, copies);
  const Load load = WholeLoad(chains, workers);
  const int64_t before = AllocatedBytes();
  KvIndex index(workers);
  const double store = ChangeRate(index, load.store, 1);
  const int64_t bytes = AllocatedBytes() - before;
  const KvIndex::Stats stats = index.GetStats();
  const Quantiles match = MatchTimes(index, chains);
  const Quantiles beside = MatchTimesBesideWriter(index, chains, load.store[0]);
  const double remove = ChangeRate(index, load.remove, 1);
  const double store2 = ChangeRate(index, load.store, 2);
  const double remove2 = ChangeRate(index, load.remove, 2);
  std::printf(
      "%7d %9ld %9ld %7ld %7.1f | %6.2f %6.2f %6.2f %6.2f | %5.2f %5.2f %6.2f | %5.2f %5.2f "
      "%6.2f\n",
      workers, stats.blocks, stats.held, stats.nodes,
      static_cast<double>(bytes) / static_cast<double>(stats.blocks), store, remove, store2,
      remove2, match.p50, match.p99, match.p999, beside.p50, beside.p99, beside.p999);
  return {{"workers", workers},
          {"blocks", stats.blocks},
          {"held", stats.held},
          {"nodes", stats.nodes},
          {"bytes_per_block", static_cast<double>(bytes) / static_cast<double>(stats.blocks)},
          {"store_mops", store},
          {"remove_mops", remove},
          {"store_mops_2_writers", store2},
          {"remove_mops_2_writers", remove2},
          {"match_us", {match.p50, match.p99, match.p999}},
          {"match_beside_writer_us", {beside.p50, beside.p99, beside.p999}}};
}

int Main(int argc, char** argv) {
  const Requests requests = argc > 1 ? ReadTrace(argv[1]) : MakeChats();
  constexpr int64_t kManyBlocks = 1'000'000;
  const int64_t blocks = CountBlocks(requests);
  const int many = static_cast<int>((kManyBlocks + blocks - 1) / blocks);
  std::printf(
      "Block operations in millions a second and writer thread (target: 2.5), with one and with "
      "two\n"
      "writers; a match in us, p50 p99 p99.9 (target: p99 below 5), alone and beside a writer.\n\n"
      "workers    blocks      held   nodes B/block |  store remove store2 remov2 |   match, alone  "
      "   |   beside a writer\n");
  nlohmann::ordered_json rows;
  for (const int copies : {1, many}) {
    for (const int32_t workers : {8, 64}) rows.push_back(Measure(requests, workers, copies));
  }
  std::printf("\n%s\n", nlohmann::ordered_json{{"kv_index", rows}}.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace kvasir::router

int main(int argc, char** argv) { return kvasir::router::Main(argc, argv); }
