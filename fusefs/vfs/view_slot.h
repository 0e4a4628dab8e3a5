// What a slot stands for: a layer (LayerSlot) or the merged directories of one mount (ViewSlot). Private to vfs/.
//
// Owned by the SlotTable and, while a call uses them, by that call (shared_ptr: a slot may be dropped
// meanwhile). Fields marked "table" are guarded by the lock of the table; everything else is constant or guards itself.
#ifndef HEADRACE_FUSEFS_VFS_VIEW_SLOT_H_
#define HEADRACE_FUSEFS_VFS_VIEW_SLOT_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/tree/merged_view.h"
#include "fusefs/vfs/vfs.h"

namespace headrace::vfs {

inline constexpr uint32_t kViewRoot = 0;
// All whiteouts of a view (above_foreign) share this index: nothing tells them apart.
inline constexpr uint32_t kWhiteoutIndex = UINT32_MAX;

constexpr uint32_t SlotOf(NodeId node) { return static_cast<uint32_t>(node >> 32); }
constexpr uint32_t IndexOf(NodeId node) { return static_cast<uint32_t>(node); }

struct LayerSlot {
  uint32_t slot = 0;
  Digest blob;
  std::shared_ptr<const tree::LayerTree> tree;
  std::atomic<uint64_t> lookups{0};
  // Table. One for each view slot that was mounted with this layer, by view slot; the last one stays when its
  // mount goes.
  std::vector<std::pair<uint32_t, std::shared_ptr<const stream::LayerSource>>> sources;
  uint32_t views = 0;  // table: view slots with this layer in their chain
};

class ViewSlot {
 public:
  using Layers = std::vector<std::shared_ptr<LayerSlot>>;  // bottom to top
  ViewSlot(MountSpec spec, Layers layers);

  const MountSpec& spec() const { return spec_; }
  const Layers& layers() const { return layers_; }
  tree::MergeMode mode() const;
  // The merge, made at the first call (CPU); the same object, or the same error, ever after.
  Result<const tree::MergedView*> View() const;

  // Attributes of the mount's directory without the merge of everything in it.
  Result<struct stat> RootStat() const;
  Result<struct stat> Stat(uint32_t index) const;
  struct stat ChildStat(const tree::MergedView& view, const tree::ViewChild& child) const;
  // Whose metadata (extended attributes) a directory has; null: nobody's.
  Result<const tree::ViewDirectory*> DirectoryAt(uint32_t index) const;
  const format::Entry* EntryOf(const tree::ViewDirectory& dir) const;
  MountInfo Info() const;

  std::atomic<uint64_t> lookups{0};
  bool mounted = false;   // table
  uint32_t children = 0;  // table: mounts that have this one as parent

 private:
  struct stat DirStat(uint32_t index, const tree::ViewDirectory& dir) const;
  const MountSpec spec_;
  const Layers layers_;
  mutable Mutex mu_;  // held during the merge: the others need its result
  mutable std::shared_ptr<const tree::MergedView> view_ HR_GUARDED_BY(mu_);
  mutable Status error_ HR_GUARDED_BY(mu_);
  mutable std::atomic<const tree::MergedView*> ready_{nullptr};  // view_.get() once it is there
};

// ESTALE: the node is not known (any more).
Status StaleNode(NodeId node);

}  // namespace headrace::vfs

#endif  // HEADRACE_FUSEFS_VFS_VIEW_SLOT_H_
