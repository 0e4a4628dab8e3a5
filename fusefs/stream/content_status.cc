// What a Content tells of itself to people.
#include <algorithm>
#include <chrono>

#include "fusefs/stream/content.h"

namespace headrace::stream {

uint64_t Content::resident() const {
  if (!file_) return 0;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < spec_.chunk_count; ++i) {
    if (StateOf(i) == cache::ChunkState::kPresent) bytes += chunk(i).size;
  }
  return bytes;
}

void Content::CountAnswer(std::chrono::nanoseconds waited, uint64_t bytes, const Status& status) {
  stalls_.fetch_add(waited.count() > 0 ? 1 : 0, std::memory_order_relaxed);
  stall_us_.fetch_add(static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(waited).count()), std::memory_order_relaxed);
  if (status.ok()) {
    read_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    return;
  }
  errors_.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(mu_);
  read_error_ = status;
}

// The worst of the causes that hold for the chunks that are waited for.
void Content::Describe(FileState& state) const {
  state.open = true;
  state.reading = tracker_.Active(std::chrono::steady_clock::now());
  state.read_bytes = read_bytes_.load(std::memory_order_relaxed);
  state.stalls = stalls_.load(std::memory_order_relaxed);
  state.stall_us = stall_us_.load(std::memory_order_relaxed);
  state.errors = errors_.load(std::memory_order_relaxed);
  static constexpr std::string_view kCauses[] = {"", "verifying", "fetching", "queued", "retrying"};
  size_t worst = 0;
  MutexLock lock(mu_);
  Status error = read_error_;
  for (const auto& [index, flight] : flights_) {
    if (flight->waiters.empty()) continue;
    state.waiting += flight->waiters.size();
    size_t cause = 2;
    if (flight->state == Flight::State::kVerifying || flight->state == Flight::State::kReady) cause = 1;
    if (flight->state == Flight::State::kRange && flight->range && !flight->range->has_turn()) cause = 3;
    if (flight->state == Flight::State::kPaused) cause = 4;
    if (cause >= worst && !flight->last_error.ok()) error = flight->last_error;
    worst = std::max(worst, cause);
  }
  state.cause = kCauses[worst];
  if (!error.ok()) state.last_error = error.ToString();
}

}  // namespace headrace::stream
