#include "fusefs/stream/content.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "fusefs/base/log.h"
#include "fusefs/format/limits.h"

namespace headrace::stream {
namespace {

constexpr uint64_t kReadSizeMax = uint64_t{16} << 20;
// Other layers with the same content that are remembered: each keeps its table of contents in memory.
constexpr size_t kSourcesMax = 4;
// The head of a large file is what a loader waits for before it does anything else: fetched side by side, in ranges that a new connection brings in
// its first round trips (format/ cuts it accordingly).
constexpr uint64_t kHeadRangeBytes = uint64_t{48} << 10;

}  // namespace

Content::Content(std::shared_ptr<Core> core, const cache::ContentSpec& spec, std::shared_ptr<cache::ContentFile> file,
                 std::shared_ptr<const LayerSource> layer, uint32_t entry_index)
    : core_(std::move(core)),
      spec_(spec),
      file_(std::move(file)),
      home_{layer, layer->index->entries[entry_index].first_chunk},
      name_(layer->index->entries[entry_index].name),
      kind_(KindOf(name_)),
      tracker_(spec.size),
      place_{layer, entry_index},
      sources_{home_} {}

void Content::AddSource(std::shared_ptr<const LayerSource> layer, uint32_t entry_index) {
  const uint32_t first_chunk = layer->index->entries[entry_index].first_chunk;
  FilePlace before;  // goes without the lock
  MutexLock lock(mu_);
  before = std::exchange(place_, FilePlace{layer, entry_index});
  if (sources_.size() >= kSourcesMax) return;
  for (const Source& known : sources_) {
    if (known.layer->blob.digest == layer->blob.digest && known.layer->blob.image_ref == layer->blob.image_ref) return;
  }
  sources_.push_back({std::move(layer), first_chunk});
}

int Content::backing_fd() const {
  HEADRACE_CHECK(file_ != nullptr);
  return file_->backing_fd();
}

void Content::AwaitSeal(std::chrono::milliseconds most, std::function<void()> done) {
  Gate::Pass pass(core_->gate);
  if (!pass || !file_ || sealed() || !file_->complete()) return done();
  auto called = std::make_shared<std::atomic<bool>>(false);
  const auto once = [called, work = std::move(done)] {
    if (!called->exchange(true)) work();
  };
  core_->After(most, once);
  file_->WhenSealEnds(once);
}

std::string Content::Where() const { return "layer " + home_.layer->blob.digest.ToString(); }

std::string Content::Describe(const std::shared_ptr<Flight>& flight) const {
  const format::Chunk& c = chunk(flight->chunk);
  return std::to_string(flight->chunk) + " of \"" + name_ + "\" [" + std::to_string(c.file_offset) + ", " +
         std::to_string(c.file_offset + c.size) + ")";
}

uint32_t Content::ChunkAt(uint64_t offset) const {
  uint32_t low = 0;
  uint32_t high = spec_.chunk_count;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (chunk(middle).file_offset <= offset ? low : high) = middle;
  }
  return low;
}

cache::ChunkState Content::StateOf(uint32_t index) const {
  return file_ ? file_->state(index) : cache::ChunkState::kAbsent;
}

bool Content::AllPresent(uint32_t first, uint32_t end) const {
  for (uint32_t i = first; i < end; ++i) {
    if (StateOf(i) != cache::ChunkState::kPresent) return false;
  }
  return true;
}

bool Content::HasHolesToMark() const {
  if (!file_ || file_->complete()) return false;
  for (uint32_t i = 0; i < spec_.chunk_count; ++i) {
    if (chunk(i).kind == format::ChunkKind::kZeros && StateOf(i) != cache::ChunkState::kPresent) return true;
  }
  return false;
}

void Content::MarkHoles() {
  for (uint32_t i = 0; i < spec_.chunk_count; ++i) {
    const format::Chunk& c = chunk(i);
    if (c.kind != format::ChunkKind::kZeros) continue;
    Status status = file_->MarkHole(i, c.file_offset, c.size);
    if (status.ok()) continue;
    // Zeros are served from nothing; the file only stays incomplete.
    log::Debug("zeros not marked in the cache file=\"{}\" error=\"{}\"", name_, status.ToString());
    return;
  }
}

void Content::Read(uint64_t offset, uint64_t size, ReadDone done) {
  if (offset >= spec_.size || size == 0) return done(OkStatus(), {});
  if (size > kReadSizeMax) return done(InvalidArgumentError("a read of more than 16 MiB"), {});
  size = std::min(size, spec_.size - offset);
  const std::shared_ptr<Content> self = shared_from_this();  // `done` may let go of the last reference of others
  if (!ReadCached(offset, size, done)) ReadThrough(offset, size, std::move(done));
  Track(offset, size);  // after the read has started: the plan goes around it
}

// False if it could not answer; `done` is untouched then.
bool Content::ReadCached(uint64_t offset, uint64_t size, ReadDone& done) {
  if (!file_) return false;
  const uint64_t epoch = file_->epoch();
  if (!AllPresent(ChunkAt(offset), ChunkAt(offset + size - 1) + 1)) return false;
  Buffer buffer = core_->buffers->Get(size);
  if (!buffer.valid() || !file_->ReadPresent(epoch, offset, buffer.bytes()).ok()) return false;
  Metrics::Add(core_->metrics.cache_hit_bytes, static_cast<int64_t>(size));
  read_bytes_.fetch_add(size, std::memory_order_relaxed);
  done(OkStatus(), std::as_const(buffer).bytes());
  return true;
}

void Content::ReadThrough(uint64_t offset, uint64_t size, ReadDone done) {
  auto op = std::make_shared<ReadOp>(shared_from_this(), offset, size, std::move(done));
  Gate::Pass pass(core_->gate);
  if (!pass) return op->Fail(CancelledError("the streamer is shut down"));
  op->started = std::chrono::steady_clock::now();
  op->deadline = op->started + core_->options.read_deadline;
  core_->deadlines.Attach(*op);
  const uint32_t first = ChunkAt(offset);
  const uint32_t end = ChunkAt(offset + size - 1) + 1;
  op->Expect(static_cast<int>(end - first) + 1);  // and one for this thread, so that nobody answers before all have joined
  if (end - first > 1 || chunk(first).kind == format::ChunkKind::kZeros) {
    op->buffer = core_->buffers->Get(size);
    if (!op->buffer.valid()) return op->Fail(ResourceExhaustedError("no memory for a read"));
  }
  Plan plan;
  {
    MutexLock lock(mu_);
    for (uint32_t i = first; i < end; ++i) Join(i, op, &plan);
    MakeRanges(plan.fetch, &plan);
  }
  Launch(plan, Priority::kDemand);
  for (const uint32_t i : plan.zeros) op->SupplyZeros(chunk(i).file_offset, chunk(i).size);
  for (const auto& flight : plan.ready) op->Supply(chunk(flight->chunk).file_offset, std::as_const(flight->bytes).bytes());
  for (const uint32_t i : plan.cached) SupplyCached(op, i);
  if (op->waits_for_others()) core_->AwaitDeadline(op);
  op->SupplyInPlace();
}

// One piece of the read: finds where it is to come from. `op` is null for FetchAll.
void Content::Join(uint32_t index, const std::shared_ptr<ReadOp>& op, Plan* plan) {
  if (chunk(index).kind == format::ChunkKind::kZeros) {
    plan->zeros.push_back(index);
    return;
  }
  const TimePoint want_until = op ? op->deadline : std::chrono::steady_clock::now() + core_->options.read_deadline;
  if (auto it = flights_.find(index); it != flights_.end()) {
    Flight& flight = *it->second;
    flight.want_until = std::max(flight.want_until, want_until);
    if (!op) return;
    if (flight.state == Flight::State::kReady) {
      plan->ready.push_back(it->second);
      return;
    }
    flight.waiters.push_back(op);
    if (flight.range) plan->promote.push_back(flight.range);
    Metrics::Add(core_->metrics.chunk_joins);
    return;
  }
  const cache::ChunkState state = StateOf(index);
  if (state == cache::ChunkState::kPresent) {
    plan->cached.push_back(index);
    return;
  }
  auto flight = std::make_shared<Flight>(index);
  flight->want_until = want_until;
  if (op) flight->waiters.push_back(op);
  flights_.emplace(index, flight);
  if (state == cache::ChunkState::kUnverified) {
    flight->state = Flight::State::kVerifying;
    plan->verify.push_back(std::move(flight));
  } else {
    plan->fetch.push_back(std::move(flight));
  }
}

// Cuts flights (in order of their chunks) into ranges of chunks that lie side by side in the blob.
void Content::MakeRanges(const Flights& flights, Plan* plan, RangeKind kind) {
  const uint64_t bytes_max = core_->options.range_bytes_max;
  // Highly compressed chunks: what a range decodes to is bounded as well, or one would take the whole budget.
  const uint64_t cost_max = core_->options.inflight_bytes_max / 4;
  const bool large = kind == RangeKind::kDemand && spec_.size > core_->options.small_file_bytes;
  std::vector<RangeFetch::Part> parts;
  const Source* source = nullptr;
  uint64_t bytes = 0;
  uint64_t cost = 0;
  const auto finish = [&] {
    if (parts.empty()) return;
    auto range = std::make_shared<RangeFetch>(core_, shared_from_this(), source->layer, parts, kind);
    for (const RangeFetch::Part& part : parts) part.flight->range = range;
    plan->ranges.push_back(std::move(range));
    parts.clear();
    bytes = cost = 0;
  };
  for (const std::shared_ptr<Flight>& flight : flights) {
    const Source* from = &sources_[flight->tries % sources_.size()];
    const format::Chunk& c = from->layer->index->chunks[from->first_chunk + flight->chunk];
    const bool adjacent = !parts.empty() && source == from &&
                          parts.back().chunk->blob_offset + parts.back().chunk->blob_size == c.blob_offset;
    const bool enough = large && c.file_offset < format::limits::kHeadBytes && bytes >= kHeadRangeBytes;
    if (!adjacent || enough || bytes + c.blob_size > bytes_max || cost + c.blob_size + c.size > cost_max) finish();
    source = from;
    flight->state = Flight::State::kRange;
    parts.push_back({flight, &c});
    bytes += c.blob_size;
    cost += c.blob_size + c.size;
  }
  finish();
}

void Content::Launch(Plan& plan, Priority priority) {
  for (const auto& range : plan.promote) core_->scheduler->Promote(range, priority);
  for (const auto& range : plan.ranges) core_->scheduler->Submit(range, priority);
  for (const auto& flight : plan.verify) {
    core_->Post([self = shared_from_this(), flight] { self->Verify(flight); });
  }
}

// A chunk that was present when the read joined. If the disk cannot give it, it is fetched like an absent one.
void Content::SupplyCached(const std::shared_ptr<ReadOp>& op, uint32_t index) {
  const format::Chunk& c = chunk(index);
  const uint64_t from = std::max(c.file_offset, op->offset);
  const uint64_t to = std::min(c.file_offset + c.size, op->offset + op->size);
  Buffer buffer = core_->buffers->Get(to - from);
  if (!buffer.valid()) return op->Fail(ResourceExhaustedError("no memory for a read"));
  const uint64_t epoch = file_->epoch();
  if (StateOf(index) == cache::ChunkState::kPresent && file_->ReadPresent(epoch, from, buffer.bytes()).ok()) {
    Metrics::Add(core_->metrics.cache_hit_bytes, static_cast<int64_t>(to - from));
    return op->Supply(from, std::as_const(buffer).bytes());
  }
  // Unless others were lost beside it, or it is to be verified first.
  if (StateOf(index) == cache::ChunkState::kPresent && file_->epoch() == epoch) file_->Drop(index, cache::ChunkState::kPresent);
  Plan plan;
  {
    MutexLock lock(mu_);
    Join(index, op, &plan);
    MakeRanges(plan.fetch, &plan);
  }
  Launch(plan, Priority::kDemand);
  for (const auto& flight : plan.ready) op->Supply(c.file_offset, std::as_const(flight->bytes).bytes());
  // Somebody brought it back since: once more.
  for (const uint32_t again : plan.cached) SupplyCached(op, again);
}

void Content::FetchAll() {
  if (!file_ || !file_->usable() || file_->complete()) return;  // without a cache there is nowhere to put it
  Gate::Pass pass(core_->gate);
  if (!pass) return;
  Plan plan;
  {
    MutexLock lock(mu_);
    for (uint32_t i = 0; i < spec_.chunk_count; ++i) Join(i, nullptr, &plan);
    MakeRanges(plan.fetch, &plan);
  }
  Launch(plan, Priority::kFill);
}

// On the pool: a chunk of which the cache is not sure.
void Content::Verify(const std::shared_ptr<Flight>& flight) {
  const format::Chunk& c = chunk(flight->chunk);
  Buffer bytes = core_->buffers->Get(c.size);
  const uint64_t give_backs = file_->give_backs();
  const bool good = bytes.valid() && file_->Read(c.file_offset, bytes.bytes()).ok() &&
                    Digest::Of(std::as_const(bytes).bytes()) == c.digest;
  if (good) {
    Metrics::Add(core_->metrics.cache_hit_bytes, static_cast<int64_t>(c.size));
    Status status = file_->Confirm(flight->chunk, give_backs);
    if (!status.ok()) log::Debug("presence not confirmed file=\"{}\" error=\"{}\"", name_, status.ToString());
    return Deliver(flight, std::move(bytes), Origin::kCache);
  }
  file_->Drop(flight->chunk, cache::ChunkState::kUnverified);
  Plan plan;
  Priority priority = Priority::kFill;
  {
    MutexLock lock(mu_);
    if (!IsCurrent(*flight)) return;
    if (!flight->waiters.empty()) priority = Priority::kDemand;
    MakeRanges({flight}, &plan);
  }
  Launch(plan, priority);
}

bool Content::StoreInCache(uint32_t index, std::span<const uint8_t> bytes) {
  if (!file_) return false;
  const TimePoint start = std::chrono::steady_clock::now();
  const bool stored = file_->WriteChunk(index, chunk(index).file_offset, bytes).ok();
  Metrics::Add(core_->metrics.cache_write_us,
               std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start).count());
  return stored;
}

void Content::Deliver(const std::shared_ptr<Flight>& flight, Buffer bytes, Origin origin) {
  const uint32_t index = flight->chunk;
  if (origin == Origin::kWire) Metrics::Add(core_->metrics.chunk_fetches);
  Ops waiters;
  bool current = false;
  {
    MutexLock lock(mu_);
    current = IsCurrent(*flight);
    if (current) {
      flight->bytes = std::move(bytes);
      flight->state = Flight::State::kReady;
      flight->range = nullptr;
      flight->last_error = OkStatus();
      waiters.swap(flight->waiters);
    }
  }
  if (!current) {  // given up meanwhile; the bytes are good all the same
    if (origin == Origin::kWire) StoreInCache(index, std::as_const(bytes).bytes());
    return;
  }
  const std::span<const uint8_t> verified = std::as_const(flight->bytes).bytes();
  for (const auto& op : waiters) op->Supply(chunk(index).file_offset, verified);
  const bool in_cache = origin == Origin::kCache || StoreInCache(index, verified);
  if (in_cache && StateOf(index) == cache::ChunkState::kPresent) {
    Forget(flight);
  } else {
    if (IsStuck(verified.size())) tracker_.LeaveHoles();  // who reads it has it, or asks again
    core_->KeepUnwritten(shared_from_this(), flight, verified.size());
  }
}

void Content::Forget(const std::shared_ptr<Flight>& flight) {
  MutexLock lock(mu_);
  if (IsCurrent(*flight)) flights_.erase(flight->chunk);
}

bool Content::IsCurrent(const Flight& flight) const {
  auto it = flights_.find(flight.chunk);
  return it != flights_.end() && it->second.get() == &flight;
}

// Takes the flight out of the table; the reads that still wait for it are to be failed by the caller.
Content::Ops Content::Erase(Flight& flight) {
  Ops waiters;
  waiters.swap(flight.waiters);
  if (flight.planned) {
    tracker_.Rewind(chunk(flight.chunk).file_offset);
    if (flight.last_error.code() == StatusCode::kDataLoss) ++wrong_[flight.chunk];
    replan_ = flight.last_error;
  }
  flight.range = nullptr;
  flights_.erase(flight.chunk);
  return waiters;
}

}  // namespace headrace::stream
