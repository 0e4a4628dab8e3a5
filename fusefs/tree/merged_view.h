// MergedView: what a chain of layers shows as one directory tree: whiteouts and opaque directories applied,
// the upper name wins, directories merged (README.md: SEMANTICS). Made in one pass over the chain, at a cost
// that grows with what the result shows and not with the number of levels below it.
//
// Directories are numbered depth first in the order of their names, 0 = root: the numbers depend on the layers alone.
// Non-directories are (layer of the chain, entry of its index).
//
// Immutable after Build; shared freely between threads; nothing blocks. It keeps the layers alive: names point
// into them.
// Errors of Build: ResourceExhausted (limits.h). Memory: 16 bytes a name + 28 a directory.
#ifndef HEADRACE_FUSEFS_TREE_MERGED_VIEW_H_
#define HEADRACE_FUSEFS_TREE_MERGED_VIEW_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/tree/layer_tree.h"

namespace headrace::tree {

// Bottom to top.
using Chain = std::vector<std::shared_ptr<const LayerTree>>;

enum class MergeMode : uint8_t {
  kBottom,        // nothing lies below: whiteouts are applied and gone
  kAboveForeign,  // overlayfs will stack it on directories that we do not see: what is left of whiteouts is kept
};

enum class NodeKind : uint8_t {
  kDir,       // target: number of the directory in the view
  kInode,     // layer, target: entry of that layer
  kWhiteout,  // kAboveForeign only: hides the name in the directories below
};

struct ViewChild {
  const char* data = nullptr;
  uint32_t target = 0;
  uint16_t layer = 0;
  uint8_t size = 0;
  NodeKind kind = NodeKind::kInode;
  std::string_view name() const { return {data, size}; }
};

struct ViewDirectory {
  uint32_t parent = 0;        // the root is its own parent
  uint32_t entry = kNoEntry;  // whose metadata it has: entry of `layer`, or kNoEntry (0755, root:root, mtime 0)
  uint32_t first_child = 0;
  uint32_t child_count = 0;
  uint32_t subdirs = 0;
  uint16_t layer = 0;
  bool opaque = false;        // kAboveForeign: hides what the directories below have in it
};

class MergedView {
 public:
  // REQUIRES: 1 <= chain.size() <= limits::kChainMax.
  static Result<std::shared_ptr<const MergedView>> Build(Chain chain, MergeMode mode);
  // The root alone (its child_count and first_child are 0), at the cost of merging one directory.
  static Result<ViewDirectory> Root(const Chain& chain, MergeMode mode);

  const Chain& chain() const { return chain_; }
  size_t directory_count() const { return dirs_.size(); }
  // REQUIRES: dir < directory_count().
  const ViewDirectory& directory(uint32_t dir) const { return dirs_[dir]; }
  std::span<const ViewChild> children(uint32_t dir) const {
    return {children_.data() + dirs_[dir].first_child, dirs_[dir].child_count};
  }
  const ViewChild* Find(uint32_t dir, std::string_view name) const;
  // Hard links to a name that no layer below theirs has; they are not shown.
  uint64_t dropped_links() const { return dropped_links_; }
  // One of them, for the error message; null if there is none.
  const format::Entry* dropped_link() const { return dropped_link_; }

 private:
  friend class ViewBuilder;
  MergedView() = default;

  Chain chain_;
  std::vector<ViewDirectory> dirs_;
  std::vector<ViewChild> children_;
  uint64_t dropped_links_ = 0;
  const format::Entry* dropped_link_ = nullptr;
};

}  // namespace headrace::tree

#endif  // HEADRACE_FUSEFS_TREE_MERGED_VIEW_H_
