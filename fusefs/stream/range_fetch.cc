#include "fusefs/stream/range_fetch.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fusefs/base/log.h"
#include "fusefs/format/toc.h"
#include "fusefs/stream/content.h"
#include "fusefs/stream/core.h"

namespace headrace::stream {

// A complete compressed chunk on its way through the pool.
struct ArrivedChunk {
  std::shared_ptr<RangeFetch> range;
  RangeFetch::Slot slot;
  Buffer decoded;
};

void DecodeQueue::Push(std::shared_ptr<ArrivedChunk> chunk) {
  MutexLock lock(mu_);
  queue_.push_back(std::move(chunk));
}

std::vector<std::shared_ptr<ArrivedChunk>> DecodeQueue::Take() {
  std::vector<std::shared_ptr<ArrivedChunk>> taken;
  MutexLock lock(mu_);
  const size_t wanted = queue_.size() > kBacklog ? 2 : 1;
  while (taken.size() < wanted && !queue_.empty()) {
    taken.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return taken;
}

void DecodeQueue::Clear() {
  std::deque<std::shared_ptr<ArrivedChunk>> dropped;  // destroyed without the lock
  MutexLock lock(mu_);
  dropped.swap(queue_);
}

RangeFetch::RangeFetch(std::shared_ptr<Core> core, std::shared_ptr<Content> content,
                       std::shared_ptr<const LayerSource> layer, const std::vector<Part>& parts, RangeKind kind)
    : core_(std::move(core)),
      content_(std::move(content)),
      layer_(std::move(layer)),
      begin_(parts.front().chunk->blob_offset),
      end_(parts.back().chunk->blob_offset + parts.back().chunk->blob_size),
      kind_(kind) {
  uint64_t at = begin_;
  for (const Part& part : parts) {
    HEADRACE_CHECK(part.chunk->blob_offset == at);
    at += part.chunk->blob_size;
    cost_ += part.chunk->blob_size + part.chunk->size;
    flights_.push_back(part.flight);
    slots_.push_back(Slot{part.flight, part.chunk, {}, {}});
  }
}

RangeFetch::~RangeFetch() { EndTurn(); }

void RangeFetch::EndTurn() {
  if (has_turn_.exchange(false, std::memory_order_acq_rel)) core_->scheduler->EndTurn();
}

void RangeFetch::Begin() {
  Charge all(core_->scheduler, cost_);
  has_turn_.store(true, std::memory_order_release);
  bool dropped = false;
  {
    MutexLock lock(mu_);
    dropped = cancelled();
    for (Slot& slot : slots_) slot.charge = all.Split(slot.chunk->blob_size + slot.chunk->size);
  }
  if (dropped) return EndTurn();
  Gate::Pass pass(core_->gate);
  if (!pass) return EndTurn();
  core_->CountRange(kind_);
  core_->source.Fetch(layer_->blob, begin_, end_ - begin_, shared_from_this());
}

void RangeFetch::Cancel() {
  std::vector<Slot> dropped;
  {
    MutexLock lock(mu_);
    cancelled_.store(true, std::memory_order_release);
    dropped.swap(slots_);
    next_ = 0;
  }
  EndTurn();
}

bool RangeFetch::OnData(std::span<const uint8_t> data) {
  Gate::Pass pass(core_->gate);
  if (!pass) return false;
  core_->arrived_bytes.fetch_add(data.size(), std::memory_order_relaxed);
  std::vector<std::shared_ptr<ArrivedChunk>> complete;
  const bool more = Consume(data, &complete);
  for (std::shared_ptr<ArrivedChunk>& arrived : complete) {
    core_->arrived.Push(std::move(arrived));
    core_->Post([core = core_] { DecodeSome(*core); });
  }
  return more;
}

bool RangeFetch::Consume(std::span<const uint8_t> data, std::vector<std::shared_ptr<ArrivedChunk>>* complete) {
  MutexLock lock(mu_);
  if (cancelled() || done_) return false;
  while (!data.empty()) {
    if (next_ == slots_.size()) return false;  // more than was asked for
    Slot& slot = slots_[next_];
    if (!slot.compressed.valid()) {
      slot.compressed = core_->buffers->Get(slot.chunk->blob_size);
      filled_ = 0;
      if (!slot.compressed.valid()) {
        own_error_ = ResourceExhaustedError("no memory for " + std::to_string(slot.chunk->blob_size) + " bytes");
        return false;
      }
    }
    const size_t n = std::min(data.size(), slot.compressed.bytes().size() - filled_);
    std::memcpy(slot.compressed.bytes().data() + filled_, data.data(), n);
    filled_ += n;
    data = data.subspan(n);
    if (filled_ < slot.compressed.bytes().size()) continue;
    complete->push_back(std::make_shared<ArrivedChunk>(ArrivedChunk{shared_from_this(), std::move(slot), {}}));
    ++next_;
  }
  return true;
}

void RangeFetch::DecodeSome(Core& core) {
  const std::vector<std::shared_ptr<ArrivedChunk>> chunks = core.arrived.Take();
  std::vector<format::ChunkToDecode> work;
  for (const std::shared_ptr<ArrivedChunk>& arrived : chunks) {
    const Slot& slot = arrived->slot;
    arrived->decoded = core.buffers->Get(slot.chunk->size);
    if (!arrived->decoded.valid()) {
      arrived->range->Decoded(*arrived, ResourceExhaustedError("no memory for a chunk"));
      continue;
    }
    work.push_back({slot.chunk, slot.compressed.bytes(), arrived->decoded.bytes(), {}});
  }
  format::ChunkTimes times;
  if (work.size() == 2) {
    format::DecodeChunkPair(work[0], work[1], &times);
  } else if (work.size() == 1) {
    work[0].status = format::DecodeChunk(*work[0].chunk, work[0].compressed, work[0].out, &times);
  }
  Metrics::Add(core.metrics.chunk_decode_us, times.decode_ns / 1000);
  Metrics::Add(core.metrics.chunk_hash_us, times.hash_ns / 1000);
  size_t next = 0;
  for (const std::shared_ptr<ArrivedChunk>& arrived : chunks) {
    if (arrived->decoded.valid()) arrived->range->Decoded(*arrived, work[next++].status);
  }
}

// The chunk's bytes are in arrived.decoded and verified, or `status` says why not.
void RangeFetch::Decoded(ArrivedChunk& arrived, const Status& status) {
  Slot& slot = arrived.slot;
  slot.compressed = Buffer();
  if (status.ok()) {
    Metrics::Add(core_->metrics.chunk_wire_bytes, static_cast<int64_t>(slot.chunk->blob_size));
    content_->Deliver(slot.flight, std::move(arrived.decoded), Content::Origin::kWire);
    slot.charge = Charge();
    return;
  }
  arrived.decoded = Buffer();
  slot.charge = Charge();
  if (status.code() == StatusCode::kDataLoss) {
    core_->source.ReportWrongBytes(layer_->blob, from_.load(std::memory_order_relaxed));
    Metrics::Add(core_->metrics.chunk_digest_mismatches);
    uint64_t suppressed = 0;
    if (core_->mismatch_log.Allow(&suppressed)) {
      log::Error("wrong bytes from the registry layer={} chunk={} blob_begin={} blob_end={} image={} error=\"{}\" suppressed={}",
                 layer_->blob.digest.ToString(), content_->Describe(slot.flight), slot.chunk->blob_offset,
                 slot.chunk->blob_offset + slot.chunk->blob_size, layer_->blob.image_ref, status.ToString(), suppressed);
    }
  }
  content_->FetchFailed({slot.flight}, status, /*progress=*/false);
}

// The turn ends last: a plan that sees room must know of the failure already.
void RangeFetch::OnDone(Status status) {
  Ended(std::move(status));
  EndTurn();
}

void RangeFetch::Ended(Status status) {
  Gate::Pass pass(core_->gate);
  if (!pass) return;
  if (status.ok()) core_->RangeCame();
  std::vector<Slot> rest;
  std::vector<std::shared_ptr<Flight>> flights;
  bool progress = false;
  {
    MutexLock lock(mu_);
    if (cancelled() || done_) return;
    done_ = true;
    progress = next_ > 0;
    rest.assign(std::make_move_iterator(slots_.begin() + static_cast<ptrdiff_t>(next_)),
                std::make_move_iterator(slots_.end()));
    slots_.clear();
    next_ = 0;
    if (!own_error_.ok()) status = own_error_;
  }
  if (rest.empty()) return;
  if (status.ok()) status = UnavailableError("the registry sent less than was asked for");
  for (Slot& slot : rest) flights.push_back(std::move(slot.flight));
  rest.clear();
  content_->FetchFailed(flights, status.Annotate("layer " + layer_->blob.digest.ToString() + " bytes [" +
                                                 std::to_string(begin_) + ", " + std::to_string(end_) + ")"),
                        progress);
}

}  // namespace headrace::stream
