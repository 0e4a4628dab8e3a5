// NameTable: (directory, name) -> node of a layer that is being built. Open addressing over 4-byte slots; the
// hash is seeded at random for each table, so that nobody can make a layer whose names all collide. One
// thread. Private to tree/.
#ifndef HEADRACE_FUSEFS_TREE_NAME_TABLE_H_
#define HEADRACE_FUSEFS_TREE_NAME_TABLE_H_

#include <cstdint>
#include <string_view>
#include <vector>

namespace headrace::tree {

inline constexpr uint32_t kNoNode = UINT32_MAX;

// A name while the layer is built. Dead nodes stay where they are.
struct BuildNode {
  const char* data = nullptr;
  uint32_t parent = 0;
  uint32_t first_child = kNoNode;
  uint32_t next_sibling = kNoNode;
  uint32_t entry = UINT32_MAX;   // directories: metadata; others: the entry of this name
  uint32_t target = UINT32_MAX;  // resolved inode, or (hard links into lower layers) the link entry to follow
  uint8_t size = 0;
  enum class Kind : uint8_t { kDir, kInode, kPendingLink, kLowerLink, kWhiteout } kind = Kind::kInode;
  bool dead = false;
  bool opaque = false;
  bool visiting = false;         // hard-link resolution passes through it now
  std::string_view name() const { return {data, size}; }
};

class NameTable {
 public:
  explicit NameTable(size_t expected);
  // The living node of that name, or kNoNode.
  uint32_t Find(const std::vector<BuildNode>& nodes, uint32_t parent, std::string_view name) const;
  // REQUIRES: no living node of that parent and name is in the table.
  void Insert(const std::vector<BuildNode>& nodes, uint32_t node);

 private:
  uint64_t Hash(uint32_t parent, std::string_view name) const;
  void Grow(const std::vector<BuildNode>& nodes);
  uint64_t seed_;
  size_t used_ = 0;
  std::vector<uint32_t> slots_;  // power of two; at most half full
};

}  // namespace headrace::tree

#endif  // HEADRACE_FUSEFS_TREE_NAME_TABLE_H_
