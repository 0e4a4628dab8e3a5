// Snapshotter: everything about lazy snapshots.
#include <algorithm>
#include <utility>

#include "fusefs/base/log.h"
#include "snapshotter/core/labels.h"
#include "snapshotter/core/snapshotter.h"

namespace headrace::snapshotter {
namespace {

using std::chrono::steady_clock;

std::string LabelOr(const Labels& labels, const char* key) {
  auto found = labels.find(key);
  return found == labels.end() ? "" : found->second;
}

bool IsCancelled(const CallContext& call) {
  return steady_clock::now() >= call.deadline || (call.cancelled && call.cancelled());
}

bool NoFill(const Labels& labels) { return LabelOr(labels, kLabelFill) == kFillOff; }

// Backend names that containerd makes are <namespace>/<decimal sequence>/<key>: "lazy" is no
// decimal number.
std::string LazyName(uint64_t id, const std::string& ref) {
  return "headrace/lazy/" + std::to_string(id) + "/" + ref;
}

}  // namespace

struct Snapshotter::LazyRequest {
  std::string ref;
  std::string parent;
  std::optional<uint64_t> parent_id;  // lazy parent
  LazyLayer layer;
  Labels labels;
};

Result<Snapshotter::LazyOutcome> Snapshotter::PrepareLazy(const CallContext& call,
                                                          const std::string& parent,
                                                          std::span<const Record> chain,
                                                          const Labels& labels) {
  LazyRequest request;
  request.ref = LabelOr(labels, kLabelRef);
  request.parent = parent;
  request.labels = labels;
  request.layer.image_ref = LabelOr(labels, kLabelImageRef);
  request.layer.manifest_digest = LabelOr(labels, kLabelManifestDigest);
  request.layer.blob_digest = LabelOr(labels, kLabelLayerDigest);
  request.layer.toc = LabelOr(labels, kLabelToc);
  if (request.layer.image_ref.empty() || request.layer.blob_digest.empty()) {
    if (!request.layer.toc.empty() && !said_no_image_ref_.exchange(true)) {
      log::Warn(
          "layers in Headrace's format are downloaded whole, because containerd does not say which "
          "image they belong to: "
          "set disable_snapshot_annotations = false for its CRI plugin (config/containerd/ has the "
          "files) ref={}",
          request.ref);
    }
    return LazyOutcome::kFallBack;
  }
  if (!chain.empty() && chain.front().lazy) {
    request.parent_id = chain.front().id;
    request.layer.above_foreign = chain.front().lazy->above_foreign;
  } else {
    request.layer.above_foreign = !chain.empty();
  }

  // One call makes the target, the others wait for it and then find it.
  auto turn = TakeTargetTurn(call, request.ref + '\0' + parent);
  if (!turn.held())
    return UnavailableError("layer " + request.layer.blob_digest +
                            ": another call has been mounting it for long; try again");
  HR_ASSIGN_OR_RETURN(std::optional<Record> existing, store_->FindLazy(request.ref, parent));
  if (existing) return LazyOutcome::kServed;
  if (request.parent_id) {
    Result<std::string> below = ServedPath(chain);
    if (!below.ok()) return below.status();
  }
  return MountNewLayer(call, request);
}

// headrace-fused keeps state of its own: if ours was lost (another root, a wiped disk) it may still
// show what had these ids then.
Result<uint64_t> Snapshotter::AllotUnknownId(const std::string& layer) {
  constexpr int kTriesMax = 10'000;  // more snapshots than a node has
  for (int i = 0; i < kTriesMax; ++i) {
    HR_ASSIGN_OR_RETURN(uint64_t id, store_->AllotId());
    Result<std::string> known = layers_->Check(id);
    if (!known.ok() && known.status().code() == StatusCode::kNotFound) return id;
    if (!known.ok()) return UnavailableError(layer + ": " + known.status().message());
    log::Warn(
        "id skipped, headrace-fused shows something under it that is none of ours snapshot={} "
        "path={}",
        id, *known);
  }
  return FailedPreconditionError(
      layer +
      ": headrace-fused shows the snapshots of another root; stop it and remove its [fused] root");
}

Result<Snapshotter::LazyOutcome> Snapshotter::MountNewLayer(const CallContext& call,
                                                            const LazyRequest& request) {
  std::string layer = "image " + request.layer.image_ref + ", layer " + request.layer.blob_digest;
  // If headrace-fused is down this is no reason to download a model whole: the caller tries again.
  HR_ASSIGN_OR_RETURN(uint64_t id, AllotUnknownId(layer));
  auto wanted = ids_in_flight_.TakeTurn(id, steady_clock::now());
  // From here until the row is there a crash or a failure leaves a mount behind: written down
  // first, for Cleanup.
  HR_RETURN_IF_ERROR(store_->AddLeftover({id, /*lazy=*/true}));
  SyncPoint("lazy:leftover");
  Result<std::string> path =
      MountWhole(call, {id, request.parent_id, request.layer, NoFill(request.labels)});
  SyncPoint("lazy:mounted");
  if (IsCancelled(call)) return CancelledError(layer + ": the caller went away");
  if (!path.ok() && layers_->Check(id).status().code() == StatusCode::kUnavailable) {
    return UnavailableError(layer + ": " + path.status().message());  // it died under the call
  }
  if (!path.ok()) {
    if (path.status().code() == StatusCode::kUnimplemented) {
      log::Debug("layer is left to containerd image={} layer={} reason=\"{}\"",
                 request.layer.image_ref, request.layer.blob_digest, path.status().ToString());
    } else if (path.status().code() == StatusCode::kDataLoss) {
      log::Error(
          "layer is not what its manifest says and is not served lazily, containerd downloads and "
          "checks it image={} layer={} error=\"{}\"",
          request.layer.image_ref, request.layer.blob_digest, path.status().ToString());
    } else {
      log::Warn(
          "layer is not served lazily, containerd downloads it image={} layer={} error=\"{}\"",
          request.layer.image_ref, request.layer.blob_digest, path.status().ToString());
    }
    return LazyOutcome::kFallBack;
  }
  Result<Record> record = store_->Create({id, Kind::kCommitted, LazyName(id, request.ref),
                                          request.parent, request.labels, request.layer});
  if (!record.ok()) return record.status().Annotate(layer);
  SyncPoint("lazy:row");
  log::Info("layer served lazily snapshot={} image={} layer={} ref={} path={}", id,
            request.layer.image_ref, request.layer.blob_digest, request.ref, *path);
  return LazyOutcome::kServed;
}

// A layer that must be read whole takes as long as the wire needs, which containerd would wait for
// too if it downloaded it. What does not move is given up by headrace-fused; the limit here is for
// one that says the same for ever.
Result<std::string> Snapshotter::MountWhole(const CallContext& call, const MountSpec& spec) {
  constexpr std::chrono::minutes kStandstillMax{15};
  uint64_t done = 0;
  auto moved = steady_clock::now();
  for (;;) {
    auto deadline = std::min(call.deadline, steady_clock::now() + options_.mount_deadline);
    HR_ASSIGN_OR_RETURN(MountAnswer answer, layers_->Mount(spec, deadline));
    if (!answer.pending) return std::move(answer.path);
    if (IsCancelled(call)) return CancelledError("the caller went away");
    auto now = steady_clock::now();
    if (answer.done_bytes != done) moved = now;
    done = answer.done_bytes;
    if (now - moved > kStandstillMax) {
      return DeadlineExceededError("nothing came of the layer for 15 minutes, " +
                                   std::to_string(done) + " of " +
                                   std::to_string(answer.total_bytes) + " bytes are here");
    }
  }
}

InFlight<std::string>::Guard Snapshotter::TakeTargetTurn(const CallContext& call,
                                                         const std::string& target) {
  constexpr std::chrono::milliseconds kLook{500};  // whether the caller is still there
  for (;;) {
    auto turn = targets_in_flight_.TakeTurn(target,
                                            std::min(call.deadline, steady_clock::now() + kLook));
    if (turn.held() || IsCancelled(call) || stopping_.load()) return turn;
  }
}

Result<std::string> Snapshotter::ServedPath(std::span<const Record> chain) {
  Result<std::string> path = layers_->Check(chain.front().id);
  if (path.ok()) return path;
  if (path.status().code() == StatusCode::kNotFound) {
    size_t count = 1;
    while (count < chain.size() && chain[count].lazy) ++count;
    auto deadline = steady_clock::now() + options_.mount_deadline;
    for (size_t i = count; i-- > 0;) {
      std::optional<uint64_t> parent_id;
      if (i + 1 < count) parent_id = chain[i + 1].id;
      Result<MountAnswer> answer = layers_->Mount(
          {chain[i].id, parent_id, *chain[i].lazy, NoFill(chain[i].info.labels)}, deadline);
      path = answer.ok() ? Result<std::string>(answer->path) : answer.status();
      if (answer.ok() && answer->pending) {
        path = UnavailableError("the layer is being read again, " +
                                std::to_string(answer->done_bytes) + " of " +
                                std::to_string(answer->total_bytes) + " bytes are here");
      }
      if (!path.ok()) break;
    }
  }
  if (path.ok()) return path;
  return UnavailableError("lazy snapshot " + chain.front().info.name + " (layer " +
                          chain.front().lazy->blob_digest +
                          ") is not served: " + path.status().ToString());
}

Status Snapshotter::RestoreLazy() {
  HR_ASSIGN_OR_RETURN(std::vector<Record> lazy, store_->LazySnapshots());
  Status first_failure;
  size_t restored = 0;
  for (const Record& record : lazy) {
    if (stopping_.load()) return CancelledError("the snapshotter stops");
    Result<std::vector<Record>> chain = store_->Chain(record.info.name);
    if (!chain.ok()) continue;  // removed meanwhile
    Result<std::string> path = ServedPath(*chain);
    if (path.ok()) {
      ++restored;
      continue;
    }
    if (first_failure.ok()) first_failure = path.status();
    // Not running yet: it will show what it showed before by itself, and Mounts sees to the rest.
    if (layers_->Check(record.id).status().code() == StatusCode::kUnavailable) break;
  }
  log::Info("lazy snapshots served count={} of={}", restored, lazy.size());
  return first_failure;
}

}  // namespace headrace::snapshotter
