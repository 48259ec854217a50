#include "router/node_pool.h"

#include <utility>

namespace kvasir::router {

NodeId NodePool::Allocate() {
  ++size_;
  if (free_ != kNoNode) {
    const NodeId id = free_;
    free_ = std::exchange((*this)[id].next, kNoNode);
    return id;
  }
  if (limit_ / kChunk == chunks_.size()) {
    chunks_.push_back(std::make_unique<Chunk>());
    chunks_.back()->holders = std::make_unique<uint64_t[]>(size_t{kChunk} * words_);
  }
  return limit_++;
}

void NodePool::Free(NodeId id) {
  --size_;
  (*this)[id] = Node();
  (*this)[id].next = std::exchange(free_, id);
  holders(id).Clear();
}

void NodePool::Link(NodeId parent, NodeId child) {
  Node& above = (*this)[parent];
  Node& node = (*this)[child];
  node.parent = parent;
  node.next = std::exchange(above.first_child, child);
  if (node.next != kNoNode) (*this)[node.next].previous = child;
  ++above.children;
}

void NodePool::Unlink(NodeId child) {
  Node& node = (*this)[child];
  Node& above = (*this)[node.parent];
  (node.previous != kNoNode ? (*this)[node.previous].next : above.first_child) = node.next;
  if (node.next != kNoNode) (*this)[node.next].previous = node.previous;
  --above.children;
  node.parent = node.next = node.previous = kNoNode;
}

void NodePool::Replace(NodeId child, NodeId with) {
  const NodeId parent = (*this)[child].parent;
  Unlink(child);
  Link(parent, with);
}

void NodePool::MoveChildren(NodeId from, NodeId to) {
  Node& source = (*this)[from];
  Node& target = (*this)[to];
  target.first_child = std::exchange(source.first_child, kNoNode);
  target.children = std::exchange(source.children, 0);
  for (NodeId id = target.first_child; id != kNoNode; id = (*this)[id].next) {
    (*this)[id].parent = to;
  }
}

}  // namespace kvasir::router
