#include "fusefs/tree/name_table.h"

#include <xxhash.h>

#include <random>

namespace headrace::tree {

NameTable::NameTable(size_t expected) {
  std::random_device random;
  seed_ = (uint64_t{random()} << 32) | random();
  size_t size = 64;
  while (size < expected * 2) size *= 2;
  slots_.assign(size, kNoNode);
}

uint64_t NameTable::Hash(uint32_t parent, std::string_view name) const {
  return XXH3_64bits_withSeed(name.data(), name.size(), seed_ + parent * 0x9e3779b97f4a7c15ull);
}

uint32_t NameTable::Find(const std::vector<BuildNode>& nodes, uint32_t parent, std::string_view name) const {
  const size_t mask = slots_.size() - 1;
  for (size_t at = Hash(parent, name) & mask; slots_[at] != kNoNode; at = (at + 1) & mask) {
    const BuildNode& node = nodes[slots_[at]];
    if (node.parent == parent && !node.dead && node.name() == name) return slots_[at];
  }
  return kNoNode;
}

void NameTable::Insert(const std::vector<BuildNode>& nodes, uint32_t node) {
  if ((used_ + 1) * 2 > slots_.size()) Grow(nodes);
  const size_t mask = slots_.size() - 1;
  size_t at = Hash(nodes[node].parent, nodes[node].name()) & mask;
  while (slots_[at] != kNoNode) {
    const BuildNode& old = nodes[slots_[at]];
    if (old.dead && old.parent == nodes[node].parent && old.name() == nodes[node].name()) break;  // takes its place
    at = (at + 1) & mask;
  }
  if (slots_[at] == kNoNode) ++used_;
  slots_[at] = node;
}

void NameTable::Grow(const std::vector<BuildNode>& nodes) {
  std::vector<uint32_t> old = std::move(slots_);
  slots_.assign(old.size() * 2, kNoNode);
  const size_t mask = slots_.size() - 1;
  for (uint32_t node : old) {
    if (node == kNoNode) continue;
    size_t at = Hash(nodes[node].parent, nodes[node].name()) & mask;
    while (slots_[at] != kNoNode) at = (at + 1) & mask;
    slots_[at] = node;
  }
}

}  // namespace headrace::tree
