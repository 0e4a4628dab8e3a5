#include "fusefs/daemon/layer_store.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/base/text.h"
#include "fusefs/format/limits.h"

namespace headrace::daemon {
namespace {

using Json = nlohmann::json;

constexpr int kVersion = 1;
constexpr uint64_t kRecordBytesMax = 64 << 10;
constexpr uint64_t kSlotEnd = 1ull << 32;   // a slot is the upper half of a node id
constexpr uint64_t kSlotsAtOnce = 64;       // one durable write for so many
constexpr size_t kIdDigitsMax = 20;

struct DirCloser {
  void operator()(DIR* d) const { ::closedir(d); }
};

Result<std::vector<std::string>> ListDir(const std::string& path) {
  std::unique_ptr<DIR, DirCloser> dir(::opendir(path.c_str()));
  if (!dir) return Status::FromErrno(errno, "opendir " + path);
  std::vector<std::string> names;
  while (dirent* entry = ::readdir(dir.get())) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool ValidKey(std::string_view key) {
  return key.size() == 64 && key.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Reads a record and hands it to `take`, which may throw nlohmann's exceptions.
template <typename Record, typename Take>
Result<Record> LoadRecord(const std::string& path, Take take) {
  HR_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kRecordBytesMax));
  try {
    Json json = Json::parse(text);
    if (json.at("version").get<int>() != kVersion) return FailedPreconditionError(path + ": written by another version");
    Record record;
    HR_RETURN_IF_ERROR(take(json, record).Annotate(path));
    return record;
  } catch (const Json::exception& e) {
    return DataLossError(path + ": " + e.what());
  }
}

Result<uint32_t> Slot(const Json& json) {
  uint64_t slot = json.get<uint64_t>();
  if (slot == 0 || slot >= kSlotEnd) return DataLossError("slot out of range");
  return static_cast<uint32_t>(slot);
}

// Every Mount waits for this. A crash of the machine takes the mount itself along, so its records need not survive one: what is
// missing or torn then is left out at the next start and made anew when the snapshotter asks for its mounts.
Status WriteState(const std::string& path, std::string_view data) {
  return WriteFileAtomic(path, data, 0600, Durability::kProcessCrash);
}

}  // namespace

bool ValidMountId(std::string_view id) {
  return !id.empty() && id.size() <= kIdDigitsMax && id.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string LayerRecord::Key() const { return Digest::Of(blob.ToString() + "\n" + toc.ToString()).Hex(); }

Status LayerStore::Prepare() {
  HR_RETURN_IF_ERROR(MakeDirs(root_ + "/layers"));
  HR_RETURN_IF_ERROR(MakeDirs(root_ + "/mounts"));
  HR_ASSIGN_OR_RETURN(std::vector<std::string> names, ListDir(root_ + "/mounts"));
  for (const std::string& name : names) {
    if (name.find(".tmp.") == std::string::npos) continue;
    HR_RETURN_IF_ERROR(RemoveAll(root_ + "/mounts/" + name));
  }
  auto text = ReadFile(root_ + "/slots", kRecordBytesMax);
  if (!text.ok()) {
    if (text.status().code() == StatusCode::kNotFound) return OkStatus();
    return text.status();
  }
  auto number = ParseU64(std::string_view(*text).substr(0, text->find('\n')));
  if (!number.ok() || *number == 0 || *number > kSlotEnd) {
    return DataLossError(root_ + "/slots is damaged: expected one decimal number; stop what uses the mounts, then remove " + root_ +
                         "/mounts and this file");
  }
  MutexLock lock(mu_);
  next_slot_ = reserved_end_ = *number;
  return OkStatus();
}

Status LayerStore::SaveLayer(const LayerRecord& layer, std::string_view toc) {
  const std::string dir = LayerDir(layer.Key());
  HR_RETURN_IF_ERROR(MakeDirs(dir));
  HR_RETURN_IF_ERROR(WriteState(dir + "/toc", toc));
  Json json = {{"version", kVersion},
               {"blob_digest", layer.blob.ToString()},
               {"toc", layer.toc.ToString()},
               {"image_ref", layer.image_ref},
               {"slot", layer.slot}};
  return WriteState(dir + "/meta.json", json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Result<LayerRecord> LayerStore::LoadLayer(const std::string& key) const {
  if (!ValidKey(key)) return InvalidArgumentError("not a layer directory: " + key);
  const std::string path = LayerDir(key) + "/meta.json";
  HR_ASSIGN_OR_RETURN(LayerRecord layer, LoadRecord<LayerRecord>(path, [](const Json& json, LayerRecord& record) -> Status {
    HR_ASSIGN_OR_RETURN(record.blob, Digest::Parse(json.at("blob_digest").get<std::string>()));
    HR_ASSIGN_OR_RETURN(record.toc, format::TocLocation::Parse(json.at("toc").get<std::string>()));
    record.image_ref = json.at("image_ref").get<std::string>();
    HR_ASSIGN_OR_RETURN(record.slot, Slot(json.at("slot")));
    return OkStatus();
  }));
  if (layer.Key() != key) return DataLossError(path + " belongs to another layer");
  return layer;
}

Result<std::string> LayerStore::LoadToc(const LayerRecord& layer) const {
  return ReadFile(LayerDir(layer.Key()) + "/toc", format::limits::kTocSizeMax);
}

Status LayerStore::DeleteLayer(const std::string& key) { return RemoveAll(LayerDir(key)); }

Result<std::vector<std::string>> LayerStore::ListLayers() const {
  HR_ASSIGN_OR_RETURN(std::vector<std::string> names, ListDir(root_ + "/layers"));
  std::erase_if(names, [](const std::string& name) { return !ValidKey(name); });
  return names;
}

Status LayerStore::SaveMount(const MountRecord& mount) {
  Json json = {{"version", kVersion},
               {"id", mount.id},
               {"parent_id", mount.parent_id},
               {"above_foreign", mount.above_foreign},
               {"layer", mount.layer_key},
               {"manifest_digest", mount.manifest_digest},
               {"view_slot", mount.view_slot}};
  return WriteState(MountFile(mount.id), json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Result<MountRecord> LayerStore::LoadMount(const std::string& id) const {
  return LoadRecord<MountRecord>(MountFile(id), [&](const Json& json, MountRecord& record) -> Status {
    record.id = json.at("id").get<std::string>();
    record.parent_id = json.at("parent_id").get<std::string>();
    record.above_foreign = json.at("above_foreign").get<bool>();
    record.layer_key = json.at("layer").get<std::string>();
    record.manifest_digest = json.at("manifest_digest").get<std::string>();
    HR_ASSIGN_OR_RETURN(record.view_slot, Slot(json.at("view_slot")));
    bool parent_ok = record.parent_id.empty() || ValidMountId(record.parent_id);
    if (record.id != id || !parent_ok || !ValidKey(record.layer_key)) return DataLossError("the record contradicts itself");
    return OkStatus();
  });
}

Status LayerStore::DeleteMount(const std::string& id) {
  if (::unlink(MountFile(id).c_str()) != 0 && errno != ENOENT) return Status::FromErrno(errno, "unlink " + MountFile(id));
  return FsyncDir(root_ + "/mounts");
}

Result<std::vector<std::string>> LayerStore::ListMounts() const {
  HR_ASSIGN_OR_RETURN(std::vector<std::string> names, ListDir(root_ + "/mounts"));
  constexpr std::string_view kSuffix = ".json";
  std::vector<std::string> ids;
  for (const std::string& name : names) {
    if (!name.ends_with(kSuffix)) continue;
    std::string id = name.substr(0, name.size() - kSuffix.size());
    if (ValidMountId(id)) ids.push_back(std::move(id));
  }
  return ids;
}

Status LayerStore::ReserveSlots() {
  uint64_t end = std::min(next_slot_ + kSlotsAtOnce, kSlotEnd);
  if (next_slot_ >= end) return ResourceExhaustedError("every slot of " + root_ + " was used; start with a new root");
  HR_RETURN_IF_ERROR(WriteFileAtomic(root_ + "/slots", std::to_string(end) + "\n"));
  reserved_end_ = end;
  return OkStatus();
}

Result<uint32_t> LayerStore::TakeSlot() {
  MutexLock lock(mu_);
  if (next_slot_ >= reserved_end_) HR_RETURN_IF_ERROR(ReserveSlots());
  return static_cast<uint32_t>(next_slot_++);
}

void LayerStore::RaiseSlots(uint32_t slot) {
  MutexLock lock(mu_);
  if (slot < next_slot_) return;
  log::Warn("the slot counter was behind the slots in use, raised root={} slot={}", root_, slot);
  next_slot_ = reserved_end_ = static_cast<uint64_t>(slot) + 1;
}

}  // namespace headrace::daemon
