#include "fusefs/daemon/layer_manager.h"

#include <chrono>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "fusefs/base/log.h"

namespace headrace::daemon {
namespace {

// Above every deadline of the registry client: a waiter behind another's fetch does not hang if that one never ends.
constexpr std::chrono::minutes kAttachWait{10};
constexpr size_t kImageRefMax = 4096;
constexpr std::string_view kTocPrefix = "v1,";

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// What the layers of one image have in common.
std::string ImageKey(const MountRecord& record, const stream::LayerSource& source) {
  return record.manifest_digest.empty() ? source.blob.image_ref : record.manifest_digest;
}

Result<LayerRecord> ParseLayer(const MountArgs& args) {
  if (!args.toc.starts_with(kTocPrefix)) {
    return UnimplementedError("layer " + args.blob_digest + " has no table of contents that Headrace reads (label " +
                              std::string(format::kTocLabel) + ")");
  }
  LayerRecord record;
  HR_ASSIGN_OR_RETURN(record.blob, Digest::Parse(args.blob_digest));
  auto location = format::TocLocation::Parse(args.toc);
  if (!location.ok()) return location.status().Annotate("layer " + args.blob_digest + ": label " + std::string(format::kTocLabel));
  record.toc = *location;
  if (args.image_ref.empty() || args.image_ref.size() > kImageRefMax) {
    return InvalidArgumentError("layer " + args.blob_digest + ": no image reference to fetch it from");
  }
  record.image_ref = args.image_ref;
  return record;
}

}  // namespace

LayerManager::LayerManager(LayerManagerOptions options, TocFetcher fetch, vfs::Vfs& vfs, stream::Streamer& streamer,
                           Metrics& metrics)
    : options_(std::move(options)),
      fetch_(std::move(fetch)),
      vfs_(vfs),
      streamer_(streamer),
      metrics_(metrics),
      store_(options_.root) {}

LayerManager::~LayerManager() = default;

Result<Mounted> LayerManager::Answer(const std::string& id) const {
  HR_ASSIGN_OR_RETURN(vfs::MountInfo info, vfs_.GetMount(id));
  return Mounted{options_.mountpoint + "/" + id, info.files, info.size};
}

Result<bool> LayerManager::AlreadyShown(const MountArgs& args, const std::string& layer_key) const {
  MutexLock lock(mu_);
  auto it = mounts_.find(args.id);
  if (it == mounts_.end()) {
    if (!args.parent_id.empty() && !mounts_.contains(args.parent_id)) {
      return NotFoundError("mount " + args.id + " of layer " + args.blob_digest + ": its parent " + args.parent_id +
                           " is not mounted");
    }
    return false;
  }
  const MountRecord& record = it->second.record;
  if (record.layer_key == layer_key && record.parent_id == args.parent_id && record.above_foreign == args.above_foreign) {
    return true;
  }
  return AlreadyExistsError("mount " + args.id + " exists with another content (layer " +
                            it->second.layer->record.blob.ToString() + ", asked " + args.blob_digest + ")");
}

Result<Mounted> LayerManager::Mount(const MountArgs& args) {
  if (!ValidMountId(args.id)) return InvalidArgumentError("mount id \"" + args.id + "\" is not a decimal number");
  if (!args.parent_id.empty() && !ValidMountId(args.parent_id)) {
    return InvalidArgumentError("parent id \"" + args.parent_id + "\" is not a decimal number");
  }
  HR_ASSIGN_OR_RETURN(LayerRecord wanted, ParseLayer(args));
  HR_ASSIGN_OR_RETURN(bool shown, AlreadyShown(args, wanted.Key()));
  if (shown) return Answer(args.id);

  HR_ASSIGN_OR_RETURN(std::shared_ptr<Layer> layer, Attach(args, wanted));
  auto commit = [&]() -> Result<Mounted> {
    MutexLock control(control_mu_);
    // Another Mount or Unmount may have come between.
    HR_ASSIGN_OR_RETURN(bool shown_meanwhile, AlreadyShown(args, wanted.Key()));
    if (shown_meanwhile) return Answer(args.id);
    MountRecord record{args.id, args.parent_id, args.above_foreign, wanted.Key(), args.manifest_digest, 0};
    HR_ASSIGN_OR_RETURN(record.view_slot, store_.TakeSlot());
    HR_RETURN_IF_ERROR(store_.SaveMount(record));
    if (Status status = Show(record, layer); !status.ok()) {
      Status undone = store_.DeleteMount(record.id);
      if (!undone.ok()) log::Error("a mount that failed stays on disk id={} error=\"{}\"", record.id, undone.ToString());
      return status.Annotate("mount " + args.id + " of layer " + args.blob_digest);
    }
    return Answer(args.id);
  };
  auto result = commit();
  Unpin(layer);
  if (result.ok()) log::Info("mounted id={} parent={} layer={} files={}", args.id, args.parent_id, args.blob_digest, result->files);
  return result;
}

Result<std::shared_ptr<LayerManager::Layer>> LayerManager::Attach(const MountArgs& args, const LayerRecord& wanted) {
  const std::string key = wanted.Key();
  std::shared_ptr<Layer> layer;
  {
    MutexLock lock(mu_);
    auto it = layers_.find(key);
    if (it != layers_.end()) {
      layer = it->second;
      ++layer->pins;
      bool done = attached_.WaitFor(mu_, kAttachWait, [&] { return layer->done; });
      if (done && layer->failure.ok()) return layer;
      --layer->pins;
      if (!done) return DeadlineExceededError("layer " + args.blob_digest + ": another mount still fetches its table of contents");
      return layer->failure;
    }
    layer = std::make_shared<Layer>();
    layer->pins = 1;
    layers_.emplace(key, layer);
  }
  auto fetched = FetchLayer(wanted);
  MutexLock lock(mu_);
  layer->done = true;
  attached_.NotifyAll();
  if (!fetched.ok()) {
    layer->failure = fetched.status().Annotate("layer " + args.blob_digest);
    layers_.erase(key);  // the next Mount tries anew
    return layer->failure;
  }
  layer->record = (*fetched)->record;
  layer->source = (*fetched)->source;
  return layer;
}

Result<std::shared_ptr<LayerManager::Layer>> LayerManager::FetchLayer(LayerRecord record) {
  const registry::BlobRef blob{record.image_ref, record.blob};
  auto fetched = fetch_(blob, record.toc.offset, record.toc.compressed_size);
  if (!fetched.ok()) {
    Status status = fetched.status().Annotate("table of contents");
    // To our callers "not found" is the parent and nothing else.
    return status.code() == StatusCode::kNotFound ? UnavailableError(status.message()) : status;
  }
  const std::string toc = std::move(*fetched);
  auto index = format::ReadToc(Bytes(toc), record.toc);
  if (!index.ok()) return index.status().Annotate("table of contents from " + record.image_ref);
  {
    // Not between somebody's decision to forget this layer and the removal of its directory.
    MutexLock control(control_mu_);
    HR_ASSIGN_OR_RETURN(record.slot, store_.TakeSlot());
    HR_RETURN_IF_ERROR(store_.SaveLayer(record, toc));
  }
  auto layer = std::make_shared<Layer>();
  layer->source = std::make_shared<const stream::LayerSource>(
      stream::LayerSource{blob, std::make_shared<const format::LayerIndex>(std::move(*index))});
  layer->record = std::move(record);
  return layer;
}

void LayerManager::Unpin(const std::shared_ptr<Layer>& layer) {
  MutexLock control(control_mu_);
  {
    MutexLock lock(mu_);
    --layer->pins;
  }
  DropUnusedLayers();
}

// REQUIRES: control_mu_ is held, or nobody else is there yet.
Status LayerManager::Show(const MountRecord& record, const std::shared_ptr<Layer>& layer) {
  vfs::MountSpec spec{record.id, record.parent_id, record.above_foreign, layer->record.slot, record.view_slot, layer->source};
  auto info = vfs_.AddMount(spec);
  if (!info.ok()) return info.status();
  streamer_.AddToImage(ImageKey(record, *layer->source), layer->source, /*fill=*/true);
  {
    MutexLock lock(mu_);
    ++layer->mounts;
    mounts_.emplace(record.id, Shown{record, layer});
  }
  UpdateGauges();
  return OkStatus();
}

// REQUIRES: control_mu_ is held. Forgets layers that no mount shows and no Mount is about to show.
void LayerManager::DropUnusedLayers() {
  std::vector<std::string> unused;
  {
    MutexLock lock(mu_);
    for (auto it = layers_.begin(); it != layers_.end();) {
      bool used = !it->second->done || it->second->pins > 0 || it->second->mounts > 0;
      if (!used) unused.push_back(it->first);
      it = used ? std::next(it) : layers_.erase(it);
    }
  }
  for (const std::string& key : unused) {
    // What stays is removed at the next start.
    if (Status status = store_.DeleteLayer(key); !status.ok()) log::Warn("a layer's state stays on disk error=\"{}\"", status.ToString());
  }
  UpdateGauges();
}

Result<std::string> LayerManager::Check(const std::string& id) const {
  HR_ASSIGN_OR_RETURN(Mounted mounted, Answer(id));
  return mounted.path;
}

Status LayerManager::Unmount(const std::string& id) {
  if (!ValidMountId(id)) return InvalidArgumentError("mount id \"" + id + "\" is not a decimal number");
  {
    MutexLock control(control_mu_);
    std::shared_ptr<Layer> layer;
    bool shown = false;
    {
      MutexLock lock(mu_);
      auto it = mounts_.find(id);
      shown = it != mounts_.end();
      if (shown) layer = it->second.layer;
      for (const auto& [other, other_shown] : mounts_) {
        if (other_shown.record.parent_id == id) return FailedPreconditionError("mount " + other + " stands on mount " + id);
      }
    }
    HR_RETURN_IF_ERROR(store_.DeleteMount(id));  // also what could not be shown at start
    if (!shown) return OkStatus();
    if (Status status = vfs_.RemoveMount(id); !status.ok() && status.code() != StatusCode::kNotFound) return status;
    std::string image;
    {
      MutexLock lock(mu_);
      image = ImageKey(mounts_.at(id).record, *layer->source);
      mounts_.erase(id);
      --layer->mounts;
    }
    streamer_.RemoveFromImage(image, layer->source);
    DropUnusedLayers();
  }
  if (options_.invalidate) options_.invalidate(id);
  log::Info("unmounted id={}", id);
  return OkStatus();
}

std::vector<LayerState> LayerManager::Layers() const {
  std::map<std::string, std::pair<std::shared_ptr<Layer>, std::vector<std::string>>> by_key;
  {
    MutexLock lock(mu_);
    for (const auto& [id, shown] : mounts_) {
      auto& [layer, ids] = by_key[shown.record.layer_key];
      layer = shown.layer;
      ids.push_back(id);
    }
  }
  std::vector<LayerState> states;
  for (auto& [key, value] : by_key) {
    auto& [layer, ids] = value;
    LayerState state;
    state.blob_digest = layer->record.blob.ToString();
    state.image_ref = layer->record.image_ref;
    for (const format::Entry& entry : layer->source->index->entries) {
      if (entry.type != format::EntryType::kRegular) continue;
      ++state.files;
      state.size += entry.size;
    }
    state.resident = streamer_.ResidentBytes(*layer->source);
    state.ids = std::move(ids);
    states.push_back(std::move(state));
  }
  return states;
}

void LayerManager::UpdateGauges() {
  MutexLock lock(mu_);
  metrics_.layers.store(static_cast<int64_t>(layers_.size()), std::memory_order_relaxed);
  metrics_.mounts.store(static_cast<int64_t>(mounts_.size()), std::memory_order_relaxed);
}

}  // namespace headrace::daemon
