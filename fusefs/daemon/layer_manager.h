// LayerManager: the control side of headrace-fused without gRPC: attaches layers (finds out how each can be read, fetches and verifies its table of contents,
// or learns it by reading the blob), shows and removes mounts, remembers both on disk, and rebuilds all of it at start.
//
// Threads: every method from any thread. Layers are attached on threads of the manager's own; Mount waits for them: for a table of contents up to the
// client's deadline, for a layer that is being learned `pending_after` (then it answers "pending", and the caller asks again). Everything blocks on the local disk.
// Two Mounts of one layer share its attaching. Once an image is known, its next layers are attached ahead of their Mounts.
// `control_mu_` serialises what changes mounts; it is held across local disk writes and the build of a tree, never across the network; no FUSE thread takes it.
// Ownership: everything given to the constructor outlives the manager. The destructor ends what is being learned and waits for registry calls under way.
// Order on disk: a mount's file is written before it is shown and removed before it goes; a layer's before its first mount's, after its last's.
#ifndef HEADRACE_FUSEFS_DAEMON_LAYER_MANAGER_H_
#define HEADRACE_FUSEFS_DAEMON_LAYER_MANAGER_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/daemon/image_catalog.h"
#include "fusefs/daemon/layer_learner.h"
#include "fusefs/daemon/layer_store.h"
#include "fusefs/daemon/registry_reader.h"
#include "fusefs/stream/blob_places.h"
#include "fusefs/stream/gate.h"
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
  bool no_fill = false;
};

struct Mounted {
  std::string path;
  uint64_t files = 0;
  uint64_t size = 0;
  bool pending = false;  // being learned: nothing of the above yet; ask again
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
};

struct LayerState {
  std::string blob_digest;
  std::string image_ref;
  std::string manifest_digest;
  std::shared_ptr<const stream::LayerSource> source;
  std::vector<stream::FileState> file_states;  // of all of its files that have bytes
  bool pinned = false;
  std::string_view format;
  uint64_t size = 0;
  uint64_t resident = 0;
  uint64_t files = 0;
  std::vector<std::string> ids;
};

// Layers that somebody named.
struct LayerSelection {
  std::string name;  // for people: what was asked for, or the image of a mount
  std::vector<std::string> keys;
  std::vector<std::shared_ptr<const stream::LayerSource>> layers;
  std::vector<Digest> contents;  // of all of them, some several times
  bool unverified = false;       // the contents of a layer are not known yet (layers.verify = deferred)
};

// How a pin (cache/pins.h) remembers the layers that it keeps, by their keys, and back.
std::vector<std::string> LayerNotes(const std::vector<std::string>& keys);
std::vector<std::string> LayersOfNotes(const std::vector<std::string>& notes);
// Of all pins of the cache.
std::set<std::string> KeptLayers(const cache::ContentStore& cache);

struct LayerManagerOptions {
  std::string root;
  std::string mountpoint;
  // Layers without a table of contents are read whole and learned; false: they are left to containerd (Unimplemented).
  bool learn = true;
  // Large plain tars among them are shown at once and verified while they are read.
  bool defer = false;
  std::chrono::milliseconds pending_after{2000};
  // Connections opened while the first table of an image with large layers is fetched: what the head of a large file is read through (stream/README.md).
  unsigned warm_connections = 16;
  // How long a layer is kept that was attached ahead of a Mount which did not come: containerd may be busy with a layer that it unpacks itself.
  std::chrono::milliseconds keep_ahead{600'000};
  // Keys of layers whose table of contents stays on the disk without a mount, so that they can be shown again without a registry.
  std::function<std::set<std::string>()> kept_layers;
  // Whether nothing of these is ever evicted.
  std::function<bool(const std::vector<Digest>& contents)> is_pinned;
  // After a mount went: the kernel must forget its name. Called without a lock held.
  std::function<void(const std::string& id)> invalidate;
  // A layer is wrong: the kernel must drop what it has of the files of this slot, nodes 0 .. nodes - 1.
  std::function<void(uint32_t slot, size_t nodes)> drop_pages;
};

class LayerManager {
 public:
  LayerManager(LayerManagerOptions options, RegistryReader& reader, LayerLearner& learner, vfs::Vfs& vfs, stream::Streamer& streamer,
               stream::BlobPlaces& places, Timer& timer, Metrics& metrics);
  ~LayerManager();

  // Reads the root and shows every mount in it. What is broken is logged and left out, with what stands on it. Call once, first.
  Status Restore();

  // Errors as in control.proto: Unimplemented, InvalidArgument, NotFound (parent), AlreadyExists, DataLoss, registry or disk trouble.
  Result<Mounted> Mount(const MountArgs& args);
  Result<std::string> Check(const std::string& id) const;
  // A Mount of the id that is under way is taken away too: it comes back with Cancelled.
  Status Unmount(const std::string& id);
  // What is shown; `what` as in Select, "" = all.
  Result<std::vector<LayerState>> Layers(const std::string& what = {}) const;

  // layer_cache.cc
  // The contents that mounts show, some of them several times. For the cache's eviction; may be slow once for each layer.
  std::vector<Digest> MountedContents() const;
  // Attaches every layer of the image and holds them until the manager ends, without showing any. Blocks on the registry.
  Result<LayerSelection> AttachImage(const std::string& image_ref, const std::string& manifest_digest);
  // The layers of an image (reference or manifest digest), of a mount and what it stands on, or one layer by its digest. NotFound: none is shown.
  Result<LayerSelection> Select(const std::string& what) const;

 private:
  using TimePoint = std::chrono::steady_clock::time_point;
  // How far a layer is that is verified while it is read.
  enum class Deferred : uint8_t { kNot, kUnknown, kVerified, kWrong };
  struct Layer {
    explicit Layer(LayerAsk a) : ask(std::move(a)) {}
    const LayerAsk ask;
    LayerRecord record;                                 // constant once `done`, as `source`
    std::shared_ptr<const stream::LayerSource> source;  // null until `done`
    bool started = false;                               // a thread attaches it
    bool done = false;                                  // attached, or `failure` says why not
    bool learning = false;                              // will be done when the whole blob was read
    Status failure;
    uint64_t pins = 0;    // Mounts under way
    uint64_t mounts = 0;  // that show it
    std::shared_ptr<const std::vector<Digest>> contents;  // null until somebody asked
    std::atomic<Deferred> deferred{Deferred::kNot};
    TimePoint keep_until;  // without pins and mounts it stays until then: attached ahead, or somebody will ask again
    LearnProgress progress;
  };
  // A Mount under way.
  struct Mounting {
    std::string id;
    bool taken_away = false;
  };
  struct Shown {
    MountRecord record;
    std::shared_ptr<Layer> layer;
  };
  // A table of contents and how it is read.
  struct Table {
    LayerRecord record;
    std::string bytes;
    format::LayerIndex index;
  };

  Result<Mounted> Answer(const std::string& id) const;
  // The answer for an id that is shown already, or nothing.
  Result<bool> AlreadyShown(const MountArgs& args, const std::string& layer_key) const;
  Result<Mounted> Await(const std::shared_ptr<Layer>& layer);
  Result<Mounted> ShowNew(const MountArgs& args, const std::shared_ptr<Layer>& layer, const Mounting& mounting);
  void Unpin(const std::shared_ptr<Layer>& layer);
  Status Show(const MountRecord& record, const std::shared_ptr<Layer>& layer);
  // The mount's part of Unmount; whether it was shown.
  Result<bool> TakeAway(const std::string& id);
  void DropUnusedLayers();
  // After `keep_ahead`.
  void DropLater();
  void UpdateGauges();
  static std::string_view FormatName(const Layer& layer);

  // layer_attach.cc
  // The layer, pinned for the caller; begins to attach it if nobody did.
  std::shared_ptr<Layer> Begin(const LayerAsk& ask);
  void BeginAhead(const std::string& image_ref, const std::string& manifest_digest, const Image& image, size_t from, bool streams);
  void Attach(const std::shared_ptr<Layer>& layer);
  Status AttachByLabel(const std::shared_ptr<Layer>& layer);
  // False: it goes on to be learned, and finishes then.
  Result<bool> AttachByManifest(const std::shared_ptr<Layer>& layer);
  Result<Table> FetchTableAt(LayerRecord record, uint64_t offset, uint64_t size);
  Result<Table> FetchTable(LayerRecord record, uint64_t blob_size);
  Result<Table> FetchEstargz(LayerRecord record);
  void Warm(const registry::BlobRef& blob, uint64_t blob_size);
  void Learn(const std::shared_ptr<Layer>& layer, const ImageLayer& described);
  Status LearnNow(const std::shared_ptr<Layer>& layer, const ImageLayer& described);
  std::optional<Table> KeptTable(const LayerAsk& ask, const Digest& diff_id) const;
  Status Keep(const std::shared_ptr<Layer>& layer, Table table);
  void Finish(const std::shared_ptr<Layer>& layer, const Status& failure);
  bool Abandoned(const Layer& layer);

  // layer_cache.cc
  std::shared_ptr<const std::vector<Digest>> ContentsOf(Layer& layer) const;
  std::map<std::string, std::pair<std::shared_ptr<Layer>, std::vector<std::string>>> LayersByKey(const std::string& what) const;

  // layer_defer.cc
  // The table of a large plain tar from its headers; nothing if it is none, or has too many headers: to be learned.
  Result<std::optional<Table>> Walk(const LayerAsk& ask, const ImageLayer& described);
  // How the layer's files are opened. Begins to read a walked layer.
  std::shared_ptr<const stream::LayerSource> MakeSource(const std::shared_ptr<Layer>& layer, const LayerRecord& record, format::LayerIndex index);
  void DeferredEnded(const std::shared_ptr<Layer>& layer, const Result<LearnedLayer>& learned);
  // What a walked layer on the disk has become since: a learned one, if that is known by now.
  Status Settle(LayerRecord* record, format::LayerIndex* index) const;

  // layer_restore.cc
  // The layer's table is on the disk (kept): no registry is asked.
  bool AttachFromDisk(const std::shared_ptr<Layer>& layer);
  bool IsKept(const std::string& key) const;
  Result<std::shared_ptr<Layer>> RestoreLayer(const std::string& key);
  void RestoreMounts(std::map<std::string, MountRecord> records);
  Status DropOrphanLayers(const std::set<std::string>& wanted);

  const LayerManagerOptions options_;
  RegistryReader& reader_;
  LayerLearner& learner_;
  vfs::Vfs& vfs_;
  stream::Streamer& streamer_;
  stream::BlobPlaces& places_;
  Timer& timer_;
  Metrics& metrics_;
  LayerStore store_;
  ImageCatalog catalog_;
  std::atomic<bool> stopping_{false};

  Mutex control_mu_;  // before mu_
  mutable Mutex mu_;  // the maps; nothing slow under it
  CondVar attached_;
  std::map<std::string, std::shared_ptr<Layer>> layers_ HR_GUARDED_BY(mu_);  // by key
  std::map<std::string, Shown> mounts_ HR_GUARDED_BY(mu_);                   // by id
  std::list<Mounting> mounting_ HR_GUARDED_BY(mu_);
  std::map<std::string, TimePoint> warmed_ HR_GUARDED_BY(mu_);               // images, when
  const std::shared_ptr<stream::Gate> timed_ = std::make_shared<stream::Gate>();  // for what the timer still has of us

  // Last: their tasks use all of the above. Those of a pool post to the ones before it.
  ThreadPool learn_pool_;
  ThreadPool ahead_pool_;   // what nobody asked for yet: a registry that hangs must not keep others' Mounts waiting
  ThreadPool attach_pool_;
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_LAYER_MANAGER_H_
