#include "compile/memory_plan.h"

#include <algorithm>

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

// The lowest offset where `slot` meets no placed slot that is alive with it.
int64_t FirstFit(const Slot& slot, const std::vector<const Slot*>& placed) {
  std::vector<const Slot*> rivals;
  for (const Slot* other : placed) {
    if (other->first <= slot.last && slot.first <= other->last) rivals.push_back(other);
  }
  std::sort(rivals.begin(), rivals.end(),
            [](const Slot* a, const Slot* b) { return a->offset < b->offset; });
  int64_t offset = 0;
  for (const Slot* other : rivals) {
    if (offset + slot.size <= other->offset) break;
    offset = std::max(offset, other->offset + other->size);
  }
  return offset;
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
  std::vector<Slot*> by_size;
  for (Slot& slot : slots) by_size.push_back(&slot);
  std::stable_sort(by_size.begin(), by_size.end(),
                   [](const Slot* a, const Slot* b) { return a->size > b->size; });
  MemoryPlan out;
  out.offsets.assign(graph.values.size(), -1);
  std::vector<const Slot*> placed;
  for (Slot* slot : by_size) {
    slot->offset = FirstFit(*slot, placed);
    placed.push_back(slot);
    out.arena_bytes = std::max(out.arena_bytes, slot->offset + slot->size);
    for (ValueId v : slot->values) out.offsets[v] = slot->offset;
  }
  out.peak_live_bytes = PeakLive(slots, static_cast<int>(graph.nodes.size()));
  return out;
}

}  // namespace kvasir::compile
