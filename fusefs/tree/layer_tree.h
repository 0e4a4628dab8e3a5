// LayerTree: the directories of one layer, made from its LayerIndex as an extraction of the tar would make them
// (README.md: SEMANTICS). Names are sorted; whiteouts are kept as such; hard links are resolved to the entry
// that holds the inode.
//
// Non-directories are known by the position of their entry in the index ("inode" = that position, for ever).
// Directories have numbers of this tree's own (0 = root), which never leave the process: merged views number
// theirs anew.
//
// Immutable after Build; shared freely between threads; nothing blocks. It keeps the index alive: names point into it.
// Errors of Build: InvalidArgument (a tree that cannot be: names the entry), ResourceExhausted (limits.h).
// Memory: 16 bytes a name + 4 bytes an entry, beside the index. Spec: OCI image-spec layer.md.
#ifndef HEADRACE_FUSEFS_TREE_LAYER_TREE_H_
#define HEADRACE_FUSEFS_TREE_LAYER_TREE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"

namespace headrace::tree {

using DirId = uint32_t;
inline constexpr DirId kRootDir = 0;
// "No entry": a directory that the tar does not list (mode 0755, root:root, mtime 0).
inline constexpr uint32_t kNoEntry = UINT32_MAX;

enum class ChildKind : uint8_t {
  kDir,        // target: DirId
  kInode,      // target: entry that holds the inode (never a directory, never a hard link)
  kWhiteout,   // hides the name in the layers below; target unused
  kLowerLink,  // target: the hard-link entry whose link_target must be looked for in the layers below
};

// One name in a directory. Its bytes live in the LayerIndex.
struct Child {
  const char* data = nullptr;
  uint32_t target = 0;
  uint8_t size = 0;
  ChildKind kind = ChildKind::kInode;
  std::string_view name() const { return {data, size}; }
};

struct Directory {
  uint32_t entry = kNoEntry;  // whose metadata it has
  uint32_t first_child = 0;
  uint32_t child_count = 0;
  bool opaque = false;        // hides what the layers below have in it
  bool anew = false;          // a whiteout of the same layer names it: opaque, and the metadata below is gone as well
};

class LayerTree {
 public:
  static Result<std::shared_ptr<const LayerTree>> Build(std::shared_ptr<const format::LayerIndex> index);

  const format::LayerIndex& index() const { return *index_; }
  const std::shared_ptr<const format::LayerIndex>& shared_index() const { return index_; }

  size_t directory_count() const { return dirs_.size(); }
  const Directory& directory(DirId dir) const { return dirs_[dir]; }
  // Sorted by name (bytes); names are unique.
  std::span<const Child> children(DirId dir) const {
    return {children_.data() + dirs_[dir].first_child, dirs_[dir].child_count};
  }
  const Child* Find(DirId dir, std::string_view name) const;

  // The entry holds an inode that a name of this layer leads to.
  bool IsInode(uint32_t entry) const { return entry < nlink_.size() && nlink_[entry] > 0; }
  // Names of this layer that lead to the inode. REQUIRES: IsInode(entry).
  uint32_t nlink(uint32_t entry) const { return nlink_[entry]; }

  uint64_t lower_links() const { return lower_links_; }  // names of kind kLowerLink
  uint64_t file_count() const { return file_count_; }    // regular files, hard links counted once
  uint64_t file_bytes() const { return file_bytes_; }    // their decoded bytes

 private:
  friend class LayerTreeBuilder;
  LayerTree() = default;

  std::shared_ptr<const format::LayerIndex> index_;
  std::vector<Directory> dirs_;
  std::vector<Child> children_;
  std::vector<uint32_t> nlink_;
  uint64_t lower_links_ = 0;
  uint64_t file_count_ = 0;
  uint64_t file_bytes_ = 0;
};

// "text" with bytes that a log line cannot take as \xNN; cut to 300 bytes. For error messages about names from outside.
std::string Printable(std::string_view text);

}  // namespace headrace::tree

#endif  // HEADRACE_FUSEFS_TREE_LAYER_TREE_H_
