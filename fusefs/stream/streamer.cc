#include "fusefs/stream/streamer.h"

#include <unordered_map>
#include <utility>
#include <vector>

#include "fusefs/base/log.h"
#include "fusefs/stream/content.h"
#include "fusefs/stream/content_id.h"
#include "fusefs/stream/core.h"
#include "fusefs/stream/planner.h"

namespace headrace::stream {
namespace {

class EmptyContent : public FileContent {
 public:
  uint64_t size() const override { return 0; }
  bool sealed() const override { return false; }
  int backing_fd() const override { return -1; }
  void Read(uint64_t, uint64_t, ReadDone done) override { done(OkStatus(), {}); }
  void FetchAll() override {}
};

class StreamerImpl : public Streamer {
 public:
  StreamerImpl(std::shared_ptr<Core> core, cache::ContentStore& store)
      : core_(std::move(core)), store_(store), empty_(std::make_shared<EmptyContent>()) {
    const auto open = [this](const FilePlace& place) {
      Result<std::shared_ptr<Content>> content = OpenContent(place.layer, place.entry);
      return content.ok() ? *content : nullptr;
    };
    planner_ = std::make_shared<Planner>(core_, open, [this](uint64_t bytes) { store_.SetUnderWay(bytes); });
    if (!core_->options.read_ahead) return;
    core_->SetPlanner(planner_);
    planner_->Start();
  }
  ~StreamerImpl() override;

  Result<std::shared_ptr<FileContent>> Open(std::shared_ptr<const LayerSource> layer, uint32_t entry_index) override;
  void AddToImage(const std::string& image, const std::shared_ptr<const LayerSource>& layer, bool fill) override {
    if (layer->opener == nullptr) planner_->files().Add(image, layer, fill);  // who opens it brings all of it anyway
  }
  void RemoveFromImage(const std::string& image, const std::shared_ptr<const LayerSource>& layer) override {
    if (layer->opener != nullptr) return;
    planner_->files().Remove(image, layer);
    planner_->Drop(layer);
  }
  void SetFillRate(uint64_t bytes_per_second) override {
    core_->fill_rate.store(bytes_per_second, std::memory_order_relaxed);
    planner_->Poke();
  }
  uint64_t ResidentBytes(const LayerSource& layer) override;
  std::vector<FileState> FileStates(const LayerSource& layer) override;

 private:
  // REQUIRES: there is such an entry, and it is not empty.
  Result<std::shared_ptr<Content>> OpenContent(std::shared_ptr<const LayerSource> layer, uint32_t entry_index);
  std::shared_ptr<Content> Find(const Digest& id);
  // The content that is known under the id from now on: `made`, or one that was faster, but not `stale`.
  std::shared_ptr<Content> Insert(const Digest& id, std::shared_ptr<Content> made, const std::shared_ptr<Content>& stale);
  std::shared_ptr<cache::ContentFile> OpenCacheFile(const cache::ContentSpec& spec);

  const std::shared_ptr<Core> core_;
  cache::ContentStore& store_;
  const std::shared_ptr<EmptyContent> empty_;
  std::shared_ptr<Planner> planner_;
  LogLimiter no_cache_log_;
  Mutex mu_;
  std::unordered_map<Digest, std::weak_ptr<Content>> contents_ HR_GUARDED_BY(mu_);
  size_t sweep_at_ HR_GUARDED_BY(mu_) = 1024;
  std::vector<std::weak_ptr<Content>> stale_ HR_GUARDED_BY(mu_);  // still open, and no longer in contents_
};

StreamerImpl::~StreamerImpl() {
  core_->gate.Close();
  core_->SetPlanner(nullptr);
  planner_->Stop();
  std::vector<std::shared_ptr<Content>> open;
  {
    MutexLock lock(mu_);
    for (auto& [id, weak] : contents_) {
      if (auto content = weak.lock()) open.push_back(std::move(content));
    }
    for (auto& weak : stale_) {
      if (auto content = weak.lock()) open.push_back(std::move(content));
    }
  }
  for (const auto& content : open) content->Close();
  core_->Close();
}

std::shared_ptr<Content> StreamerImpl::Find(const Digest& id) {
  MutexLock lock(mu_);
  auto it = contents_.find(id);
  return it == contents_.end() ? nullptr : it->second.lock();
}

std::shared_ptr<Content> StreamerImpl::Insert(const Digest& id, std::shared_ptr<Content> made, const std::shared_ptr<Content>& stale) {
  MutexLock lock(mu_);
  std::weak_ptr<Content>& place = contents_[id];
  if (auto existing = place.lock()) {
    if (existing != stale) return existing;
    std::erase_if(stale_, [](const auto& weak) { return weak.expired(); });
    stale_.push_back(existing);
  }
  place = made;
  if (contents_.size() >= sweep_at_) {
    std::erase_if(contents_, [](const auto& entry) { return entry.second.expired(); });
    sweep_at_ = 1024 + 2 * contents_.size();
  }
  return made;
}

std::shared_ptr<cache::ContentFile> StreamerImpl::OpenCacheFile(const cache::ContentSpec& spec) {
  Result<std::shared_ptr<cache::ContentFile>> file = store_.Open(spec);
  if (file.ok()) return *file;
  if (file.status().code() == StatusCode::kResourceExhausted) return nullptr;  // full: said and counted by the cache
  Metrics::Add(core_->metrics.cache_write_errors);
  uint64_t suppressed = 0;
  if (no_cache_log_.Allow(&suppressed)) {
    log::Warn("file served without the cache error=\"{}\" suppressed={}", file.status().ToString(), suppressed);
  }
  return nullptr;
}

Result<std::shared_ptr<FileContent>> StreamerImpl::Open(std::shared_ptr<const LayerSource> layer,
                                                        uint32_t entry_index) {
  if (entry_index >= layer->index->entries.size()) {
    return InvalidArgumentError("layer " + layer->blob.digest.ToString() + ": no such entry");
  }
  const format::Entry& entry = layer->index->entries[entry_index];
  if (entry.type == format::EntryType::kRegular && entry.size == 0) return std::shared_ptr<FileContent>(empty_);
  if (layer->opener != nullptr) return layer->opener->Open(entry_index);
  const bool small = entry.size <= core_->options.small_file_bytes;
  if (small && core_->options.read_ahead) planner_->OpenedSmall({layer, entry_index});
  HR_ASSIGN_OR_RETURN(std::shared_ptr<Content> content, OpenContent(std::move(layer), entry_index));
  return std::shared_ptr<FileContent>(std::move(content));
}

Result<std::shared_ptr<Content>> StreamerImpl::OpenContent(std::shared_ptr<const LayerSource> layer, uint32_t entry_index) {
  Result<cache::ContentSpec> spec = ContentId(*layer->index, layer->index->entries[entry_index]);
  if (!spec.ok()) return spec.status().Annotate("layer " + layer->blob.digest.ToString());
  std::shared_ptr<Content> content = Find(spec->id);
  if (!content || content->Stale()) {
    // Two threads may get here at once: they share the cache file, and the second content is dropped before anybody saw it.
    content = Insert(spec->id, std::make_shared<Content>(core_, *spec, OpenCacheFile(*spec), layer, entry_index), content);
    if (content->HasHolesToMark()) core_->Post([content] { content->MarkHoles(); });
  }
  content->AddSource(std::move(layer), entry_index);
  return content;
}

std::vector<FileState> StreamerImpl::FileStates(const LayerSource& layer) {
  if (layer.opener != nullptr) return layer.opener->FileStates();
  std::vector<FileState> states;
  for (uint32_t i = 0; i < layer.index->entries.size(); ++i) {
    const format::Entry& entry = layer.index->entries[i];
    if (entry.type != format::EntryType::kRegular || entry.size == 0) continue;
    FileState state;
    state.entry = i;
    Result<cache::ContentSpec> spec = ContentId(*layer.index, entry);
    if (!spec.ok()) {
      states.push_back(std::move(state));
      continue;
    }
    if (const std::shared_ptr<Content> content = Find(spec->id)) content->Describe(state);
    const std::vector<bool> here = store_.Peek(*spec, &state.sealed);
    for (uint32_t k = 0; k < here.size(); ++k) {
      if (here[k]) state.resident += layer.index->chunks[entry.first_chunk + k].size;
    }
    states.push_back(std::move(state));
  }
  return states;
}

uint64_t StreamerImpl::ResidentBytes(const LayerSource& layer) {
  uint64_t total = 0;
  for (const FileState& state : FileStates(layer)) total += state.resident;
  return total;
}

}  // namespace

Result<std::unique_ptr<Streamer>> Streamer::Create(const StreamerOptions& options, cache::ContentStore& store,
                                                   registry::RangeSource& source, ThreadPool& pool, Timer& timer,
                                                   Metrics& metrics) {
  if (options.read_deadline.count() <= 0 || options.retry_pause_min.count() <= 0 ||
      options.retry_pause_max < options.retry_pause_min || options.range_bytes_max == 0 ||
      options.inflight_bytes_max == 0) {
    return InvalidArgumentError("streamer: a pause, deadline or size is zero, or the longest pause is below the shortest");
  }
  auto core = std::make_shared<Core>(options, source, pool, timer, metrics);
  return std::unique_ptr<Streamer>(std::make_unique<StreamerImpl>(std::move(core), store));
}

}  // namespace headrace::stream
