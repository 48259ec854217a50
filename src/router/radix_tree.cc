#include "router/radix_tree.h"

#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <numeric>

namespace kvasir::router {

RadixTree::RadixTree(int32_t max_workers) : nodes_(max_workers), held_(max_workers) {}

void RadixTree::Prefetch(absl::Span<const Hash128> blocks) const {
  for (const Hash128& hash : blocks) table_.Prefetch(hash);
}

Place RadixTree::Find(const Hash128& hash) const {
  return table_.Find(hash, [&](Place at) { return nodes_[at.node].run[at.position] == hash; });
}

void RadixTree::Match(absl::Span<const Hash128> chain, absl::Span<int32_t> blocks) const {
  std::fill(blocks.begin(), blocks.end(), 0);
  absl::InlinedVector<uint64_t, 8> words(WorkerSet::Words(max_workers()));
  WorkerSet all(words.data(), static_cast<int32_t>(words.size()));  // that hold all so far
  uint32_t matched = 0;
  while (matched < chain.size()) {
    const Place place = Find(chain[matched]);
    if (!place) break;
    const Node& node = nodes_[place.node];
    const BlockRun& run = node.run;
    // If the chain goes on through this node, the next one is looked up here, and is often the
    // first of its children.
    const size_t after = matched + (run.end() - place.position);
    if (after < chain.size()) table_.Prefetch(chain[after]);
    if (node.first_child != kNoNode) __builtin_prefetch(&nodes_[node.first_child]);
    const WorkerSet holders = nodes_.holders(place.node);
    if (matched == 0) {
      all.Assign(holders);
    } else {
      all.Intersect(holders, [&](WorkerSlot worker) { blocks[worker] = matched; });
    }
    if (all.empty()) break;
    matched += run.MatchLength(place.position, chain.subspan(matched));
  }
  all.ForEach([&](WorkerSlot worker) { blocks[worker] = matched; });
}

void RadixTree::Store(WorkerSlot worker, const Hash128& parent, absl::Span<const Hash128> blocks) {
  const Hash128* above = &parent;
  while (!blocks.empty()) {
    Place first = Find(blocks[0]);
    // No hash covers itself, but whoever says so does no harm.
    if (!first && *above == blocks[0]) first = {AddStub(blocks[0])};
    const uint32_t done =
        first ? HoldKnown(worker, *above, first, blocks) : AddNew(worker, *above, blocks);
    above = &blocks[done - 1];
    blocks.remove_prefix(done);
  }
}

uint32_t RadixTree::HoldKnown(WorkerSlot worker, const Hash128& parent, Place first,
                              absl::Span<const Hash128> chain) {
  const uint32_t count = nodes_[first.node].run.MatchLength(first.position, chain);
  if (nodes_.holders(first.node).Has(worker)) return count;
  NodeId node = first.node;
  if (IsStub(node)) {
    nodes_.Link(EndingWith(parent), node);
    --stubs_;
    ++blocks_;
  } else {
    node = Isolate(first, count);
  }
  nodes_.holders(node).Add(worker);
  held_[worker] += count;
  MergeAround(node);
  return count;
}

uint32_t RadixTree::AddNew(WorkerSlot worker, const Hash128& parent,
                           absl::Span<const Hash128> chain) {
  NodeId node = EndingWith(parent);
  if (nodes_[node].children > 0 || !nodes_.holders(node).HasOnly(worker)) {
    const NodeId above = node;
    node = nodes_.Allocate();
    nodes_.Link(above, node);
    nodes_.holders(node).Add(worker);
  }
  BlockRun& run = nodes_[node].run;
  run.Reserve(static_cast<uint32_t>(chain.size()));
  uint32_t count = 0;
  do {
    table_.Insert(chain[count], {node, run.end()});
    run.Append(chain.subspan(count, 1));
    ++count;
  } while (count < chain.size() && !Find(chain[count]));
  held_[worker] += count;
  blocks_ += count;
  return count;
}

void RadixTree::Remove(WorkerSlot worker, absl::Span<const Hash128> blocks) {
  for (size_t i = 0; i < blocks.size();) {
    const Place place = Find(blocks[i++]);
    if (!place || !nodes_.holders(place.node).Has(worker)) continue;
    const BlockRun& run = nodes_[place.node].run;
    Position first = place.position, last = place.position;
    for (; i < blocks.size(); ++i) {
      if (last + 1 != run.end() && run[last + 1] == blocks[i]) {
        ++last;
      } else if (first != run.front() && run[first - 1] == blocks[i]) {
        --first;
      } else {
        break;
      }
    }
    Release(worker, {place.node, first}, last - first + 1);
  }
}

NodeId RadixTree::ClearSome(WorkerSlot worker, NodeId from, int64_t effort) {
  for (; held_[worker] > 0 && effort > 0; --effort) {
    if (++from >= nodes_.limit()) from = kNoNode + 1;
    if (!nodes_.holders(from).Has(worker)) continue;
    const BlockRun& run = nodes_[from].run;
    effort -= run.size();
    Release(worker, {from, run.front()}, run.size());
  }
  return held_[worker] > 0 ? from : kNoNode;
}

void RadixTree::Release(WorkerSlot worker, Place first, uint32_t count) {
  held_[worker] -= count;
  if (nodes_.holders(first.node).HasOnly(worker)) return Erase(first, count);
  const NodeId node = Isolate(first, count);
  nodes_.holders(node).Remove(worker);
  MergeAround(node);
}

void RadixTree::Erase(Place first, uint32_t count) {
  blocks_ -= count;
  BlockRun& whole = nodes_[first.node].run;
  const bool ends_branch =
      first.position + count == whole.end() && nodes_[first.node].children == 0;
  if (ends_branch && count < whole.size()) {
    EraseFromTable(whole.Part(first.position, count), first);
    whole.DropBack(count);
    return;
  }
  const NodeId id = Isolate(first, count);
  Node& node = nodes_[id];
  const NodeId parent = node.parent;
  nodes_.Unlink(id);
  const bool stays = node.children > 0;  // its last block, as a stub
  const uint32_t gone = count - stays;
  EraseFromTable(node.run.Part(first.position, gone), {id, first.position});
  if (stays) {
    node.run.DropFront(gone);
    nodes_.holders(id).Clear();
    ++stubs_;
  } else {
    nodes_.Free(id);
  }
  if (parent != id) Settle(parent);
}

void RadixTree::EraseFromTable(absl::Span<const Hash128> blocks, Place first) {
  for (const Hash128& hash : blocks) {
    table_.Erase(hash, first);
    ++first.position;
  }
}

void RadixTree::Settle(NodeId id) {
  if (!IsStub(id)) {
    MergeDown(id);
    return;
  }
  const Node& node = nodes_[id];
  if (node.children > 0) return;
  EraseFromTable(node.run.All(), {id, node.run.front()});
  nodes_.Free(id);
  --stubs_;
}

NodeId RadixTree::AddStub(const Hash128& hash) {
  const NodeId id = nodes_.Allocate();
  nodes_[id].run.Append({&hash, 1});
  table_.Insert(hash, {id, nodes_[id].run.front()});
  ++stubs_;
  return id;
}

NodeId RadixTree::EndingWith(const Hash128& hash) {
  const Place place = Find(hash);
  if (!place) return AddStub(hash);
  return Isolate({place.node, nodes_[place.node].run.front()},
                 place.position + 1 - nodes_[place.node].run.front());
}

NodeId RadixTree::Isolate(Place first, uint32_t count) {
  NodeId node = first.node;
  if (first.position + count != nodes_[node].run.end()) {
    node = Split(node, first.position + count).first;
  }
  if (first.position != nodes_[node].run.front()) node = Split(node, first.position).second;
  return node;
}

std::pair<NodeId, NodeId> RadixTree::Split(NodeId id, Position at) {
  const NodeId new_id = nodes_.Allocate();
  Node& node = nodes_[id];
  Node& new_node = nodes_[new_id];
  nodes_.holders(new_id).Assign(nodes_.holders(id));
  const Position front = node.run.front();
  const uint32_t head = at - front;
  const uint32_t tail = node.run.end() - at;
  if (tail + node.children < head) {
    new_node.run = BlockRun(at);
    new_node.run.Append(node.run.Part(at, tail));
    Relabel(new_node.run.All(), {id, at}, {new_id, at});
    node.run.DropBack(tail);
    nodes_.MoveChildren(id, new_id);
    nodes_.Link(id, new_id);
    return {id, new_id};
  }
  new_node.run = BlockRun(front);
  new_node.run.Append(node.run.Part(front, head));
  Relabel(new_node.run.All(), {id, front}, {new_id, front});
  node.run.DropFront(head);
  nodes_.Replace(id, new_id);
  nodes_.Link(new_id, id);
  return {new_id, id};
}

NodeId RadixTree::MergeDown(NodeId id) {
  const Node& node = nodes_[id];
  const NodeId child = node.first_child;
  if (node.children != 1 || child == id) return id;
  return nodes_.holders(id) == nodes_.holders(child) ? Merge(id, child) : id;
}

void RadixTree::MergeAround(NodeId node) { MergeDown(nodes_[MergeDown(node)].parent); }

NodeId RadixTree::Merge(NodeId upper, NodeId lower) {
  Node& above = nodes_[upper];
  Node& below = nodes_[lower];
  nodes_.Unlink(lower);
  if (below.run.size() + below.children <= above.run.size()) {
    Relabel(below.run.All(), {lower, below.run.front()}, {upper, above.run.end()});
    above.run.Append(below.run.All());
    nodes_.MoveChildren(lower, upper);
    nodes_.Free(lower);
    return upper;
  }
  const Position front = below.run.front() - above.run.size();
  Relabel(above.run.All(), {upper, above.run.front()}, {lower, front});
  below.run.Prepend(above.run.All());
  nodes_.Replace(upper, lower);
  nodes_.Free(upper);
  return lower;
}

void RadixTree::Relabel(absl::Span<const Hash128> blocks, Place from, Place to) {
  Prefetch(blocks);
  for (const Hash128& hash : blocks) {
    table_.Move(hash, from, to);
    ++from.position;
    ++to.position;
  }
}

KvIndex::Stats RadixTree::GetStats() const {
  return {.blocks = blocks_,
          .held = std::accumulate(held_.begin(), held_.end(), int64_t{0}),
          .nodes = nodes_.size() - stubs_};
}

}  // namespace kvasir::router
