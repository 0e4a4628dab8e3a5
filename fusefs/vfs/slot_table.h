// SlotTable: which slots and mounts there are, and how many references the kernel has to each slot. Private to vfs/.
//
// A view slot lives while it is mounted or the kernel refers to one of its nodes; a layer slot while a view
// slot has it in its chain or the kernel refers to one of its nodes. Threads: all methods from any thread; one
// shared lock, held for table operations only (no merge, no callback, no I/O).
#ifndef HEADRACE_FUSEFS_VFS_SLOT_TABLE_H_
#define HEADRACE_FUSEFS_VFS_SLOT_TABLE_H_

#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fusefs/vfs/view_slot.h"

namespace headrace::vfs {

// One of the two, or neither.
struct Slot {
  std::shared_ptr<LayerSlot> layer;
  std::shared_ptr<ViewSlot> view;
};

class SlotTable {
 public:
  explicit SlotTable(Metrics& metrics) : metrics_(metrics) {}

  // What AddMount needs to know before it does the long work.
  struct Plan {
    std::shared_ptr<ViewSlot> existing;  // the same mount is there already
    ViewSlot::Layers below;              // chain of the parent
    std::shared_ptr<LayerSlot> layer;    // null: its tree is to be built
  };
  Result<Plan> Prepare(const MountSpec& spec) const;
  // Checks again, since the world went on meanwhile, and shows the mount.
  Result<std::shared_ptr<ViewSlot>> Insert(std::shared_ptr<ViewSlot> view);
  Status Remove(const std::string& id);

  Slot Find(uint32_t slot) const;
  std::shared_ptr<ViewSlot> FindMount(std::string_view id) const;
  // Up to `limit` mounts in the order of their view slots, beginning after `slot`.
  std::vector<std::shared_ptr<ViewSlot>> MountsAfter(uint64_t slot, size_t limit) const;
  size_t mount_count() const;
  std::shared_ptr<const stream::LayerSource> SourceOf(const LayerSlot& layer) const;

  // One more reference of the kernel; false: the slot is gone.
  bool CountLookup(uint32_t slot);
  // Never below zero: after a takeover the kernel forgets what an earlier process counted.
  void Forget(uint32_t slot, uint64_t n);

 private:
  Result<Plan> PlanLocked(const MountSpec& spec) const;
  Status CheckSlotsLocked(const MountSpec& spec) const;
  void DropIfUnusedLocked(uint32_t slot);
  void ShowGaugesLocked();

  Metrics& metrics_;
  mutable std::shared_mutex mu_;
  std::unordered_map<uint32_t, Slot> slots_;
  size_t layer_count_ = 0;  // layer slots among them
  std::map<std::string, std::shared_ptr<ViewSlot>, std::less<>> mounts_;
  std::map<uint32_t, std::shared_ptr<ViewSlot>> mounts_by_slot_;
};

}  // namespace headrace::vfs

#endif  // HEADRACE_FUSEFS_VFS_SLOT_TABLE_H_
