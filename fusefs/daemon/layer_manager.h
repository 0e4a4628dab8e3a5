// LayerManager: the control side of headrace-fused without gRPC: attaches layers (fetch and verify the table of contents), shows and removes
// mounts, remembers both on disk, and rebuilds all of it at start.
//
// Threads: every method from any thread. Mount blocks on the registry (the TOC) up to the client's deadline; everything blocks on the local disk.
// Two Mounts of one layer fetch its TOC once. `control_mu_` serialises what changes mounts; it is held across local disk writes and the build of
// a tree, never across the network; no FUSE thread takes it.
// Ownership: everything given to the constructor outlives the manager.
// Order on disk: a mount's file is written before it is shown and removed before it goes; a layer's before its first mount's, after its last's.
#ifndef HEADRACE_FUSEFS_DAEMON_LAYER_MANAGER_H_
#define HEADRACE_FUSEFS_DAEMON_LAYER_MANAGER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "fusefs/base/metrics.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/daemon/layer_store.h"
#include "fusefs/stream/streamer.h"
#include "fusefs/vfs/vfs.h"

namespace headrace::daemon {

// As control.proto's MountRequest.
struct MountArgs {
  std::string id;
  std::string parent_id;
  bool above_foreign = false;
  std::string image_ref;
  std::string manifest_digest;
  std::string blob_digest;
  std::string toc;
};

struct Mounted {
  std::string path;
  uint64_t files = 0;
  uint64_t size = 0;
};

struct LayerState {
  std::string blob_digest;
  std::string image_ref;
  uint64_t size = 0;
  uint64_t resident = 0;
  uint64_t files = 0;
  std::vector<std::string> ids;
};

// Gets the bytes of a layer's TOC, unverified: registry::Client::GetBlobRange, or a fake.
using TocFetcher = std::function<Result<std::string>(const registry::BlobRef& blob, uint64_t offset, uint64_t size)>;

struct LayerManagerOptions {
  std::string root;
  std::string mountpoint;
  // After a mount went: the kernel must forget its name. Called without a lock held.
  std::function<void(const std::string& id)> invalidate;
};

class LayerManager {
 public:
  LayerManager(LayerManagerOptions options, TocFetcher fetch, vfs::Vfs& vfs, stream::Streamer& streamer, Metrics& metrics);
  ~LayerManager();

  // Reads the root and shows every mount in it. What is broken is logged and left out, with what stands on it. Call once, first.
  Status Restore();

  // Errors as in control.proto: Unimplemented, InvalidArgument, NotFound (parent), AlreadyExists, DataLoss, registry or disk trouble.
  Result<Mounted> Mount(const MountArgs& args);
  Result<std::string> Check(const std::string& id) const;
  Status Unmount(const std::string& id);
  std::vector<LayerState> Layers() const;

 private:
  struct Layer {
    LayerRecord record;
    std::shared_ptr<const stream::LayerSource> source;  // null until `done`
    bool done = false;                                  // the TOC is here, or `failure` says why not
    Status failure;
    uint64_t pins = 0;    // Mounts under way
    uint64_t mounts = 0;  // that show it
  };
  struct Shown {
    MountRecord record;
    std::shared_ptr<Layer> layer;
  };

  Result<Mounted> Answer(const std::string& id) const;
  // The answer for an id that is shown already, or nothing.
  Result<bool> AlreadyShown(const MountArgs& args, const std::string& layer_key) const;
  // The attached layer, pinned for the caller; fetches the TOC if nobody did.
  Result<std::shared_ptr<Layer>> Attach(const MountArgs& args, const LayerRecord& wanted);
  Result<std::shared_ptr<Layer>> FetchLayer(LayerRecord record);
  void Unpin(const std::shared_ptr<Layer>& layer);
  Status Show(const MountRecord& record, const std::shared_ptr<Layer>& layer);
  Result<std::shared_ptr<Layer>> RestoreLayer(const std::string& key);
  void RestoreMounts(std::map<std::string, MountRecord> records);
  Status DropOrphanLayers(const std::set<std::string>& wanted);
  void DropUnusedLayers();
  void UpdateGauges();

  const LayerManagerOptions options_;
  const TocFetcher fetch_;
  vfs::Vfs& vfs_;
  stream::Streamer& streamer_;
  Metrics& metrics_;
  LayerStore store_;

  Mutex control_mu_;  // before mu_
  mutable Mutex mu_;  // the maps; nothing slow under it
  CondVar attached_;
  std::map<std::string, std::shared_ptr<Layer>> layers_ HR_GUARDED_BY(mu_);  // by key
  std::map<std::string, Shown> mounts_ HR_GUARDED_BY(mu_);                   // by id
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_LAYER_MANAGER_H_
