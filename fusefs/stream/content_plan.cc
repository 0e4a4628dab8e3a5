// What a Content does for the planner: it tells how it is read, and gives out its absent chunks range by range.
#include <algorithm>
#include <utility>

#include "fusefs/stream/content.h"
#include "fusefs/stream/planner.h"

namespace headrace::stream {
namespace {

// Chunks looked at under the lock for one range: a million chunks that are all here must not hold up readers.
constexpr uint32_t kLookMax = 4096;
// Wrong bytes so often: the registry's copy is bad. Only readers ask for that chunk from then on.
constexpr unsigned kWrongMax = 4;

}  // namespace

FilePlace Content::Place() const {
  MutexLock lock(mu_);
  return place_;
}

void Content::Track(uint64_t offset, uint64_t size) {
  if (spec_.size <= core_->options.small_file_bytes) return;  // FetchAll had its turn
  if (!tracker_.OnRead(kind_, offset, size, std::chrono::steady_clock::now())) return;
  const std::shared_ptr<Planner> planner = core_->planner();
  // Also when all of it is here already: what comes next may not be.
  if (planner && file_ && file_->usable()) planner->Want(shared_from_this());
}

void Content::Replan() {
  std::optional<Status> why;
  {
    MutexLock lock(mu_);
    why = std::exchange(replan_, std::nullopt);
  }
  if (!why) return;
  const std::shared_ptr<Planner> planner = core_->planner();
  if (!planner) return;
  planner->Failed(*why);
  if (Plannable()) planner->Want(shared_from_this());
}

// The first chunk from `index` on that is neither here nor on its way; at most kLookMax further.
uint32_t Content::SkipTaken(uint32_t index) const {
  const uint32_t end = std::min(spec_.chunk_count, index + kLookMax);
  while (index < end) {
    const bool here = chunk(index).kind == format::ChunkKind::kZeros || StateOf(index) == cache::ChunkState::kPresent;
    const auto wrong = wrong_.find(index);
    const bool hopeless = wrong != wrong_.end() && wrong->second >= kWrongMax;
    if (!here && !hopeless && !flights_.contains(index)) break;
    ++index;
  }
  return index;
}

// New flights for absent chunks that lie side by side in the file and in the blob, within one range and `room`.
Content::Flights Content::TakeAbsent(uint32_t first, uint64_t room, uint64_t bytes_max) {
  const Source& from = sources_.front();
  Flights flights;
  uint64_t bytes = 0;
  uint64_t cost = 0;
  const format::Chunk* before = nullptr;
  for (uint32_t i = first; i < spec_.chunk_count; ++i) {
    const format::Chunk& c = from.layer->index->chunks[from.first_chunk + i];
    if (c.kind == format::ChunkKind::kZeros || StateOf(i) != cache::ChunkState::kAbsent || flights_.contains(i)) break;
    if (before != nullptr && before->blob_offset + before->blob_size != c.blob_offset) break;
    bytes += c.blob_size;
    cost += c.blob_size + c.size;
    if (cost > room || (!flights.empty() && (bytes > bytes_max || cost > core_->options.inflight_bytes_max / 4))) break;
    if (const auto wrong = wrong_.find(i); i != first && wrong != wrong_.end()) break;  // looked at when it is its turn
    auto flight = std::make_shared<Flight>(i);
    flight->planned = true;
    flights_.emplace(i, flight);
    flights.push_back(std::move(flight));
    before = &c;
  }
  return flights;
}

std::shared_ptr<Flight> Content::TakeUnverified(uint32_t index) {
  auto flight = std::make_shared<Flight>(index);
  flight->state = Flight::State::kVerifying;
  flight->planned = true;
  flights_.emplace(index, flight);
  return flight;
}

Content::Planned Content::PlanRange(uint64_t room, uint64_t bytes, RangeKind kind, uint64_t lead_max) {
  if (!Plannable()) return {};
  // Nothing is evicted for what nobody asked for.
  if (!(kind == RangeKind::kFill ? file_->HasSpare(bytes) : file_->HasRoom(bytes))) {
    const uint64_t lead = tracker_.Lead();
    const uint64_t lead_each = lead_max / std::max<uint64_t>(1, tracker_.cursors());
    if (kind != RangeKind::kReadAhead || lead >= lead_each || !file_->IsStuck(bytes)) return {.range = nullptr, .more = true, .full = true};
    bytes = std::min(bytes, lead_each - lead);
  }
  for (;;) {
    const uint64_t position = tracker_.NextPosition();
    if (position >= spec_.size) return {};
    Plan plan;
    uint64_t planned_to = 0;
    std::shared_ptr<Flight> unverified;
    {
      MutexLock lock(mu_);
      const uint32_t start = ChunkAt(position);
      const uint32_t index = SkipTaken(start);
      uint32_t end = index;
      if (index < spec_.chunk_count && index - start < kLookMax) {
        if (StateOf(index) == cache::ChunkState::kUnverified) {
          if (!core_->MayVerify()) return {nullptr, true};
          unverified = TakeUnverified(index);
          end = index + 1;
        } else {
          const Flights flights = TakeAbsent(index, room, bytes);
          if (flights.empty() && StateOf(index) == cache::ChunkState::kAbsent && !flights_.contains(index)) return {nullptr, true};
          MakeRanges(flights, &plan, kind);
          end = index + static_cast<uint32_t>(flights.size());
        }
      }
      planned_to = end < spec_.chunk_count ? chunk(end).file_offset : spec_.size;
    }
    tracker_.Planned(position, planned_to);
    if (unverified) core_->PostVerify([self = shared_from_this(), unverified] { self->Verify(unverified); });
    if (!plan.ranges.empty()) return {plan.ranges.front(), true};
  }
}

uint64_t Content::GiveBack(uint64_t bytes) {
  uint64_t given = 0;
  uint64_t from = 0;
  while (Plannable() && given < bytes) {
    const std::optional<ReadTracker::Part> part = tracker_.Behind(from);
    if (!part) break;
    uint32_t first = ChunkAt(part->begin);
    if (chunk(first).file_offset < part->begin) ++first;
    // One chunk in the middle is none: it may be read from both sides.
    uint32_t end = first;
    uint64_t size = 0;
    const auto goes = [&](uint32_t i) { return i < spec_.chunk_count && chunk(i).file_offset + chunk(i).size <= part->end; };
    while (goes(end) && chunk(end).kind != format::ChunkKind::kZeros && StateOf(end) == cache::ChunkState::kPresent && given + size < bytes) size += chunk(end++).size;
    if (end == first && !goes(first)) {  // less than a chunk, until the reader is further
      from = part->begin + 1;
      continue;
    }
    if (end > first) given += file_->GiveBack(first, end, chunk(first).file_offset, size);
    tracker_.GaveBack(part->begin, end > first ? chunk(first).file_offset + size : chunk(end).file_offset + chunk(end).size);
  }
  return given;
}

}  // namespace headrace::stream
