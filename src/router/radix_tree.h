// The tree of KvIndex, without its threads. Every block that a worker holds is in one node; a node
// is a run of blocks that the same workers hold and is maximal: it ends where no block follows,
// where several do, or where one does that other workers hold.
//
// A block that nobody holds is in the tree only while held ones are its children. It is a stub: a
// node of one block without a parent. So is the cache root of a chain; so is a parent of which
// nobody has told yet, or whose worker removed it first; when it is stored its children are there.
//
// A split or a merge tells the smaller part of the blocks involved that their node is another one.
#pragma once

#include <absl/types/span.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "base/hash128.h"
#include "base/status.h"
#include "router/block_table.h"
#include "router/kv_index.h"
#include "router/node_pool.h"

namespace kvasir::router {

// One thread at a time, or any number that only read. KvIndex says what the methods do.
class RadixTree {
 public:
  explicit RadixTree(int32_t max_workers);

  int32_t max_workers() const { return static_cast<int32_t>(held_.size()); }

  // Fetches from memory what the methods below read first. Any thread at any time, beside changes
  // too.
  void Prefetch(absl::Span<const Hash128> blocks) const;

  void Match(absl::Span<const Hash128> chain, absl::Span<int32_t> blocks) const;
  void Store(WorkerSlot worker, const Hash128& parent, absl::Span<const Hash128> blocks);
  void Remove(WorkerSlot worker, absl::Span<const Hash128> blocks);

  // A part of Clear, about as long as `effort` blocks take: goes on at `from`, kNoNode at first,
  // and returns where to go on, or kNoNode when the worker holds nothing.
  NodeId ClearSome(WorkerSlot worker, NodeId from, int64_t effort);

  KvIndex::Stats GetStats() const;
  Status CheckIntegrity() const;

 private:
  Place Find(const Hash128& hash) const;
  bool IsStub(NodeId node) const { return nodes_.holders(node).empty(); }

  // Store for the first blocks of `chain`, which are known or are not; returns for how many.
  uint32_t HoldKnown(WorkerSlot worker, const Hash128& parent, Place first,
                     absl::Span<const Hash128> chain);
  uint32_t AddNew(WorkerSlot worker, const Hash128& parent, absl::Span<const Hash128> chain);

  // The worker, which holds the `count` blocks from `first` on, no longer does.
  void Release(WorkerSlot worker, Place first, uint32_t count);
  // Nobody holds these blocks any more.
  void Erase(Place first, uint32_t count);
  void EraseFromTable(absl::Span<const Hash128> blocks, Place first);
  // After a child of the node has gone.
  void Settle(NodeId node);

  NodeId AddStub(const Hash128& hash);
  // The node whose last block is this one, which becomes a stub if it is unknown.
  NodeId EndingWith(const Hash128& hash);
  // The node that has exactly these blocks of one node.
  NodeId Isolate(Place first, uint32_t count);

  // The nodes before and from `at` on. REQUIRES: both are of one block at least.
  std::pair<NodeId, NodeId> Split(NodeId node, Position at);
  // Merges the node with its child where they are one run; returns the node of its blocks.
  NodeId MergeDown(NodeId node);
  void MergeAround(NodeId node);
  NodeId Merge(NodeId upper, NodeId lower);
  void Relabel(absl::Span<const Hash128> blocks, Place from, Place to);

  Status CheckNode(NodeId id) const;
  Status CheckLinks(NodeId id) const;

  BlockTable table_;  // every block of every node
  NodePool nodes_;
  std::vector<int64_t> held_;  // [max_workers], blocks
  int64_t blocks_ = 0;         // that anyone holds
  int64_t stubs_ = 0;
};

}  // namespace kvasir::router
