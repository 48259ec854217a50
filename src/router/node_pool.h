// The nodes of the radix tree: runs of blocks, who holds them, and how they hang together. Nodes
// are named by numbers that are used again.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "router/block_run.h"
#include "router/block_table.h"
#include "router/worker_set.h"

namespace kvasir::router {

// Links are kNoNode where there is none.
struct alignas(64) Node {
  BlockRun run;  // empty: the node is free
  NodeId parent = kNoNode;
  NodeId first_child = kNoNode;
  NodeId next = kNoNode;      // among the parent's children; of free nodes, the next free one
  NodeId previous = kNoNode;  // among the parent's children
  uint32_t children = 0;
};

// One thread at a time, or any number that only read.
class NodePool {
 public:
  // For sets of `workers` workers.
  explicit NodePool(int32_t workers) : words_(WorkerSet::Words(workers)) {}

  Node& operator[](NodeId id) { return chunks_[id / kChunk]->nodes[id % kChunk]; }
  const Node& operator[](NodeId id) const { return chunks_[id / kChunk]->nodes[id % kChunk]; }

  // The workers that hold all of the node's run.
  WorkerSet holders(NodeId id) const {
    return {chunks_[id / kChunk]->holders.get() + size_t{id % kChunk} * words_, words_};
  }

  // A node without links, held by nobody.
  NodeId Allocate();
  // REQUIRES: no other node links to it.
  void Free(NodeId id);

  // All nodes, free ones too, are in [1, limit()).
  NodeId limit() const { return limit_; }
  int64_t size() const { return size_; }

  // Makes `child`, which has no parent, a child of `parent`.
  void Link(NodeId parent, NodeId child);
  void Unlink(NodeId child);
  // Puts `with`, which has no parent, where `child` is among its parent's children.
  void Replace(NodeId child, NodeId with);
  // Gives all children of `from` to `to`, which has none.
  void MoveChildren(NodeId from, NodeId to);

 private:
  static constexpr NodeId kChunk = 256;
  struct Chunk {
    Node nodes[kChunk];
    std::unique_ptr<uint64_t[]> holders;  // [kChunk][words_]
  };

  const int32_t words_;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  NodeId limit_ = kNoNode + 1;
  NodeId free_ = kNoNode;  // the first of a list
  int64_t size_ = 0;
};

}  // namespace kvasir::router
