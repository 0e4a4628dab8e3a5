#include "fusefs/daemon/bake.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/file.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/process.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/daemon/layer_manager.h"
#include "fusefs/daemon/registry_reader.h"
#include "fusefs/daemon/layer_learner.h"
#include "fusefs/stream/blob_places.h"
#include "fusefs/stream/decoding_source.h"
#include "fusefs/stream/streamer.h"
#include "fusefs/vfs/vfs.h"

namespace headrace::daemon {
namespace {

// The disk may be slow: everything is synced before it counts.
constexpr std::chrono::minutes kSealWait{30};
constexpr std::chrono::milliseconds kLook{20};
constexpr const char* kNoMountpoint = "/nonexistent";  // nothing is mounted here

// Nothing is shown here, so nothing is shown before it is verified.
class WholeLearner : public LayerLearner {
 public:
  WholeLearner(registry::RangeSource& source, cache::ContentStore& cache) : source_(source), cache_(cache) {}
  Result<LearnedLayer> Learn(const registry::BlobRef& blob, const Digest& diff_id, LearnProgress& progress, const std::function<bool()>& cancelled) override {
    return LearnWhole({blob, diff_id, {}, cancelled, &progress.done_bytes}, source_, cache_);
  }
  std::shared_ptr<stream::LayerOpener> Defer(const registry::BlobRef&, const Digest&, std::shared_ptr<const format::LayerIndex>,
                                             std::function<void(Result<LearnedLayer>)>) override {
    return nullptr;
  }

 private:
  registry::RangeSource& source_;
  cache::ContentStore& cache_;
};

class BakerImpl : public Baker {
 public:
  explicit BakerImpl(const BakeOptions& options) : options_(options) {}

  Status Build() {
    HR_ASSIGN_OR_RETURN(lock_, LockRoot(options_.root, "headrace bake"));
    timer_ = std::make_unique<Timer>("timer");
    pool_ = std::make_unique<ThreadPool>("decode", options_.threads);
    HR_ASSIGN_OR_RETURN(client_, registry::Client::Create(options_.client, metrics_));
    HR_ASSIGN_OR_RETURN(cache_, cache::ContentStore::Create({.root = options_.root + "/cache"}, metrics_));
    reader_ = std::make_unique<ClientReader>(*client_);
    places_ = std::make_unique<stream::BlobPlaces>(*client_, metrics_);
    learner_ = std::make_unique<WholeLearner>(*places_, *cache_);
    source_ = std::make_unique<stream::DecodingSource>(*places_, stream::BlobReaderOptions{});
    stream::StreamerOptions stream;
    stream.fill_rate = 0;
    HR_ASSIGN_OR_RETURN(streamer_, stream::Streamer::Create(stream, *cache_, *source_, *pool_, *timer_, metrics_));
    vfs_ = vfs::Vfs::Create(*streamer_, metrics_);
    LayerManagerOptions manager;
    manager.root = options_.root;
    manager.mountpoint = kNoMountpoint;
    manager.kept_layers = [this] { return KeptLayers(*cache_); };
    manager_ = std::make_unique<LayerManager>(std::move(manager), *reader_, *learner_, *vfs_, *streamer_, *places_, *timer_, metrics_);
    return manager_->Restore();
  }

  Result<Baked> Bake(const std::string& image_ref, const Digest& manifest, const std::function<bool(const PrefetchState&)>& progress) override {
    HR_ASSIGN_OR_RETURN(const LayerSelection image, manager_->AttachImage(image_ref, manifest.ToString()));
    PrefetchState last;
    HR_RETURN_IF_ERROR(Prefetch(image.layers, *streamer_, *cache_, {}, [&](const PrefetchState& state) {
      last = state;
      return progress(state);
    }));
    HR_RETURN_IF_ERROR(AwaitSeals(image));
    HR_RETURN_IF_ERROR(cache_->Pin(image_ref, image.contents, LayerNotes(image.keys)));
    HR_RETURN_IF_ERROR(SyncAll());
    return Baked{.layers = image.layers.size(), .files = last.done_files, .bytes = last.done_bytes, .contents = std::set<Digest>(image.contents.begin(), image.contents.end()).size()};
  }

 private:
  Status AwaitSeals(const LayerSelection& image) {
    const auto deadline = std::chrono::steady_clock::now() + kSealWait;
    for (const auto& layer : image.layers) {
      for (;;) {
        const std::vector<stream::FileState> files = streamer_->FileStates(*layer);
        const auto open = std::find_if(files.begin(), files.end(), [](const stream::FileState& file) { return !file.sealed; });
        if (open == files.end()) break;
        if (std::chrono::steady_clock::now() > deadline) return DataLossError(layer->index->entries[open->entry].name + " is not on the disk, all of it");
        // Placed whole by who learned the layer: sealed when it is opened.
        auto content = streamer_->Open(layer, open->entry);
        if (content.ok()) (*content)->FetchAll();
        std::this_thread::sleep_for(kLook);
      }
    }
    return OkStatus();
  }
  // Records of layers are not forced to the disk one by one.
  Status SyncAll() const {
    HR_ASSIGN_OR_RETURN(const UniqueFd root, OpenFile(options_.root, O_RDONLY | O_DIRECTORY));
    return ::syncfs(root.get()) == 0 ? OkStatus() : Status::FromErrno(errno, "sync " + options_.root);
  }

  // In the order of construction; destroyed in reverse.
  const BakeOptions options_;
  Metrics metrics_;
  UniqueFd lock_;
  std::unique_ptr<Timer> timer_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<registry::Client> client_;
  std::unique_ptr<stream::BlobPlaces> places_;
  std::unique_ptr<stream::DecodingSource> source_;
  std::unique_ptr<ClientReader> reader_;
  std::unique_ptr<cache::ContentStore> cache_;
  std::unique_ptr<WholeLearner> learner_;
  std::unique_ptr<stream::Streamer> streamer_;
  std::unique_ptr<vfs::Vfs> vfs_;
  std::unique_ptr<LayerManager> manager_;
};

}  // namespace

Result<std::unique_ptr<Baker>> Baker::Create(const BakeOptions& options) {
  auto baker = std::make_unique<BakerImpl>(options);
  HR_RETURN_IF_ERROR(baker->Build());
  return std::unique_ptr<Baker>(std::move(baker));
}

}  // namespace headrace::daemon
