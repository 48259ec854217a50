#include "compile/memory_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "plan/plan.h"

namespace kvasir::compile {
namespace {

using graph::Graph;
using graph::Node;
using graph::Operand;
using graph::Rows;
using graph::ValueId;

// One piece of memory: a value and those that are computed in place onto it.
struct Slot {
  std::vector<ValueId> values;
  int first = 0;  // node indices between which it is alive, both included
  int last = 0;
  int64_t size = 0;
  int64_t offset = 0;
};

constexpr int kRounds = 64;

int64_t Aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

std::vector<Slot> Slots(const Graph& graph, int64_t token_rows, int64_t logit_rows) {
  std::vector<Slot> slots;
  std::vector<int> slot_of(graph.values.size(), -1);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    for (const Operand& in : node.inputs) {
      if (slot_of[in.value] >= 0) slots[slot_of[in.value]].last = static_cast<int>(i);
    }
    for (ValueId out : node.outputs) {
      if (out == graph.logits) continue;
      if (node.residual) {
        slot_of[out] = slot_of[node.inputs[1].value];
        slots[slot_of[out]].values.push_back(out);
        continue;
      }
      const graph::Value& value = graph.values[out];
      const int64_t rows = value.rows == Rows::kOutput ? logit_rows : token_rows * value.copies;
      slot_of[out] = static_cast<int>(slots.size());
      const int64_t size = Aligned(plan::ValueBytes(value.type, rows, value.width));
      slots.push_back({{out}, static_cast<int>(i), static_cast<int>(i), size, 0});
    }
  }
  return slots;
}

// For each slot those that are alive with it.
std::vector<std::vector<const Slot*>> Rivals(const std::vector<Slot>& slots) {
  std::vector<std::vector<const Slot*>> out(slots.size());
  // Slots are in order of their beginning.
  for (size_t a = 0; a < slots.size(); ++a) {
    for (size_t b = a + 1; b < slots.size() && slots[b].first <= slots[a].last; ++b) {
      out[a].push_back(&slots[b]);
      out[b].push_back(&slots[a]);
    }
  }
  return out;
}

// The lowest offset where `slot` meets none of its rivals that are placed already.
int64_t FirstFit(const Slot& slot, const std::vector<const Slot*>& rivals) {
  std::vector<const Slot*> placed;
  for (const Slot* other : rivals) {
    if (other->offset >= 0) placed.push_back(other);
  }
  std::sort(placed.begin(), placed.end(),
            [](const Slot* a, const Slot* b) { return a->offset < b->offset; });
  int64_t offset = 0;
  for (const Slot* other : placed) {
    if (offset + slot.size <= other->offset) break;
    offset = std::max(offset, other->offset + other->size);
  }
  return offset;
}

// Places all in that order and returns the size of the arena.
int64_t Place(std::vector<Slot>& slots, const std::vector<std::vector<const Slot*>>& rivals,
              const std::vector<size_t>& order) {
  for (Slot& slot : slots) slot.offset = -1;
  int64_t end = 0;
  for (const size_t i : order) {
    slots[i].offset = FirstFit(slots[i], rivals[i]);
    end = std::max(end, slots[i].offset + slots[i].size);
  }
  return end;
}

int64_t PeakLive(const std::vector<Slot>& slots, int nodes) {
  int64_t peak = 0;
  for (int i = 0; i < nodes; ++i) {
    int64_t live = 0;
    for (const Slot& slot : slots) {
      if (slot.first <= i && i <= slot.last) live += slot.size;
    }
    peak = std::max(peak, live);
  }
  return peak;
}

}  // namespace

MemoryPlan PlanMemory(const Graph& graph, int64_t token_rows, int64_t logit_rows) {
  std::vector<Slot> slots = Slots(graph, token_rows, logit_rows);
  const auto rivals = Rivals(slots);
  std::vector<size_t> order(slots.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return slots[a].size > slots[b].size; });
  MemoryPlan out;
  out.peak_live_bytes = PeakLive(slots, static_cast<int>(graph.nodes.size()));
  out.arena_bytes = std::numeric_limits<int64_t>::max();
  for (int round = 0; round < kRounds && out.arena_bytes > out.peak_live_bytes; ++round) {
    const int64_t bytes = Place(slots, rivals, order);
    if (bytes < out.arena_bytes) {
      out.arena_bytes = bytes;
      out.offsets.assign(graph.values.size(), -1);
      for (const Slot& slot : slots) {
        for (ValueId v : slot.values) out.offsets[v] = slot.offset;
      }
    }
    // All that reach the top go to the front.
    std::stable_partition(order.begin(), order.end(),
                          [&](size_t i) { return slots[i].offset + slots[i].size == bytes; });
  }
  return out;
}

}  // namespace kvasir::compile
