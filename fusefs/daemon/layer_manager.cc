#include "fusefs/daemon/layer_manager.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "fusefs/base/log.h"

namespace headrace::daemon {
namespace {

// Above every deadline of the registry client, and long enough for its queue: a Mount does not hang if an attach never ends.
constexpr std::chrono::minutes kAttachWait{10};
// The caller of a layer that is being learned asks again at once; a layer that nobody asks for is given up after this.
constexpr std::chrono::minutes kKeepPending{1};
constexpr size_t kImageRefMax = 4096;
constexpr std::string_view kTocPrefix = "v1,";
constexpr unsigned kAttachThreads = 8;
constexpr unsigned kAheadThreads = 4;
constexpr unsigned kLearnThreads = 3;  // each has helpers of its own; more only share the wire

// What the layers of one image have in common.
std::string ImageKey(const MountRecord& record, const stream::LayerSource& source) {
  return record.manifest_digest.empty() ? source.blob.image_ref : record.manifest_digest;
}

const std::string& ImageRef(const MountRecord& record, const stream::LayerSource& source) {
  return record.image_ref.empty() ? source.blob.image_ref : record.image_ref;
}

Result<LayerAsk> ParseAsk(const MountArgs& args) {
  LayerAsk ask;
  HR_ASSIGN_OR_RETURN(ask.blob, Digest::Parse(args.blob_digest));
  if (!args.toc.empty() && !args.toc.starts_with(kTocPrefix)) {
    return UnimplementedError(ask.Name() + " has a table of contents of another version (label " + std::string(format::kTocLabel) + ")");
  }
  if (!args.toc.empty()) {
    auto location = format::TocLocation::Parse(args.toc);
    if (!location.ok()) return location.status().Annotate(ask.Name() + ": label " + std::string(format::kTocLabel));
    ask.label = location->ToString();
  } else if (args.manifest_digest.empty()) {
    return UnimplementedError(ask.Name() + " has no table of contents in its labels, and they do not name the image's manifest");
  }
  if (args.image_ref.empty() || args.image_ref.size() > kImageRefMax) {
    return InvalidArgumentError(ask.Name() + ": no image reference to fetch it from");
  }
  ask.image_ref = args.image_ref;
  ask.manifest_digest = args.manifest_digest;
  return ask;
}

}  // namespace

LayerManager::LayerManager(LayerManagerOptions options, RegistryReader& reader, LayerLearner& learner, vfs::Vfs& vfs,
                           stream::Streamer& streamer, stream::BlobPlaces& places, Timer& timer, Metrics& metrics)
    : options_(std::move(options)),
      reader_(reader),
      learner_(learner),
      vfs_(vfs),
      streamer_(streamer),
      places_(places),
      timer_(timer),
      metrics_(metrics),
      store_(options_.root),
      catalog_(reader),
      learn_pool_("learn", kLearnThreads),
      ahead_pool_("attach-ahead", kAheadThreads),
      attach_pool_("attach", kAttachThreads) {}

LayerManager::~LayerManager() {
  stopping_.store(true);
  timed_->Close();
}

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
                            it->second.layer->ask.blob.ToString() + ", asked " + args.blob_digest + ")");
}

Result<Mounted> LayerManager::Mount(const MountArgs& args) {
  if (!ValidMountId(args.id)) return InvalidArgumentError("mount id \"" + args.id + "\" is not a decimal number");
  if (!args.parent_id.empty() && !ValidMountId(args.parent_id)) {
    return InvalidArgumentError("parent id \"" + args.parent_id + "\" is not a decimal number");
  }
  HR_ASSIGN_OR_RETURN(LayerAsk ask, ParseAsk(args));
  HR_ASSIGN_OR_RETURN(bool shown, AlreadyShown(args, ask.Key()));
  if (shown) return Answer(args.id);

  std::list<Mounting>::iterator mounting;
  {
    MutexLock lock(mu_);
    mounting = mounting_.insert(mounting_.end(), Mounting{args.id});
  }
  std::shared_ptr<Layer> layer = Begin(ask);
  Result<Mounted> result = Await(layer);
  if (result.ok() && !result->pending) result = ShowNew(args, layer, *mounting);
  {
    MutexLock lock(mu_);
    mounting_.erase(mounting);
  }
  Unpin(layer);
  if (result.ok() && !result->pending) {
    log::Info("mounted id={} parent={} layer={} format={} files={}", args.id, args.parent_id, args.blob_digest,
              TableKindName(layer->record.kind), result->files);
  }
  return result;
}

// Until the layer can be shown, or it is clear that this takes longer.
Result<Mounted> LayerManager::Await(const std::shared_ptr<Layer>& layer) {
  const TimePoint asked = std::chrono::steady_clock::now();
  MutexLock lock(mu_);
  // A layer whose whole blob must be read first is no reason to keep the caller's thread.
  attached_.WaitUntil(mu_, asked + options_.pending_after, [&] { return layer->done; });
  attached_.WaitUntil(mu_, asked + kAttachWait, [&] { return layer->done || layer->learning; });
  if (layer->done && layer->failure.ok()) return Mounted{};
  if (layer->done) return layer->failure;
  if (!layer->learning) return DeadlineExceededError(layer->ask.Name() + ": its table of contents is still being fetched");
  layer->keep_until = std::chrono::steady_clock::now() + kKeepPending;
  Mounted pending;
  pending.pending = true;
  pending.done_bytes = layer->progress.done_bytes.load();
  pending.total_bytes = layer->progress.total_bytes.load();
  return pending;
}

Result<Mounted> LayerManager::ShowNew(const MountArgs& args, const std::shared_ptr<Layer>& layer, const Mounting& mounting) {
  MutexLock control(control_mu_);
  {
    // The one who asked died and its successor cleaned up: nobody would ever take this mount away.
    MutexLock lock(mu_);
    if (mounting.taken_away) return CancelledError("mount " + args.id + " was taken away while its layer was being attached");
  }
  // Another Mount or Unmount may have come between.
  HR_ASSIGN_OR_RETURN(bool shown_meanwhile, AlreadyShown(args, layer->ask.Key()));
  if (shown_meanwhile) return Answer(args.id);
  MountRecord record{args.id, args.parent_id, args.above_foreign, layer->ask.Key(), args.manifest_digest, args.no_fill, 0, args.image_ref};
  HR_ASSIGN_OR_RETURN(record.view_slot, store_.TakeSlot());
  HR_RETURN_IF_ERROR(store_.SaveMount(record));
  if (Status status = Show(record, layer); !status.ok()) {
    Status undone = store_.DeleteMount(record.id);
    if (!undone.ok()) log::Error("a mount that failed stays on disk id={} error=\"{}\"", record.id, undone.ToString());
    return status.Annotate("mount " + args.id + " of " + layer->ask.Name());
  }
  return Answer(args.id);
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
  places_.Add(layer->ask.blob, ImageRef(record, *layer->source));
  streamer_.AddToImage(ImageKey(record, *layer->source), layer->source, /*fill=*/!record.no_fill);
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
  const TimePoint now = std::chrono::steady_clock::now();
  {
    MutexLock lock(mu_);
    for (auto it = layers_.begin(); it != layers_.end();) {
      const Layer& layer = *it->second;
      bool used = !layer.done || layer.pins > 0 || layer.mounts > 0 || now < layer.keep_until;
      if (!used) unused.push_back(it->first);
      it = used ? std::next(it) : layers_.erase(it);
    }
  }
  for (const std::string& key : unused) {
    if (IsKept(key)) continue;
    // What stays is removed at the next start.
    if (Status status = store_.DeleteLayer(key); !status.ok()) log::Warn("a layer's state stays on disk error=\"{}\"", status.ToString());
  }
  UpdateGauges();
}

void LayerManager::DropLater() {
  timer_.After(options_.keep_ahead + std::chrono::milliseconds(1), [this, timed = timed_] {
    stream::Gate::Pass pass(*timed);
    if (!pass) return;
    ahead_pool_.Post([this] {
      {
        MutexLock control(control_mu_);
        DropUnusedLayers();
      }
      MutexLock lock(mu_);
      const bool more = std::any_of(layers_.begin(), layers_.end(), [](const auto& item) { return item.second->pins == 0 && item.second->mounts == 0; });
      if (more && !stopping_.load()) DropLater();  // not attached yet, or not for so long
    });
  });
}

Result<std::string> LayerManager::Check(const std::string& id) const {
  HR_ASSIGN_OR_RETURN(Mounted mounted, Answer(id));
  return mounted.path;
}

Status LayerManager::Unmount(const std::string& id) {
  if (!ValidMountId(id)) return InvalidArgumentError("mount id \"" + id + "\" is not a decimal number");
  HR_ASSIGN_OR_RETURN(bool shown, TakeAway(id));
  // The kernel may know a name that we do not: of a predecessor that died between the two.
  if (options_.invalidate) options_.invalidate(id);
  if (shown) log::Info("unmounted id={}", id);
  return OkStatus();
}

Result<bool> LayerManager::TakeAway(const std::string& id) {
  MutexLock control(control_mu_);
  std::shared_ptr<Layer> layer;
  {
    MutexLock lock(mu_);
    for (Mounting& mounting : mounting_) mounting.taken_away = mounting.taken_away || mounting.id == id;
    if (auto it = mounts_.find(id); it != mounts_.end()) layer = it->second.layer;
    for (const auto& [other, other_shown] : mounts_) {
      if (other_shown.record.parent_id == id) return FailedPreconditionError("mount " + other + " stands on mount " + id);
    }
  }
  HR_RETURN_IF_ERROR(store_.DeleteMount(id));  // also what could not be shown at start
  if (!layer) return false;
  if (Status status = vfs_.RemoveMount(id); !status.ok() && status.code() != StatusCode::kNotFound) return status;
  std::string image, image_ref;
  {
    MutexLock lock(mu_);
    image = ImageKey(mounts_.at(id).record, *layer->source);
    image_ref = ImageRef(mounts_.at(id).record, *layer->source);
    mounts_.erase(id);
    --layer->mounts;
  }
  streamer_.RemoveFromImage(image, layer->source);
  places_.Remove(layer->ask.blob, image_ref);
  DropUnusedLayers();
  return true;
}

std::string_view LayerManager::FormatName(const Layer& layer) {
  switch (layer.deferred.load()) {
    case Deferred::kVerified: return TableKindName(TableKind::kLearned);
    case Deferred::kWrong: return "wrong";
    default: return TableKindName(layer.record.kind);
  }
}

void LayerManager::UpdateGauges() {
  MutexLock lock(mu_);
  metrics_.layers.store(static_cast<int64_t>(layers_.size()), std::memory_order_relaxed);
  metrics_.mounts.store(static_cast<int64_t>(mounts_.size()), std::memory_order_relaxed);
}

}  // namespace headrace::daemon
