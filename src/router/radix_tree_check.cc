// RadixTree::CheckIntegrity.
#include <absl/strings/str_cat.h>

#include "router/radix_tree.h"

namespace kvasir::router {
namespace {

Status Broken(NodeId node, const char* what) {
  return absl::InternalError(absl::StrCat("node ", node, " ", what));
}

}  // namespace

Status RadixTree::CheckIntegrity() const {
  std::vector<int64_t> held(max_workers());
  int64_t nodes = 0, stubs = 0, blocks = 0;
  for (NodeId id = kNoNode + 1; id < nodes_.limit(); ++id) {
    const uint32_t size = nodes_[id].run.size();
    if (size == 0) continue;
    KVASIR_RETURN_IF_ERROR(CheckNode(id));
    KVASIR_RETURN_IF_ERROR(CheckLinks(id));
    ++nodes;
    stubs += IsStub(id);
    blocks += size;
    nodes_.holders(id).ForEach([&](WorkerSlot worker) { held[worker] += size; });
  }
  if (nodes != nodes_.size()) return absl::InternalError("nodes are miscounted");
  if (stubs != stubs_) return absl::InternalError("stubs are miscounted");
  if (blocks != table_.size()) return absl::InternalError("the table knows other blocks");
  if (blocks - stubs != blocks_) return absl::InternalError("blocks are miscounted");
  if (held != held_) return absl::InternalError("a worker's blocks are miscounted");
  return absl::OkStatus();
}

Status RadixTree::CheckNode(NodeId id) const {
  const Node& node = nodes_[id];
  const bool stub = IsStub(id);
  if (stub && node.run.size() != 1) return Broken(id, "is a stub of several blocks");
  if (stub && node.children == 0) return Broken(id, "is a stub without children");
  if (stub == (node.parent != kNoNode)) return Broken(id, "is a stub and has a parent, or neither");
  for (Position at = node.run.front(); at != node.run.end(); ++at) {
    if (Find(node.run[at]) != Place{id, at})
      return Broken(id, "has a block that is not found there");
  }
  return absl::OkStatus();
}

Status RadixTree::CheckLinks(NodeId id) const {
  const Node& node = nodes_[id];
  uint32_t children = 0;
  NodeId previous = kNoNode;
  for (NodeId child = node.first_child; child != kNoNode; child = nodes_[child].next) {
    if (nodes_[child].parent != id) return Broken(child, "is the child of two");
    if (nodes_[child].previous != previous) return Broken(child, "is linked one way only");
    if (++children > node.children) break;
    previous = child;
  }
  if (children != node.children) return Broken(id, "miscounts its children");
  const NodeId only = children == 1 ? node.first_child : kNoNode;
  if (only != kNoNode && only != id && nodes_.holders(only) == nodes_.holders(id)) {
    return Broken(id, "and its child are one run");
  }
  return absl::OkStatus();
}

}  // namespace kvasir::router
