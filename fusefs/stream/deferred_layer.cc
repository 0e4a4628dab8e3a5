#include "fusefs/stream/deferred_layer.h"

#include <algorithm>
#include <utility>

#include "fusefs/base/log.h"
#include "fusefs/stream/cache_filler.h"

namespace headrace::stream {
namespace {

constexpr uint64_t kReadSizeMax = uint64_t{16} << 20;
constexpr std::chrono::milliseconds kLook{200};

using std::chrono::steady_clock;

}  // namespace

// One read on its way, and what of it is here.
struct DeferredLayer::Op {
  Op(std::shared_ptr<File> of, uint64_t offset, uint64_t size, FileContent::ReadDone done)
      : read(std::make_shared<ReadOp>(nullptr, offset, size, std::move(done))), file(std::move(of)) {}

  const std::shared_ptr<ReadOp> read;
  const std::shared_ptr<File> file;
  std::vector<uint8_t> buffer;
  bool listed = false;  // with the deadlines: it waited at least once. Of the one who continues it
};

class DeferredLayer::File : public FileContent, public std::enable_shared_from_this<File> {
 public:
  File(std::shared_ptr<DeferredLayer> layer, uint32_t entry, uint64_t size) : layer_(std::move(layer)), entry_(entry), size_(size) {}

  uint64_t size() const override { return size_; }
  bool sealed() const override {
    const auto settled = Settled();
    return settled && settled->sealed();
  }
  bool complete() const override {
    const auto settled = Settled();
    return settled && settled->complete();
  }
  void AwaitSeal(std::chrono::milliseconds most, std::function<void()> done) override {
    if (const auto settled = Settled()) return settled->AwaitSeal(most, std::move(done));
    done();
  }
  int backing_fd() const override {
    const auto settled = Settled();
    HEADRACE_CHECK(settled != nullptr);
    return settled->backing_fd();
  }
  void Read(uint64_t offset, uint64_t size, ReadDone done) override { layer_->Read(shared_from_this(), offset, size, std::move(done)); }
  void FetchAll() override {}  // all of it comes anyway

  uint32_t entry() const { return entry_; }
  // The same file by its digests; set once, kept.
  std::shared_ptr<FileContent> learned() const {
    MutexLock lock(mu_);
    return learned_;
  }
  void set_learned(std::shared_ptr<FileContent> learned) {
    MutexLock lock(mu_);
    learned_ = std::move(learned);
  }

 private:
  std::shared_ptr<FileContent> Settled() const { return layer_->trust() == Trust::kVerified ? learned() : nullptr; }

  const std::shared_ptr<DeferredLayer> layer_;
  const uint32_t entry_;
  const uint64_t size_;
  mutable Mutex mu_;
  std::shared_ptr<FileContent> learned_ HR_GUARDED_BY(mu_);
};

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

uint64_t DeferredLayer::ResidentBytes() const { return blocks_->arrived_bytes(); }

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

void DeferredLayer::Read(const std::shared_ptr<File>& file, uint64_t offset, uint64_t size, FileContent::ReadDone done) {
  if (offset >= file->size() || size == 0) return done(OkStatus(), {});
  if (size > kReadSizeMax) return done(InvalidArgumentError("a read of more than 16 MiB"), {});
  auto op = std::make_shared<Op>(file, offset, std::min(size, file->size() - offset), std::move(done));
  op->read->started = steady_clock::now();
  op->read->deadline = op->read->started + request_.read_deadline;
  deadlines_.Attach(*op->read);
  const auto self = shared_from_this();  // `done` may let go of the last other reference
  Continue(op);
}

void DeferredLayer::Continue(const std::shared_ptr<Op>& op) {
  Gate::Pass pass(gate_);
  if (!pass) return op->read->Fail(CancelledError("the layer is not shown any more"));
  for (;;) {
    if (trust() == Trust::kWrong) return op->read->Fail(Refusal());
    uint64_t seen = 0;
    {
      MutexLock lock(mu_);
      seen = events_;
    }
    uint64_t missing = 0;
    if (TryServe(op, &missing)) return;
    // Before others can see it.
    if (!std::exchange(op->listed, true) && deadlines_.Add(op->read)) ArmDeadline(op->read->deadline);
    {
      MutexLock lock(mu_);
      if (events_ != seen) continue;  // something came meanwhile
      if (op->read->answered()) return;
      waiting_.emplace(missing, op);
    }
    // Poisoned between the look above and the entry in the list.
    if (trust() == Trust::kWrong) FailAll(Refusal());
    return;
  }
}

bool DeferredLayer::TryServe(const std::shared_ptr<Op>& op, uint64_t* missing) {
  ReadOp& read = *op->read;
  const uint32_t number = op->file->entry();
  if (const auto learned = Learned(number)) {
    learned->Read(read.offset, read.size, [this, self = shared_from_this(), op](const Status& status, std::span<const uint8_t> bytes) {
      if (!status.ok()) return op->read->Fail(status);
      if (trust() == Trust::kWrong) return op->read->Fail(Refusal());
      HEADRACE_CHECK(bytes.size() == op->read->size);
      op->read->Supply(op->read->offset, bytes);
    });
    return true;
  }
  const format::LayerIndex& index = *request_.walked;
  const format::Entry& entry = index.entries[number];
  const auto begin = index.chunks.begin() + entry.first_chunk;
  auto chunk = std::upper_bound(begin, begin + entry.chunk_count, read.offset, [](uint64_t offset, const format::Chunk& c) { return offset < c.file_offset; }) - 1;
  op->buffer.resize(read.size);
  const uint64_t end = read.offset + read.size;
  bool all = true;
  for (uint64_t at = read.offset; at < end; ++chunk) {
    const uint64_t until = std::min(end, chunk->file_offset + chunk->size);
    const std::span<uint8_t> out = std::span(op->buffer).subspan(at - read.offset, until - at);
    if (chunk->kind == format::ChunkKind::kZeros) {
      std::fill(out.begin(), out.end(), uint8_t{0});
    } else {
      uint64_t lacking = 0;
      if (!ServePiece(number, *chunk, at, out, &lacking)) {
        if (all) *missing = lacking;
        all = false;
      }
    }
    at = until;
  }
  if (!all) return false;
  if (trust() == Trust::kWrong) {
    read.Fail(Refusal());
  } else {
    read.Supply(read.offset, op->buffer);
  }
  return true;
}

// A part of a stored chunk, block by block.
bool DeferredLayer::ServePiece(uint32_t entry, const format::Chunk& chunk, uint64_t file_offset, std::span<uint8_t> out, uint64_t* missing) {
  bool all = true;
  while (!out.empty()) {
    const uint64_t at = chunk.blob_offset + (file_offset - chunk.file_offset);
    const uint64_t block = at / BlockFetcher::kBlockBytes;
    const uint64_t n = std::min<uint64_t>(out.size(), (block + 1) * BlockFetcher::kBlockBytes - at);
    const BlockFetcher::Have have = blocks_->Copy(at, out.first(n));
    if (have == BlockFetcher::Have::kLater) {
      blocks_->Want(block);
      if (all) *missing = block;
      all = false;
    } else if (have == BlockFetcher::Have::kDone && !ReadStaged(entry, file_offset, out.first(n))) {
      // A small file that is being put together in memory, or one that the cache refused: to be had when its last byte was hashed.
      uint64_t last = 0;
      {
        MutexLock lock(mu_);
        last = (places_.at(entry).end - 1) / BlockFetcher::kBlockBytes;
      }
      if (all) *missing = last;
      all = false;
    }
    out = out.subspan(n);
    file_offset += n;
  }
  return all;
}

bool DeferredLayer::ReadStaged(uint32_t entry, uint64_t file_offset, std::span<uint8_t> out) {
  std::shared_ptr<const cache::StagedFile::Bytes> staged;
  {
    MutexLock lock(mu_);
    const Place& place = places_.at(entry);
    if (place.staged_to < file_offset + out.size()) return false;
    staged = place.staged;
  }
  return staged && staged->Read(file_offset, out).ok();
}

void DeferredLayer::Wake(uint64_t block) {
  Ops ready;
  {
    MutexLock lock(mu_);
    ++events_;
    const auto [begin, end] = waiting_.equal_range(block);
    for (auto it = begin; it != end; ++it) ready.push_back(it->second);
    waiting_.erase(begin, end);
  }
  for (const std::shared_ptr<Op>& op : ready) {
    if (!op->read->answered()) Continue(op);
  }
}

void DeferredLayer::ArmDeadline(TimePoint when) {
  const auto delay = std::max(std::chrono::nanoseconds(0), std::chrono::nanoseconds(when - steady_clock::now()));
  tools_.timer.After(delay, [weak = weak_from_this(), &pool = tools_.pool] {
    pool.Post([weak] {
      if (const auto self = weak.lock()) self->OnDeadline();
    });
  });
}

void DeferredLayer::OnDeadline() {
  Gate::Pass pass(gate_);
  if (!pass) return;
  TimePoint next;
  const std::vector<std::shared_ptr<ReadOp>> expired = deadlines_.TakeExpired(steady_clock::now(), &next);
  Status why = blocks_->last_error();
  if (why.ok()) why = DeadlineExceededError("the block did not come in time");
  for (const std::shared_ptr<ReadOp>& read : expired) read->Fail(why.Annotate("layer " + request_.blob.digest.ToString()));
  {
    MutexLock lock(mu_);
    std::erase_if(waiting_, [](const auto& item) { return item.second->read->answered(); });
  }
  if (next != TimePoint::max()) ArmDeadline(next);
}

void DeferredLayer::FailAll(const Status& status) {
  std::multimap<uint64_t, std::shared_ptr<Op>> failed;
  {
    MutexLock lock(mu_);
    failed.swap(waiting_);
  }
  for (const auto& [block, op] : failed) op->read->Fail(status);
}

}  // namespace headrace::stream
