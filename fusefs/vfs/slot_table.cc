#include "fusefs/vfs/slot_table.h"

#include <algorithm>
#include <mutex>

#include "fusefs/tree/limits.h"

namespace headrace::vfs {
namespace {

bool SameMount(const MountSpec& a, const MountSpec& b) {
  return a.parent_id == b.parent_id && a.above_foreign == b.above_foreign && a.layer_slot == b.layer_slot &&
         a.view_slot == b.view_slot && a.layer->blob.digest == b.layer->blob.digest;
}

}  // namespace

Status SlotTable::CheckSlotsLocked(const MountSpec& spec) const {
  if (auto it = slots_.find(spec.layer_slot); it != slots_.end()) {
    const LayerSlot* layer = it->second.layer.get();
    if (layer == nullptr || layer->blob != spec.layer->blob.digest ||
        layer->tree->index().entries.size() != spec.layer->index->entries.size()) {
      return InvalidArgumentError("slot " + std::to_string(spec.layer_slot) + " is in use for another content");
    }
  }
  if (auto it = slots_.find(spec.view_slot); it != slots_.end()) {
    const ViewSlot* view = it->second.view.get();
    if (view == nullptr || view->mounted || view->spec().id != spec.id || !SameMount(view->spec(), spec)) {
      return InvalidArgumentError("slot " + std::to_string(spec.view_slot) + " is in use for another mount");
    }
  }
  return OkStatus();
}

Result<SlotTable::Plan> SlotTable::PlanLocked(const MountSpec& spec) const {
  Plan plan;
  if (auto it = mounts_.find(spec.id); it != mounts_.end()) {
    if (!SameMount(it->second->spec(), spec)) return AlreadyExistsError("it is mounted with another content");
    plan.existing = it->second;
    return plan;
  }
  HR_RETURN_IF_ERROR(CheckSlotsLocked(spec));
  if (!spec.parent_id.empty()) {
    auto parent = mounts_.find(spec.parent_id);
    if (parent == mounts_.end()) return NotFoundError("its parent " + spec.parent_id + " is not mounted");
    if (parent->second->spec().above_foreign != spec.above_foreign) {
      return InvalidArgumentError("above_foreign differs from that of its parent " + spec.parent_id);
    }
    plan.below = parent->second->layers();
    if (plan.below.size() >= tree::limits::kChainMax) {
      return InvalidArgumentError("more than " + std::to_string(tree::limits::kChainMax) + " layers in a chain");
    }
  }
  if (auto it = slots_.find(spec.layer_slot); it != slots_.end()) plan.layer = it->second.layer;
  return plan;
}

Result<SlotTable::Plan> SlotTable::Prepare(const MountSpec& spec) const {
  std::shared_lock lock(mu_);
  return PlanLocked(spec);
}

Result<std::shared_ptr<ViewSlot>> SlotTable::Insert(std::shared_ptr<ViewSlot> view) {
  const MountSpec spec = view->spec();  // a copy: `view` may become another object below
  std::unique_lock lock(mu_);
  HR_ASSIGN_OR_RETURN(Plan plan, PlanLocked(spec));
  if (plan.existing != nullptr) return plan.existing;
  // Somebody may have made the same layer, or remade the parent, meanwhile: the chain must be of the table's own slots.
  const std::shared_ptr<LayerSlot> own = view->layers().back();
  const bool same_below =
      std::equal(plan.below.begin(), plan.below.end(), view->layers().begin(), view->layers().end() - 1);
  if (!same_below || (plan.layer != nullptr && plan.layer != own)) {
    return AbortedError("another change of the mounts came between");
  }
  Slot& slot = slots_[spec.view_slot];
  if (slot.view != nullptr && slot.view->layers() != view->layers()) {
    return InvalidArgumentError("slot " + std::to_string(spec.view_slot) + " is in use for another chain of layers");
  }
  if (slot.view != nullptr) {
    view = slot.view;  // removed, but not forgotten by the kernel: the same again
  } else {
    slot.view = view;
    for (const auto& layer : view->layers()) ++layer->views;
  }
  if (plan.layer == nullptr) {
    slots_[spec.layer_slot].layer = own;
    ++layer_count_;
  }
  view->mounted = true;
  auto& sources = view->layers().back()->sources;
  std::erase_if(sources, [&](const auto& source) {
    auto it = slots_.find(source.first);
    return source.first == spec.view_slot || it == slots_.end() ||
           it->second.view == nullptr || !it->second.view->mounted;
  });
  sources.emplace_back(spec.view_slot, spec.layer);
  if (!spec.parent_id.empty()) ++mounts_.find(spec.parent_id)->second->children;
  mounts_[spec.id] = view;
  mounts_by_slot_[spec.view_slot] = view;
  ShowGaugesLocked();
  return view;
}

Status SlotTable::Remove(const std::string& id) {
  std::unique_lock lock(mu_);
  auto it = mounts_.find(id);
  if (it == mounts_.end()) return NotFoundError("snapshot " + id + " is not mounted");
  std::shared_ptr<ViewSlot> view = it->second;
  if (view->children > 0) {
    return FailedPreconditionError("snapshot " + id + " is the parent of " + std::to_string(view->children) +
                                   " mounts");
  }
  mounts_.erase(it);
  mounts_by_slot_.erase(view->spec().view_slot);
  view->mounted = false;
  if (!view->spec().parent_id.empty()) --mounts_.find(view->spec().parent_id)->second->children;
  auto& sources = view->layers().back()->sources;
  if (sources.size() > 1) {
    std::erase_if(sources, [&](const auto& source) { return source.first == view->spec().view_slot; });
  }
  DropIfUnusedLocked(view->spec().view_slot);
  ShowGaugesLocked();
  return OkStatus();
}

void SlotTable::DropIfUnusedLocked(uint32_t number) {
  auto it = slots_.find(number);
  if (it == slots_.end()) return;
  if (const std::shared_ptr<LayerSlot>& layer = it->second.layer; layer != nullptr) {
    if (layer->views > 0 || layer->lookups.load(std::memory_order_relaxed) > 0) return;
    slots_.erase(it);
    --layer_count_;
    return;
  }
  const std::shared_ptr<ViewSlot> view = it->second.view;
  if (view->mounted || view->lookups.load(std::memory_order_relaxed) > 0) return;
  slots_.erase(it);
  for (const auto& layer : view->layers()) {
    if (--layer->views == 0) DropIfUnusedLocked(layer->slot);
  }
}

Slot SlotTable::Find(uint32_t slot) const {
  std::shared_lock lock(mu_);
  auto it = slots_.find(slot);
  return it == slots_.end() ? Slot() : it->second;
}

std::shared_ptr<ViewSlot> SlotTable::FindMount(std::string_view id) const {
  std::shared_lock lock(mu_);
  auto it = mounts_.find(id);
  return it == mounts_.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<ViewSlot>> SlotTable::MountsAfter(uint64_t slot, size_t limit) const {
  std::vector<std::shared_ptr<ViewSlot>> found;
  if (slot >= UINT32_MAX) return found;
  std::shared_lock lock(mu_);
  for (auto it = mounts_by_slot_.upper_bound(static_cast<uint32_t>(slot)); it != mounts_by_slot_.end(); ++it) {
    if (found.size() == limit) break;
    found.push_back(it->second);
  }
  return found;
}

size_t SlotTable::mount_count() const {
  std::shared_lock lock(mu_);
  return mounts_.size();
}

std::shared_ptr<const stream::LayerSource> SlotTable::SourceOf(const LayerSlot& layer) const {
  std::shared_lock lock(mu_);
  return layer.sources.empty() ? nullptr : layer.sources.back().second;
}

bool SlotTable::CountLookup(uint32_t slot) {
  std::shared_lock lock(mu_);
  auto it = slots_.find(slot);
  if (it == slots_.end()) return false;
  auto& lookups = it->second.layer != nullptr ? it->second.layer->lookups : it->second.view->lookups;
  lookups.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void SlotTable::Forget(uint32_t slot, uint64_t n) {
  {
    std::shared_lock lock(mu_);
    auto it = slots_.find(slot);
    if (it == slots_.end()) return;
    auto& lookups = it->second.layer != nullptr ? it->second.layer->lookups : it->second.view->lookups;
    uint64_t old = lookups.load(std::memory_order_relaxed);
    while (!lookups.compare_exchange_weak(old, old - std::min(old, n), std::memory_order_relaxed)) {
    }
    const bool shown = it->second.layer != nullptr ? it->second.layer->views > 0 : it->second.view->mounted;
    if (old > n || shown) return;
  }
  std::unique_lock lock(mu_);
  DropIfUnusedLocked(slot);
  ShowGaugesLocked();
}

void SlotTable::ShowGaugesLocked() {
  metrics_.mounts.store(static_cast<int64_t>(mounts_.size()), std::memory_order_relaxed);
  metrics_.layers.store(static_cast<int64_t>(layer_count_), std::memory_order_relaxed);
}

}  // namespace headrace::vfs
