#include "fusefs/vfs/view_slot.h"

#include <cerrno>

#include "fusefs/vfs/attributes.h"

namespace headrace::vfs {

Status StaleNode(NodeId node) {
  const std::string id = std::to_string(SlotOf(node)) + ":" + std::to_string(IndexOf(node));
  return NotFoundError("no node " + id).WithErrno(ESTALE);
}

ViewSlot::ViewSlot(MountSpec spec, Layers layers) : spec_(std::move(spec)), layers_(std::move(layers)) {}

tree::MergeMode ViewSlot::mode() const {
  return spec_.above_foreign ? tree::MergeMode::kAboveForeign : tree::MergeMode::kBottom;
}

Result<const tree::MergedView*> ViewSlot::View() const {
  if (const tree::MergedView* view = ready_.load(std::memory_order_acquire); view != nullptr) return view;
  MutexLock lock(mu_);
  if (view_ == nullptr && error_.ok()) {
    tree::Chain chain;
    for (const auto& layer : layers_) chain.push_back(layer->tree);
    Result<std::shared_ptr<const tree::MergedView>> built = tree::MergedView::Build(std::move(chain), mode());
    if (built.ok()) {
      view_ = std::move(built).value();
      ready_.store(view_.get(), std::memory_order_release);
    } else {
      error_ = built.status().Annotate("merge of snapshot " + spec_.id);
    }
  }
  if (view_ == nullptr) return error_;
  return view_.get();
}

const format::Entry* ViewSlot::EntryOf(const tree::ViewDirectory& dir) const {
  return dir.entry == tree::kNoEntry ? nullptr : &layers_[dir.layer]->tree->index().entries[dir.entry];
}

struct stat ViewSlot::DirStat(uint32_t index, const tree::ViewDirectory& dir) const {
  return DirectoryStat(MakeNode(spec_.view_slot, index), EntryOf(dir), dir.subdirs);
}

Result<struct stat> ViewSlot::RootStat() const {
  if (const tree::MergedView* view = ready_.load(std::memory_order_acquire); view != nullptr) {
    return DirStat(kViewRoot, view->directory(kViewRoot));
  }
  tree::Chain chain;
  for (const auto& layer : layers_) chain.push_back(layer->tree);
  HR_ASSIGN_OR_RETURN(const tree::ViewDirectory root, tree::MergedView::Root(chain, mode()));
  return DirStat(kViewRoot, root);
}

Result<const tree::ViewDirectory*> ViewSlot::DirectoryAt(uint32_t index) const {
  HR_ASSIGN_OR_RETURN(const tree::MergedView* view, View());
  if (index >= view->directory_count()) return StaleNode(MakeNode(spec_.view_slot, index));
  return &view->directory(index);
}

Result<struct stat> ViewSlot::Stat(uint32_t index) const {
  if (index == kViewRoot) return RootStat();
  if (index == kWhiteoutIndex && spec_.above_foreign) return WhiteoutStat(MakeNode(spec_.view_slot, index));
  HR_ASSIGN_OR_RETURN(const tree::ViewDirectory* dir, DirectoryAt(index));
  return DirStat(index, *dir);
}

struct stat ViewSlot::ChildStat(const tree::MergedView& view, const tree::ViewChild& child) const {
  switch (child.kind) {
    case tree::NodeKind::kDir:
      return DirStat(child.target, view.directory(child.target));
    case tree::NodeKind::kInode: {
      const LayerSlot& layer = *layers_[child.layer];
      return InodeStat(MakeNode(layer.slot, child.target), layer.tree->index().entries[child.target],
                       layer.tree->nlink(child.target));
    }
    case tree::NodeKind::kWhiteout:
      break;
  }
  return WhiteoutStat(MakeNode(spec_.view_slot, kWhiteoutIndex));
}

MountInfo ViewSlot::Info() const {
  const tree::LayerTree& layer = *layers_.back()->tree;
  return {.id = spec_.id,
          .blob_digest = spec_.layer->blob.digest.ToString(),
          .image_ref = spec_.layer->blob.image_ref,
          .size = layer.file_bytes(),
          .files = layer.file_count()};
}

}  // namespace headrace::vfs
