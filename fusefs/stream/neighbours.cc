#include "fusefs/stream/neighbours.h"

#include <algorithm>

namespace headrace::stream {

void Neighbours::Opened(const FilePlace& place) {
  const auto [it, first] = walks_.try_emplace(place.layer->blob.digest);
  Walk& walk = it->second;
  const uint32_t distance = place.entry > walk.last ? place.entry - walk.last : walk.last - place.entry;
  if (first) {
    walk.ahead = 0;  // one file alone says nothing
    walk.planned = place.entry + 1;
  } else if (distance <= kNear) {
    walk.ahead = std::clamp(walk.ahead * 2, kAheadFirst, kAheadMax);
  } else {
    walk.ahead /= 2;
    walk.planned = place.entry + 1;
  }
  walk.last = place.entry;
  walk.planned = std::max(walk.planned, place.entry + 1);
  const auto& entries = place.layer->index->entries;
  uint64_t bytes = 0;
  uint32_t files = 0;
  for (uint32_t i = place.entry + 1; i < entries.size() && i - place.entry <= kNear && files < walk.ahead && bytes < kAheadBytes; ++i) {
    const format::Entry& entry = entries[i];
    if (entry.type != format::EntryType::kRegular || entry.size == 0 || entry.size > small_bytes_) continue;
    bytes += entry.size;
    ++files;
    if (i < walk.planned) continue;
    if (queue_.size() >= kQueueMax) return;
    queue_.push_back({place.layer, i});
    walk.planned = i + 1;
  }
}

std::optional<FilePlace> Neighbours::Take() {
  if (queue_.empty()) return std::nullopt;
  FilePlace place = std::move(queue_.front());
  queue_.pop_front();
  return place;
}

void Neighbours::Drop(const Digest& blob) {
  walks_.erase(blob);
  std::erase_if(queue_, [&](const FilePlace& place) { return place.layer->blob.digest == blob; });
}

}  // namespace headrace::stream
