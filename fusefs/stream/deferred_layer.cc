#include "fusefs/stream/deferred_layer.h"

#include <map>
#include <utility>

#include "fusefs/base/log.h"
#include "fusefs/stream/cache_filler.h"
#include "fusefs/stream/deferred_layer_parts.h"

namespace headrace::stream {
namespace {

constexpr std::chrono::milliseconds kLook{200};

}  // namespace

// The hashing's files: into the cache, and where readers find them meanwhile. The cache may refuse: the file is then fetched again when it is read.
class DeferredLayer::Sink : public format::ContentSink {
 public:
  explicit Sink(DeferredLayer& layer) : layer_(layer), filler_(layer.tools_.cache) {}

  Status BeginFile(uint64_t size) override {
    const auto it = layer_.by_begin_.find(layer_.indexer_->position());
    known_ = it != layer_.by_begin_.end();  // else an entry that a later one of its name replaces
    entry_ = known_ ? it->second : 0;
    to_ = 0;
    cached_ = true;
    Cached(filler_.BeginFile(size));
    if (!known_ || !cached_) return OkStatus();
    auto shared = filler_.Share();
    MutexLock lock(layer_.mu_);
    layer_.places_.at(entry_).staged = std::move(shared);
    return OkStatus();
  }
  Status Content(uint64_t file_offset, std::span<const uint8_t> bytes) override {
    if (cached_) Cached(filler_.Content(file_offset, bytes));
    to_ = file_offset + bytes.size();
    if (!known_ || !cached_) return OkStatus();
    MutexLock lock(layer_.mu_);
    layer_.places_.at(entry_).staged_to = to_;
    return OkStatus();
  }
  Status EndFile(std::span<const format::Chunk> chunks) override {
    if (cached_) Cached(filler_.EndFile(chunks));
    if (!known_) return OkStatus();
    auto index = std::make_shared<format::LayerIndex>();
    index->chunks.assign(chunks.begin(), chunks.end());
    index->blob_size = layer_.request_.blob.size;
    format::Entry entry = layer_.request_.walked->entries[entry_];
    entry.first_chunk = 0;
    entry.chunk_count = static_cast<uint32_t>(chunks.size());
    entry.file_digest = Digest();
    index->entries.push_back(std::move(entry));
    auto learned = std::make_shared<const LayerSource>(LayerSource{layer_.request_.blob, std::move(index), nullptr});
    std::shared_ptr<const cache::StagedFile::Bytes> closed;
    MutexLock lock(layer_.mu_);
    Place& place = layer_.places_.at(entry_);
    place.learned = std::move(learned);
    closed.swap(place.staged);
    return OkStatus();
  }

 private:
  void Cached(const Status& status) {
    if (status.ok()) return;
    cached_ = false;
    log::Warn("a file of a layer that is being verified is not cached layer={} error=\"{}\"", layer_.request_.blob.digest.ToString(), status.ToString());
  }

  DeferredLayer& layer_;
  CacheFiller filler_;
  bool known_ = false;
  bool cached_ = true;
  uint32_t entry_ = 0;
  uint64_t to_ = 0;
};

bool DeferredTurns::Take(std::chrono::milliseconds most) {
  MutexLock lock(mu_);
  if (!freed_.WaitFor(mu_, most, [this]() HR_REQUIRES(mu_) { return free_ > 0; })) return false;
  --free_;
  return true;
}

void DeferredTurns::GiveBack() {
  MutexLock lock(mu_);
  ++free_;
  freed_.NotifyOne();
}

DeferredLayer::DeferredLayer(const DeferredRequest& request, const DeferredTools& tools, OnEnd on_end)
    : request_(request), tools_(tools), on_end_(std::move(on_end)), deadlines_(tools.metrics) {
  const format::LayerIndex& index = *request_.walked;
  for (uint32_t i = 0; i < index.entries.size(); ++i) {
    const format::Entry& entry = index.entries[i];
    if (entry.type != format::EntryType::kRegular || entry.size == 0) continue;
    Place place;
    for (uint32_t c = 0; c < entry.chunk_count; ++c) {
      const format::Chunk& chunk = index.chunks[entry.first_chunk + c];
      if (chunk.kind != format::ChunkKind::kStored) continue;
      if (place.end == 0) place.begin = chunk.blob_offset;
      place.end = chunk.blob_offset + chunk.blob_size;
    }
    // Files that are all hole have no bytes in the tar, and may begin where another one does.
    if (place.end > place.begin) by_begin_.emplace(place.begin, i);
    places_.emplace(i, std::move(place));
  }
}

std::shared_ptr<DeferredLayer> DeferredLayer::Create(const DeferredRequest& request, const DeferredTools& tools, OnEnd on_end) {
  std::shared_ptr<DeferredLayer> layer(new DeferredLayer(request, tools, std::move(on_end)));  // NOLINT: private constructor
  // Never a strong reference on a network thread: the last one waits for those threads.
  layer->blocks_ = std::make_shared<BlockFetcher>(tools.source, request.blob, request.pauses, tools.cache, tools.timer,
                                                  [weak = std::weak_ptr<DeferredLayer>(layer), &pool = tools.pool](uint64_t block) {
                                                    pool.Post([weak, block] {
                                                      const auto self = weak.lock();
                                                      if (!self) return;
                                                      self->Wake(block);
                                                      self->blocks_->Settle(block);
                                                    });
                                                  });
  layer->sink_ = std::make_unique<Sink>(*layer);
  layer->indexer_ = std::make_unique<format::TarIndexer>(*layer->sink_);
  return layer;
}

DeferredLayer::~DeferredLayer() { Stop(); }

void DeferredLayer::Start() {
  thread_ = std::thread([this] { Run(); });
}

void DeferredLayer::Stop() {
  if (stopping_.exchange(true)) return;
  blocks_->Close();
  if (thread_.joinable()) thread_.join();
  gate_.Close();
  FailAll(CancelledError("the layer is not shown any more"));
}

uint64_t DeferredLayer::Resident(uint32_t entry) const {
  uint64_t begin = 0, end = 0;
  {
    MutexLock lock(mu_);
    const Place& place = places_.at(entry);
    begin = place.begin;
    end = place.end;
  }
  const uint64_t here = blocks_->ArrivedBytes(begin, end);
  return here == end - begin ? request_.walked->entries[entry].size : here;  // holes have no bytes in the tar
}

std::vector<FileState> DeferredLayer::FileStates() const {
  std::shared_ptr<const LayerSource> settled;
  std::map<uint32_t, FileState> states;
  const Status error = blocks_->last_error();
  {
    MutexLock lock(mu_);
    settled = settled_;
    for (const auto& [entry, place] : places_) {
      FileState& state = states[entry];
      state.entry = entry;
      state.open = !place.open.expired();
    }
    for (const auto& [block, op] : waiting_) {
      FileState& state = states[op->file->entry()];
      ++state.waiting;
      state.cause = error.ok() ? "fetching" : "retrying";
      if (!error.ok()) state.last_error = error.ToString();
    }
  }
  if (settled && trust() == Trust::kVerified) return tools_.streamer.FileStates(*settled);
  std::vector<FileState> out;
  for (auto& [entry, state] : states) {
    state.resident = Resident(entry);
    out.push_back(std::move(state));
  }
  return out;
}

void DeferredLayer::PostWake(uint64_t block) {
  tools_.pool.Post([weak = weak_from_this(), block] {
    if (const auto self = weak.lock()) self->Wake(block);
  });
}

void DeferredLayer::Run() {
  SetThreadName("deferred");
  while (!tools_.turns.Take(kLook)) {
    if (stopping_.load()) return;
  }
  blocks_->StartOrder();
  const Status status = TakeAll();
  if (!stopping_.load()) End(status.ok() ? Finish() : status);
  tools_.turns.GiveBack();
}

Status DeferredLayer::TakeAll() {
  for (uint64_t block = 0; block < blocks_->count() && !stopping_.load();) {
    auto bytes = blocks_->Take(kLook);
    if (!bytes.ok()) {
      log::Warn("a block is fetched again layer={} error=\"{}\"", request_.blob.digest.ToString(), bytes.status().ToString());
      continue;
    }
    if (!*bytes) continue;
    HR_RETURN_IF_ERROR(indexer_->Write(**bytes));
    blocks_->Done();
    PostWake(block++);
  }
  return OkStatus();
}

Result<LearnedTable> DeferredLayer::Finish() {
  HR_ASSIGN_OR_RETURN(format::TarIndexer::Learned learned, indexer_->Finish());
  if (learned.diff_id != request_.blob.digest) {
    return DataLossError("the blob has digest " + learned.diff_id.ToString() + ", should be " + request_.blob.digest.ToString());
  }
  if (learned.diff_id != request_.diff_id) {
    return DataLossError("the tar has digest " + learned.diff_id.ToString() + ", should be the DiffID " + request_.diff_id.ToString());
  }
  HR_ASSIGN_OR_RETURN(format::LayerIndex index, format::ReadLearnedTable(learned.table));
  if (const std::string difference = format::CompareShapes(*request_.walked, index); !difference.empty()) {
    return DataLossError("what was shown of the layer is not what it holds: " + difference);
  }
  MutexLock lock(mu_);
  settled_ = std::make_shared<const LayerSource>(LayerSource{request_.blob, std::make_shared<const format::LayerIndex>(std::move(index)), nullptr});
  return LearnedTable{std::move(learned.table), false};
}

void DeferredLayer::End(Result<LearnedTable> learned) {
  trust_.store(learned.ok() ? Trust::kVerified : Trust::kWrong, std::memory_order_release);
  if (learned.ok()) {
    OpenLearned();
  } else {
    blocks_->ReportWrong();
    FailAll(Refusal());
  }
  on_end_(std::move(learned));
}

// Files that are open may be passed through from now on, also those that nobody reads any more.
void DeferredLayer::OpenLearned() {
  std::vector<uint32_t> open;
  {
    MutexLock lock(mu_);
    for (const auto& [entry, place] : places_) {
      if (!place.open.expired()) open.push_back(entry);
    }
  }
  for (const uint32_t entry : open) Learned(entry);
}

Status DeferredLayer::Refusal() const {
  return DataLossError("layer " + request_.blob.digest.ToString() + " is not what its digest says: nothing of it is read any more");
}

Result<std::shared_ptr<FileContent>> DeferredLayer::Open(uint32_t entry_index) {
  Gate::Pass pass(gate_);
  if (!pass || stopping_.load()) return CancelledError("the layer is not shown any more");
  if (trust() == Trust::kWrong) return Refusal();
  std::shared_ptr<const LayerSource> settled;
  std::shared_ptr<File> file;
  {
    MutexLock lock(mu_);
    settled = settled_;
    const auto it = places_.find(entry_index);
    if (it == places_.end()) return InvalidArgumentError("not a file of the layer");
    // One object for whoever has it open: also when the layer was verified meanwhile.
    file = it->second.open.lock();
    if (!file && trust() != Trust::kVerified) {
      file = std::make_shared<File>(shared_from_this(), entry_index, request_.walked->entries[entry_index].size);
      it->second.open = file;
    }
  }
  if (file) {
    Learned(entry_index);
    return std::shared_ptr<FileContent>(std::move(file));
  }
  return tools_.streamer.Open(std::move(settled), entry_index);
}

std::shared_ptr<FileContent> DeferredLayer::Learned(uint32_t entry) {
  std::shared_ptr<const LayerSource> source;
  std::shared_ptr<File> file;
  {
    MutexLock lock(mu_);
    const Place& place = places_.at(entry);
    source = place.learned;
    file = place.open.lock();
  }
  if (!source || !file) return nullptr;
  if (auto known = file->learned()) return known;
  auto content = tools_.streamer.Open(std::move(source), 0);
  if (!content.ok()) return nullptr;
  file->set_learned(*content);
  return std::move(*content);
}

}  // namespace headrace::stream
