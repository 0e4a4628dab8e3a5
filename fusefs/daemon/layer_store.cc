#include "fusefs/daemon/layer_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
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

constexpr uint64_t kLayerVersion = 2;  // of layers and learned tables; 1 knew only our own format
constexpr uint64_t kMountVersion = 1;
constexpr uint64_t kRecordBytesMax = 64 << 10;
constexpr uint64_t kSlotEnd = 1ull << 32;   // a slot is the upper half of a node id
constexpr uint64_t kSlotsAtOnce = 64;       // one durable write for so many
constexpr size_t kIdDigitsMax = 20;
constexpr size_t kLearnedMax = 1000;

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

// A natural number as we write it; the library would turn a fraction, or what no integer can hold, into some number.
Result<uint64_t> Natural(const Json& json, const char* name) {
  const Json& number = json.at(name);
  if (!number.is_number_unsigned()) return DataLossError(std::string(name) + " is not a natural number");
  return number.get<uint64_t>();
}

// Whether a record is of our version.
Status CheckVersion(const Json& json, uint64_t version) {
  HR_ASSIGN_OR_RETURN(const uint64_t written, Natural(json, "version"));
  return written == version ? OkStatus() : FailedPreconditionError("written by another version");
}

// Reads a record and hands it to `take`, which may throw nlohmann's exceptions.
template <typename Record, typename Take>
Result<Record> LoadRecord(const std::string& path, uint64_t version, Take take) {
  HR_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kRecordBytesMax));
  try {
    Json json = Json::parse(text);
    HR_RETURN_IF_ERROR(CheckVersion(json, version).Annotate(path));
    Record record;
    HR_RETURN_IF_ERROR(take(json, record).Annotate(path));
    return record;
  } catch (const Json::exception& e) {
    return DataLossError(path + ": " + e.what());
  }
}

Result<uint32_t> Slot(const Json& json, const char* name) {
  HR_ASSIGN_OR_RETURN(const uint64_t slot, Natural(json, name));
  if (slot == 0 || slot >= kSlotEnd) return DataLossError("slot out of range");
  return static_cast<uint32_t>(slot);
}

void SetLearned(const LayerRecord& layer, Json& json) {
  json["table_digest"] = layer.table.ToString();
  json["diff_id"] = layer.diff_id.ToString();
  json["decoded"] = layer.decoded;
  json["blob_size"] = layer.blob_size;
}

// What the record's format needs to find and to verify its table.
Status GetTablePlace(const Json& json, LayerRecord& record) {
  switch (record.kind) {
    case TableKind::kHeadrace:
    case TableKind::kZstdChunked: {
      HR_ASSIGN_OR_RETURN(record.toc, format::TocLocation::Parse(json.at("toc").get<std::string>()));
      return OkStatus();
    }
    case TableKind::kEstargz: {
      HR_ASSIGN_OR_RETURN(record.estargz_toc, Digest::Parse(json.at("toc_digest").get<std::string>()));
      HR_ASSIGN_OR_RETURN(record.estargz_offset, Natural(json, "toc_offset"));
      HR_ASSIGN_OR_RETURN(record.blob_size, Natural(json, "blob_size"));
      return OkStatus();
    }
    case TableKind::kLearned:
    case TableKind::kWalked: {
      HR_ASSIGN_OR_RETURN(record.table, Digest::Parse(json.at("table_digest").get<std::string>()));
      HR_ASSIGN_OR_RETURN(record.diff_id, Digest::Parse(json.at("diff_id").get<std::string>()));
      record.decoded = json.at("decoded").get<bool>();
      HR_ASSIGN_OR_RETURN(record.blob_size, Natural(json, "blob_size"));
      return OkStatus();
    }
  }
  return InternalError("a layer of no format");
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

Status LayerStore::Prepare() {
  HR_RETURN_IF_ERROR(MakeDirs(root_ + "/layers"));
  HR_RETURN_IF_ERROR(MakeDirs(root_ + "/mounts"));
  HR_RETURN_IF_ERROR(MakeDirs(root_ + "/learned"));
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
  const std::string dir = LayerDir(layer.ask.Key());
  HR_RETURN_IF_ERROR(MakeDirs(dir));
  HR_RETURN_IF_ERROR(WriteState(dir + "/toc", toc));
  Json json = {{"version", kLayerVersion},
               {"blob_digest", layer.ask.blob.ToString()},
               {"label", layer.ask.label},
               {"image_ref", layer.ask.image_ref},
               {"manifest_digest", layer.ask.manifest_digest},
               {"format", TableKindName(layer.kind)},
               {"slot", layer.slot}};
  switch (layer.kind) {
    case TableKind::kHeadrace:
    case TableKind::kZstdChunked:
      json["toc"] = layer.toc.ToString();
      break;
    case TableKind::kEstargz:
      json["toc_digest"] = layer.estargz_toc.ToString();
      json["toc_offset"] = layer.estargz_offset;
      json["blob_size"] = layer.blob_size;
      break;
    case TableKind::kLearned:
    case TableKind::kWalked:
      SetLearned(layer, json);
      break;
  }
  return WriteState(dir + "/meta.json", json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Result<LayerRecord> LayerStore::LoadLayer(const std::string& key) const {
  if (!ValidKey(key)) return InvalidArgumentError("not a layer directory: " + key);
  const std::string path = LayerDir(key) + "/meta.json";
  HR_ASSIGN_OR_RETURN(LayerRecord layer, LoadRecord<LayerRecord>(path, kLayerVersion, [](const Json& json, LayerRecord& record) -> Status {
    HR_ASSIGN_OR_RETURN(record.ask.blob, Digest::Parse(json.at("blob_digest").get<std::string>()));
    record.ask.label = json.at("label").get<std::string>();
    record.ask.image_ref = json.at("image_ref").get<std::string>();
    record.ask.manifest_digest = json.at("manifest_digest").get<std::string>();
    HR_ASSIGN_OR_RETURN(record.kind, ParseTableKind(json.at("format").get<std::string>()));
    HR_ASSIGN_OR_RETURN(record.slot, Slot(json, "slot"));
    return GetTablePlace(json, record);
  }));
  if (layer.ask.Key() != key) return DataLossError(path + " belongs to another layer");
  return layer;
}

Status LayerStore::KeepLearned(const LayerRecord& layer, std::string_view table) {
  Json json = {{"version", kLayerVersion}};
  SetLearned(layer, json);
  std::string text = json.dump() + "\n";
  text += table;
  HR_RETURN_IF_ERROR(WriteState(LearnedFile(layer.ask.blob), text));
  return DropOldLearned();
}

Result<LayerRecord> LayerStore::LoadLearned(const LayerAsk& ask, std::string* table) const {
  const std::string path = LearnedFile(ask.blob);
  HR_ASSIGN_OR_RETURN(std::string text, ReadFile(path, kRecordBytesMax + format::limits::kTocSizeMax));
  const size_t end = text.find('\n');
  if (end == std::string::npos) return DataLossError(path + " is cut short");
  LayerRecord record;
  record.ask = ask;
  record.kind = TableKind::kLearned;
  try {
    Json json = Json::parse(text.begin(), text.begin() + static_cast<ptrdiff_t>(end));
    HR_RETURN_IF_ERROR(CheckVersion(json, kLayerVersion).Annotate(path));
    HR_RETURN_IF_ERROR(GetTablePlace(json, record).Annotate(path));
  } catch (const Json::exception& e) {
    return DataLossError(path + ": " + e.what());
  }
  // For DropOldLearned: it was of use.
  if (::utimensat(AT_FDCWD, path.c_str(), nullptr, 0) != 0) log::Debug("cannot touch path={}", path);
  *table = text.substr(end + 1);
  return record;
}

// The names are digests, so two calls at a time do no harm to each other.
Status LayerStore::DropOldLearned() {
  HR_ASSIGN_OR_RETURN(std::vector<std::string> names, ListDir(root_ + "/learned"));
  if (names.size() <= kLearnedMax) return OkStatus();
  std::vector<std::pair<int64_t, std::string>> by_age;
  for (const std::string& name : names) {
    struct stat st;
    const std::string path = root_ + "/learned/" + name;
    if (::stat(path.c_str(), &st) == 0) by_age.emplace_back(st.st_mtim.tv_sec, path);
  }
  std::sort(by_age.begin(), by_age.end());
  for (size_t i = 0; i + kLearnedMax < by_age.size(); ++i) {
    if (::unlink(by_age[i].second.c_str()) != 0 && errno != ENOENT) return Status::FromErrno(errno, "unlink " + by_age[i].second);
  }
  return OkStatus();
}

Result<std::string> LayerStore::LoadToc(const LayerRecord& layer) const {
  return ReadFile(LayerDir(layer.ask.Key()) + "/toc", format::limits::kTocSizeMax);
}

Status LayerStore::DeleteLayer(const std::string& key) { return RemoveAll(LayerDir(key)); }

Result<std::vector<std::string>> LayerStore::ListLayers() const {
  HR_ASSIGN_OR_RETURN(std::vector<std::string> names, ListDir(root_ + "/layers"));
  std::erase_if(names, [](const std::string& name) { return !ValidKey(name); });
  return names;
}

Status LayerStore::SaveMount(const MountRecord& mount) {
  Json json = {{"version", kMountVersion},
               {"id", mount.id},
               {"parent_id", mount.parent_id},
               {"above_foreign", mount.above_foreign},
               {"layer", mount.layer_key},
               {"image_ref", mount.image_ref},
               {"manifest_digest", mount.manifest_digest},
               {"no_fill", mount.no_fill},
               {"view_slot", mount.view_slot}};
  return WriteState(MountFile(mount.id), json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Result<MountRecord> LayerStore::LoadMount(const std::string& id) const {
  return LoadRecord<MountRecord>(MountFile(id), kMountVersion, [&](const Json& json, MountRecord& record) -> Status {
    record.id = json.at("id").get<std::string>();
    record.parent_id = json.at("parent_id").get<std::string>();
    record.above_foreign = json.at("above_foreign").get<bool>();
    record.layer_key = json.at("layer").get<std::string>();
    record.manifest_digest = json.at("manifest_digest").get<std::string>();
    record.no_fill = json.value("no_fill", false);
    record.image_ref = json.value("image_ref", "");
    HR_ASSIGN_OR_RETURN(record.view_slot, Slot(json, "view_slot"));
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
