#include "fusefs/vfs/vfs.h"

#include <cerrno>
#include <utility>

#include "fusefs/vfs/attributes.h"
#include "fusefs/vfs/slot_table.h"

namespace headrace::vfs {
namespace {

constexpr size_t kNameBytesMax = 255;
constexpr std::string_view kOpaqueXattr = "trusted.overlay.opaque";
// Cookies of "." and ".."; what follows counts on from there.
constexpr uint64_t kDotCookie = 1;
constexpr uint64_t kDotDotCookie = 2;

Status NotADirectory(NodeId node) {
  return InvalidArgumentError("node " + std::to_string(node) + " is not a directory").WithErrno(ENOTDIR);
}

Status CheckSpec(const MountSpec& spec) {
  if (spec.id.empty() || spec.id.size() > kNameBytesMax || spec.id == "." || spec.id == ".." ||
      spec.id.find('/') != std::string::npos || spec.id.find('\0') != std::string::npos) {
    return InvalidArgumentError("the snapshot id cannot be a file name");
  }
  if (spec.layer == nullptr || spec.layer->index == nullptr) return InvalidArgumentError("no layer was given");
  if (spec.layer_slot == 0 || spec.view_slot == 0 || spec.layer_slot == spec.view_slot) {
    return InvalidArgumentError("layer slot and view slot must differ from each other and from 0");
  }
  return OkStatus();
}

class VfsImpl : public Vfs {
 public:
  VfsImpl(stream::Streamer& streamer, Metrics& metrics) : streamer_(streamer), table_(metrics) {}

  Result<MountInfo> AddMount(const MountSpec& spec) override;
  Status RemoveMount(const std::string& id) override { return table_.Remove(id); }
  Result<MountInfo> GetMount(const std::string& id) const override;
  std::vector<MountInfo> ListMounts() const override;

  Result<struct stat> Lookup(NodeId parent, std::string_view name) override;
  void Forget(NodeId node, uint64_t n) override { table_.Forget(SlotOf(node), n); }
  Result<struct stat> GetAttr(NodeId node) const override;
  Result<std::string> ReadLink(NodeId node) const override;
  Status ReadDir(NodeId node, uint64_t cookie, bool plus, const Emit& emit) override;
  Result<std::string> GetXattr(NodeId node, std::string_view name) const override;
  Result<std::string> ListXattr(NodeId node) const override;
  Result<std::shared_ptr<stream::FileContent>> Open(NodeId node) override;

 private:
  Result<std::shared_ptr<ViewSlot>> TryMount(const MountSpec& spec);
  struct stat RootStat() const;
  Result<struct stat> Find(NodeId parent, std::string_view name) const;
  Status ReadRoot(uint64_t cookie, bool plus, const Emit& emit);
  Status ReadViewDir(const ViewSlot& slot, uint32_t index, uint64_t cookie, bool plus, const Emit& emit);
  // Emits "." and ".." as far as `cookie` asks for them; false: the reader is full.
  bool EmitDots(const struct stat& self, const struct stat& parent, uint64_t& cookie, const Emit& emit) const;
  void Count(bool plus, NodeId node) {
    if (plus) table_.CountLookup(SlotOf(node));
  }

  stream::Streamer& streamer_;
  SlotTable table_;
};

// The entry of a non-directory of that slot; null: there is none.
const format::Entry* InodeEntry(const Slot& slot, uint32_t index) {
  if (slot.layer == nullptr || !slot.layer->tree->IsInode(index)) return nullptr;
  return &slot.layer->tree->index().entries[index];
}

Result<std::shared_ptr<ViewSlot>> VfsImpl::TryMount(const MountSpec& spec) {
  HR_ASSIGN_OR_RETURN(SlotTable::Plan plan, table_.Prepare(spec));
  if (plan.existing != nullptr) return plan.existing;
  MountSpec kept = spec;
  if (plan.layer == nullptr) {
    plan.layer = std::make_shared<LayerSlot>();
    plan.layer->slot = spec.layer_slot;
    plan.layer->blob = spec.layer->blob.digest;
    HR_ASSIGN_OR_RETURN(plan.layer->tree, tree::LayerTree::Build(spec.layer->index));
  } else {
    // One index in memory is enough; where the bytes come from may differ.
    kept.layer = std::make_shared<stream::LayerSource>(
        stream::LayerSource{spec.layer->blob, plan.layer->tree->shared_index(), spec.layer->opener});
  }
  ViewSlot::Layers layers = std::move(plan.below);
  layers.push_back(plan.layer);
  auto view = std::make_shared<ViewSlot>(std::move(kept), std::move(layers));
  if (plan.layer->tree->lower_links() > 0) {
    HR_ASSIGN_OR_RETURN(const tree::MergedView* merged, view->View());
    if (const format::Entry* link = merged->dropped_link(); link != nullptr) {
      return FailedPreconditionError("hard link " + tree::Printable(link->name) + ": its target " +
                                     tree::Printable(link->link_target) + " is in no lazy layer at or below this one");
    }
  }
  return table_.Insert(std::move(view));
}

Result<MountInfo> VfsImpl::AddMount(const MountSpec& spec) {
  Status status = CheckSpec(spec);
  constexpr int kTriesMax = 16;  // Aborted: another AddMount of the same layer was faster; its tree is taken then
  for (int i = 0; status.ok() && i < kTriesMax; ++i) {
    Result<std::shared_ptr<ViewSlot>> view = TryMount(spec);
    if (view.ok()) return (*view)->Info();
    if (view.status().code() != StatusCode::kAborted || i + 1 == kTriesMax) status = view.status();
  }
  return status.Annotate("mount " + tree::Printable(spec.id) + " of layer " +
                         (spec.layer == nullptr ? std::string("(none)") : spec.layer->blob.digest.ToString()));
}

Result<MountInfo> VfsImpl::GetMount(const std::string& id) const {
  const std::shared_ptr<ViewSlot> view = table_.FindMount(id);
  if (view == nullptr) return NotFoundError("snapshot " + id + " is not mounted");
  return view->Info();
}

std::vector<MountInfo> VfsImpl::ListMounts() const {
  std::vector<MountInfo> infos;
  for (const auto& view : table_.MountsAfter(0, SIZE_MAX)) infos.push_back(view->Info());
  return infos;
}

struct stat VfsImpl::RootStat() const {
  const uint32_t subdirs = static_cast<uint32_t>(table_.mount_count());
  return DirectoryStat(kRootNode, nullptr, subdirs);
}

Result<struct stat> VfsImpl::Find(NodeId parent, std::string_view name) const {
  if (name.size() > kNameBytesMax) return NotFoundError("name too long").WithErrno(ENAMETOOLONG);
  if (parent == kRootNode) {
    if (name == "." || name == "..") return RootStat();
    const std::shared_ptr<ViewSlot> mount = table_.FindMount(name);
    if (mount == nullptr) return NotFoundError("no such snapshot");
    return mount->RootStat();
  }
  const Slot slot = table_.Find(SlotOf(parent));
  if (slot.view == nullptr || IndexOf(parent) == kWhiteoutIndex) {
    if (name == ".") return GetAttr(parent);  // how the kernel finds the node of a file handle, of any type
    return slot.layer == nullptr && slot.view == nullptr ? StaleNode(parent) : NotADirectory(parent);
  }
  HR_ASSIGN_OR_RETURN(const tree::ViewDirectory* dir, slot.view->DirectoryAt(IndexOf(parent)));
  if (name == ".") return slot.view->Stat(IndexOf(parent));
  if (name == ".." && IndexOf(parent) == kViewRoot) return RootStat();
  if (name == "..") return slot.view->Stat(dir->parent);
  HR_ASSIGN_OR_RETURN(const tree::MergedView* view, slot.view->View());
  const tree::ViewChild* child = view->Find(IndexOf(parent), name);
  if (child == nullptr) return NotFoundError("no such name");
  return slot.view->ChildStat(*view, *child);
}

Result<struct stat> VfsImpl::Lookup(NodeId parent, std::string_view name) {
  HR_ASSIGN_OR_RETURN(const struct stat st, Find(parent, name));
  if (st.st_ino != kRootNode && !table_.CountLookup(SlotOf(st.st_ino))) return StaleNode(st.st_ino);
  return st;
}

Result<struct stat> VfsImpl::GetAttr(NodeId node) const {
  if (node == kRootNode) return RootStat();
  const Slot slot = table_.Find(SlotOf(node));
  if (slot.view != nullptr) return slot.view->Stat(IndexOf(node));
  const format::Entry* entry = InodeEntry(slot, IndexOf(node));
  if (entry == nullptr) return StaleNode(node);
  return InodeStat(node, *entry, slot.layer->tree->nlink(IndexOf(node)));
}

Result<std::string> VfsImpl::ReadLink(NodeId node) const {
  const Slot slot = table_.Find(SlotOf(node));
  const format::Entry* entry = InodeEntry(slot, IndexOf(node));
  if (entry != nullptr && entry->type == format::EntryType::kSymlink) return entry->link_target;
  HR_RETURN_IF_ERROR(GetAttr(node).status());
  return InvalidArgumentError("not a symbolic link").WithErrno(EINVAL);
}

bool VfsImpl::EmitDots(const struct stat& self, const struct stat& parent, uint64_t& cookie, const Emit& emit) const {
  if (cookie < kDotCookie) {
    if (!emit(".", self, kDotCookie)) return false;
    cookie = kDotCookie;
  }
  if (cookie < kDotDotCookie) {
    if (!emit("..", parent, kDotDotCookie)) return false;
    cookie = kDotDotCookie;
  }
  return true;
}

Status VfsImpl::ReadDir(NodeId node, uint64_t cookie, bool plus, const Emit& emit) {
  if (node == kRootNode) return ReadRoot(cookie, plus, emit);
  const Slot slot = table_.Find(SlotOf(node));
  if (slot.view == nullptr || IndexOf(node) == kWhiteoutIndex) {
    return slot.layer == nullptr && slot.view == nullptr ? StaleNode(node) : NotADirectory(node);
  }
  return ReadViewDir(*slot.view, IndexOf(node), cookie, plus, emit);
}

Status VfsImpl::ReadRoot(uint64_t cookie, bool plus, const Emit& emit) {
  constexpr size_t kBatch = 256;
  const struct stat self = RootStat();
  if (!EmitDots(self, self, cookie, emit)) return OkStatus();
  while (true) {
    const auto mounts = table_.MountsAfter(cookie - kDotDotCookie, kBatch);
    if (mounts.empty()) return OkStatus();
    for (const auto& mount : mounts) {
      struct stat st = DirectoryStat(MakeNode(mount->spec().view_slot, kViewRoot), nullptr, 0);
      if (plus) {
        HR_ASSIGN_OR_RETURN(st, mount->RootStat());
      }
      cookie = kDotDotCookie + mount->spec().view_slot;
      if (!emit(mount->spec().id, st, cookie)) return OkStatus();
      Count(plus, st.st_ino);
    }
  }
}

Status VfsImpl::ReadViewDir(const ViewSlot& slot, uint32_t index, uint64_t cookie, bool plus, const Emit& emit) {
  HR_ASSIGN_OR_RETURN(const tree::ViewDirectory* dir, slot.DirectoryAt(index));
  HR_ASSIGN_OR_RETURN(const tree::MergedView* view, slot.View());
  HR_ASSIGN_OR_RETURN(const struct stat self, slot.Stat(index));
  struct stat parent = RootStat();
  if (index != kViewRoot) {
    HR_ASSIGN_OR_RETURN(parent, slot.Stat(dir->parent));
  }
  if (!EmitDots(self, parent, cookie, emit)) return OkStatus();
  const auto children = view->children(index);
  for (uint64_t i = cookie - kDotDotCookie; i < children.size(); ++i) {
    const struct stat st = slot.ChildStat(*view, children[i]);
    if (!emit(std::string(children[i].name()), st, kDotDotCookie + i + 1)) break;
    Count(plus, st.st_ino);
  }
  return OkStatus();
}

Result<std::string> VfsImpl::GetXattr(NodeId node, std::string_view name) const {
  if (node == kRootNode) return NoSuchXattr(name);
  const Slot slot = table_.Find(SlotOf(node));
  if (slot.view == nullptr) {
    const format::Entry* entry = InodeEntry(slot, IndexOf(node));
    if (entry == nullptr) return StaleNode(node);
    return EntryXattr(*entry, name);
  }
  if (IndexOf(node) == kWhiteoutIndex) return NoSuchXattr(name);
  HR_ASSIGN_OR_RETURN(const tree::ViewDirectory* dir, slot.view->DirectoryAt(IndexOf(node)));
  if (dir->opaque && name == kOpaqueXattr) return std::string("y");
  const format::Entry* entry = slot.view->EntryOf(*dir);
  if (entry == nullptr) return NoSuchXattr(name);
  return EntryXattr(*entry, name);
}

Result<std::string> VfsImpl::ListXattr(NodeId node) const {
  std::string names;
  if (node == kRootNode) return names;
  const Slot slot = table_.Find(SlotOf(node));
  if (slot.view == nullptr) {
    const format::Entry* entry = InodeEntry(slot, IndexOf(node));
    if (entry == nullptr) return StaleNode(node);
    AppendXattrNames(*entry, names);
    return names;
  }
  if (IndexOf(node) == kWhiteoutIndex) return names;
  HR_ASSIGN_OR_RETURN(const tree::ViewDirectory* dir, slot.view->DirectoryAt(IndexOf(node)));
  if (dir->opaque) names.append(kOpaqueXattr).push_back('\0');
  if (const format::Entry* entry = slot.view->EntryOf(*dir); entry != nullptr) AppendXattrNames(*entry, names);
  return names;
}

Result<std::shared_ptr<stream::FileContent>> VfsImpl::Open(NodeId node) {
  const Slot slot = table_.Find(SlotOf(node));
  const format::Entry* entry = InodeEntry(slot, IndexOf(node));
  if (entry == nullptr) {
    HR_ASSIGN_OR_RETURN(const struct stat st, GetAttr(node));
    if (S_ISDIR(st.st_mode)) return InvalidArgumentError("is a directory").WithErrno(EISDIR);
  }
  if (entry == nullptr || entry->type != format::EntryType::kRegular) {
    return InvalidArgumentError("not a regular file").WithErrno(EINVAL);
  }
  return streamer_.Open(table_.SourceOf(*slot.layer), IndexOf(node));
}

}  // namespace

std::unique_ptr<Vfs> Vfs::Create(stream::Streamer& streamer, Metrics& metrics) {
  return std::make_unique<VfsImpl>(streamer, metrics);
}

}  // namespace headrace::vfs
