// LayerManager at start: everything that was mounted is shown again, from disk alone.
#include <algorithm>
#include <utility>

#include "fusefs/base/log.h"
#include "fusefs/daemon/layer_manager.h"

namespace headrace::daemon {
Status LayerManager::Restore() {
  HR_RETURN_IF_ERROR(store_.Prepare());
  HR_ASSIGN_OR_RETURN(std::vector<std::string> ids, store_.ListMounts());
  std::map<std::string, MountRecord> records;
  for (const std::string& id : ids) {
    auto record = store_.LoadMount(id);
    if (record.ok()) {
      store_.RaiseSlots(record->view_slot);
      records.emplace(id, std::move(*record));
    } else {
      log::Error("a mount cannot be read and is left out id={} error=\"{}\"", id, record.status().ToString());
    }
  }
  std::set<std::string> wanted;
  for (const auto& [id, record] : records) wanted.insert(record.layer_key);
  RestoreMounts(std::move(records));
  UpdateGauges();
  return DropOrphanLayers(wanted);
}

// Layers that lost their last mount in a crash go; those of mounts that cannot be shown stay for a person to look at.
Status LayerManager::DropOrphanLayers(const std::set<std::string>& wanted) {
  HR_ASSIGN_OR_RETURN(std::vector<std::string> keys, store_.ListLayers());
  for (const std::string& key : keys) {
    if (wanted.contains(key) || IsKept(key)) continue;
    HR_RETURN_IF_ERROR(store_.DeleteLayer(key));
  }
  return OkStatus();
}

// Parents first: in each round those whose parent is shown. What is left stands on something broken (or on itself).
void LayerManager::RestoreMounts(std::map<std::string, MountRecord> records) {
  for (bool progress = true; progress;) {
    progress = false;
    for (auto it = records.begin(); it != records.end();) {
      const MountRecord& record = it->second;
      bool ready = record.parent_id.empty();
      if (!ready) {
        MutexLock lock(mu_);
        ready = mounts_.contains(record.parent_id);
      }
      if (!ready) {
        ++it;
        continue;
      }
      auto layer = RestoreLayer(record.layer_key);
      Status status = layer.ok() ? Show(record, *layer) : layer.status();
      if (!status.ok()) log::Error("a mount cannot be shown again id={} error=\"{}\"", record.id, status.ToString());
      progress = progress || status.ok();
      it = records.erase(it);
    }
  }
  for (const auto& [id, record] : records) log::Error("a mount is left out: its parent is not there id={} parent={}", id, record.parent_id);
}

Result<std::shared_ptr<LayerManager::Layer>> LayerManager::RestoreLayer(const std::string& key) {
  {
    MutexLock lock(mu_);
    if (auto it = layers_.find(key); it != layers_.end()) return it->second;
  }
  HR_ASSIGN_OR_RETURN(LayerRecord record, store_.LoadLayer(key));
  store_.RaiseSlots(record.slot);
  auto table = store_.LoadToc(record);
  if (!table.ok()) return table.status().Annotate(record.ask.Name());
  auto index = ReadTable(record, *table);
  if (!index.ok()) return index.status().Annotate(record.ask.Name() + ": table of contents on disk");
  if (record.kind == TableKind::kWalked) HR_RETURN_IF_ERROR(Settle(&record, &*index).Annotate(record.ask.Name()));
  auto layer = std::make_shared<Layer>(record.ask);
  layer->source = MakeSource(layer, record, std::move(*index));
  layer->record = std::move(record);
  layer->started = layer->done = true;
  MutexLock lock(mu_);
  layers_.emplace(key, layer);
  return layer;
}

bool LayerManager::IsKept(const std::string& key) const { return options_.kept_layers && options_.kept_layers().contains(key); }

bool LayerManager::AttachFromDisk(const std::shared_ptr<Layer>& layer) {
  const std::string key = layer->ask.Key();
  if (!IsKept(key)) return false;
  auto record = store_.LoadLayer(key);
  if (!record.ok()) return false;
  auto table = store_.LoadToc(*record);
  auto index = table.ok() ? ReadTable(*record, *table) : Result<format::LayerIndex>(table.status());
  Status settled = index.status();
  record->ask = layer->ask;  // perhaps under another reference
  if (settled.ok() && record->kind == TableKind::kWalked) settled = Settle(&*record, &*index);
  if (!settled.ok()) {
    log::Warn("a layer that is kept on the disk is fetched again layer={} error=\"{}\"", layer->ask.blob.ToString(), settled.ToString());
    return false;
  }
  store_.RaiseSlots(record->slot);
  layer->source = MakeSource(layer, *record, std::move(*index));
  layer->record = std::move(*record);
  return true;
}

}  // namespace headrace::daemon
