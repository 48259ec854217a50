// For benchmarks: what workers say of their KV blocks when a replay of requests has given them what
// they hold.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <list>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/hash128.h"

namespace kvasir::replay {

using Chain = std::vector<Hash128>;

inline uint64_t Mix(uint64_t x) {  // SplitMix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

inline Hash128 MakeHash(uint64_t copy, uint64_t id) {
  const uint64_t words[2] = {Mix(copy << 40 | id), Mix(Mix(copy << 40 | id))};
  Hash128 hash;
  std::memcpy(hash.bytes.data(), words, sizeof(words));
  return hash;
}

inline const Hash128 kRoot = MakeHash(1 << 20, 0);

// Requests as lists of block numbers; a number stands for all that comes before it too.
using Requests = std::vector<std::vector<uint64_t>>;

inline Requests ReadTrace(const char* path) {
  Requests requests;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    requests.push_back(nlohmann::json::parse(line).at("hash_ids").get<std::vector<uint64_t>>());
  }
  return requests;
}

// Chats behind one system prompt of 4 blocks; a turn adds 1 to 16 blocks, a chat has about 5.
inline Requests MakeChats() {
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

inline std::vector<Chain> Copies(const Requests& requests, int copies) {
  std::vector<Chain> chains;
  for (int copy = 0; copy < copies; ++copy) {
    for (const std::vector<uint64_t>& request : requests) {
      Chain& chain = chains.emplace_back();
      for (uint64_t id : request) chain.push_back(MakeHash(copy, id));
    }
  }
  return chains;
}

inline int64_t CountBlocks(const Requests& requests) {
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
inline std::vector<Worker> Replay(const std::vector<Chain>& chains, int32_t workers) {
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

struct Load {
  std::vector<std::vector<Event>> store, remove;  // [workers]
};

// All that the workers stored, and after that all of it removed, the least recently used first.
inline Load WholeLoad(const std::vector<Chain>& chains, int32_t workers) {
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

}  // namespace kvasir::replay
