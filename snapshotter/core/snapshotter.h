// Snapshotter: the state machine behind containerd's Snapshots API.
//
// Ordinary layers are unpacked by containerd into directories of ours (directories.h) and combined
// with overlayfs. Layers that headrace-fused can serve are never unpacked: Prepare has it show them
// and answers AlreadyExists, which makes containerd skip the download. Metadata is in
// MetaStore; a directory or a mount exists before the row that refers to it and goes after it, so
// that a crash at any point leaves at most leftovers, which Cleanup takes away.
//
// Threads: all methods may be called by any thread at once. No lock is held while anything waits
// for the disk (but the store's own writer), headrace-fused or a registry. Only Prepare of a lazy
// layer waits for a registry: Options::mount_deadline for a table of contents, as long as something
// moves for a layer that must be read whole; methods that look at lazy ancestors
// ask headrace-fused, which answers at once or counts as down (Unavailable). Commit, Update and
// Remove touch nothing but the store: containerd calls them inside its own write transaction or
// under its lock. Errors: the classes of containerd's own snapshotters (store/meta_store.h),
// messages name the snapshot.
#ifndef HEADRACE_SNAPSHOTTER_CORE_SNAPSHOTTER_H_
#define HEADRACE_SNAPSHOTTER_CORE_SNAPSHOTTER_H_

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/core/directories.h"
#include "snapshotter/core/in_flight.h"
#include "snapshotter/core/mounts.h"
#include "snapshotter/core/usage_meter.h"
#include "snapshotter/layers/layer_mounter.h"
#include "snapshotter/store/meta_store.h"

namespace headrace::snapshotter {

// Of one call: when its answer is of no use any more, and whether the caller went away.
struct CallContext {
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  std::function<bool()> cancelled;  // unset: never
};

class Snapshotter {
 public:
  struct Options {
    std::string root;  // <root>/metadata.db and <root>/snapshots; made if missing
    std::chrono::nanoseconds mount_deadline = std::chrono::seconds(30);
    std::chrono::milliseconds usage_max_age{5000};
    std::chrono::milliseconds usage_wait{500};
    std::function<int64_t()> now_ns;  // tests
    std::function<void(std::string_view point)>
        sync_point;  // tests: called between the steps of an operation
  };
  // `layers` outlives the snapshotter.
  static Result<std::unique_ptr<Snapshotter>> Create(Options options, LayerMounter* layers);
  ~Snapshotter();

  Result<std::vector<Mount>> Prepare(const CallContext& call, const std::string& key,
                                     const std::string& parent, const Labels& labels);
  Result<std::vector<Mount>> View(const CallContext& call, const std::string& key,
                                  const std::string& parent, const Labels& labels);
  Result<std::vector<Mount>> Mounts(const std::string& key);
  Status Commit(const std::string& name, const std::string& key, const Labels& labels,
                const std::string& parent);
  Status Remove(const std::string& name);
  Result<Info> Stat(const std::string& name);
  Result<Info> Update(const std::string& name, const Labels& labels,
                      const std::vector<std::string>& mask);
  // As of one moment; the caller may take its time with the result.
  Result<std::vector<Info>> List(const std::vector<std::string>& filters);
  // Disk that the snapshot itself takes. Lazy snapshots take none of their own: what is cached of
  // them belongs to every image that shares it and is reported by `headrace status`.
  Result<Usage> GetUsage(const std::string& name);
  // Takes away what removed snapshots and failed or interrupted operations left. Goes on after a
  // failure and reports the first.
  Status Cleanup();

  // Has headrace-fused show every lazy snapshot that it should (it usually does already: it keeps
  // state of its own). At start.
  Status RestoreLazy();
  // Makes RestoreLazy and Cleanup return after the item that they are at.
  void Stop() { stopping_.store(true); }

 private:
  Snapshotter(Options options, LayerMounter* layers, Directories directories,
              std::unique_ptr<MetaStore> store);

  Result<std::vector<Mount>> CreateOrdinary(Kind kind, const std::string& key,
                                            const std::string& parent, const Labels& labels);
  Result<std::vector<Record>> ParentChain(const std::string& key, const std::string& parent);
  Result<std::vector<std::string>> Lowers(std::span<const Record> chain);
  Result<std::vector<Mount>> MountsOf(const Record& self, std::span<const Record> ancestors,
                                      std::vector<std::string> lowers) const;
  void SyncPoint(std::string_view point) const {
    if (options_.sync_point) options_.sync_point(point);
  }

  // lazy_prepare.cc
  enum class LazyOutcome { kServed, kFallBack };
  struct LazyRequest;
  Result<LazyOutcome> PrepareLazy(const CallContext& call, const std::string& parent,
                                  std::span<const Record> chain, const Labels& labels);
  Result<uint64_t> AllotUnknownId(const std::string& layer);
  Result<LazyOutcome> MountNewLayer(const CallContext& call, const LazyRequest& request);
  // Mount, as often as it takes while the answer is that the layer is being read.
  Result<std::string> MountWhole(const CallContext& call, const MountSpec& spec);
  // Waits until no other call makes the same target; not held: the caller went away first.
  InFlight<std::string>::Guard TakeTargetTurn(const CallContext& call, const std::string& target);
  // The directory of chain[0], a lazy snapshot; has headrace-fused show it again if it does not.
  Result<std::string> ServedPath(std::span<const Record> chain);

  Options options_;
  LayerMounter* layers_;
  Directories directories_;
  std::unique_ptr<MetaStore> store_;
  bool overlay_has_index_ = false;
  InFlight<uint64_t> ids_in_flight_;         // ids that have no row yet but are wanted
  InFlight<std::string> targets_in_flight_;  // ref and parent of lazy snapshots that are being made
  std::atomic<bool> said_no_image_ref_{false};
  std::atomic<bool> stopping_{false};
  UsageMeter meter_;  // last: its thread uses the store
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_CORE_SNAPSHOTTER_H_
