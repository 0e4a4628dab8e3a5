// ContentFile: chunks that leave a file which is in use, so that there is room for others (README.md, "Giving back").
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "fusefs/base/log.h"
#include "fusefs/cache/content_parts.h"
#include "fusefs/cache/map_format.h"
#include "fusefs/cache/store_shared.h"

namespace headrace::cache {

ContentFile::ChunkTurn::ChunkTurn(ContentFile& file, uint32_t chunk) : file_(file), chunk_(chunk) {
  MutexLock lock(file.mu_);
  mine_ = chunk < file.leaving_.first || chunk >= file.leaving_.second;
  if (mine_) file.busy_.push_back(chunk);
}

ContentFile::ChunkTurn::~ChunkTurn() {
  if (!mine_) return;
  MutexLock lock(file_.mu_);
  file_.busy_.erase(std::find(file_.busy_.begin(), file_.busy_.end(), chunk_));
}

uint64_t ContentFile::CacheBytes() const { return shared_->space.Capacity(); }

bool ContentFile::IsStuck(uint64_t bytes) const { return shared_->space.stuck() && !HasSpare(bytes); }

bool ContentFile::BeginLeaving(uint32_t first, uint32_t end) {
  MutexLock lock(mu_);
  if (sealing_ || sealed_.load(std::memory_order_relaxed) || missing_.load(std::memory_order_acquire) == 0 || leaving_.first != leaving_.second) return false;
  for (uint32_t i = first; i < end; ++i) {
    if (states_[i].load(std::memory_order_acquire) != ChunkState::kPresent) return false;
  }
  if (std::any_of(busy_.begin(), busy_.end(), [&](uint32_t chunk) { return chunk >= first && chunk < end; })) return false;
  leaving_ = {first, end};
  // Before the first byte goes: who read one of them since looks at the epoch afterwards, and finds another one.
  for (uint32_t i = first; i < end; ++i) states_[i].store(ChunkState::kAbsent, std::memory_order_release);
  missing_.fetch_add(end - first, std::memory_order_acq_rel);
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  give_backs_.fetch_add(1, std::memory_order_acq_rel);
  return true;
}

uint64_t ContentFile::GiveBack(uint32_t first, uint32_t end, uint64_t offset, uint64_t size) {
  HEADRACE_CHECK(first <= end && end <= spec_.chunk_count && offset <= spec_.size && size <= spec_.size - offset);
  if (first == end || !usable() || !states_ || !data_.valid() || !shared_->makes_holes.load(std::memory_order_relaxed)) return 0;
  if (shared_->pins.IsPinned(spec_.id) || !BeginChange().ok()) return 0;
  const bool leaving = BeginLeaving(first, end);
  bool gone = false;
  if (leaving) {
    // A mark that stays for want of a disk is none that anybody believes: the digest is compared first.
    const std::vector<uint8_t> absent(size_t{end - first} * kMapMarkSize);
    const Status unmarked = PwriteFull(map_.get(), absent, kMapMarksOffset + uint64_t{first} * kMapMarkSize);
    if (!unmarked.ok()) log::Debug("marks not taken back path={} error=\"{}\"", map_path_, unmarked.ToString());
    gone = ::fallocate(data_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(size)) == 0;
    if (!gone) {
      shared_->makes_holes.store(false, std::memory_order_relaxed);  // chunks would be lost for nothing, each time
      log::Warn("the file system of the cache makes no holes, files in use give nothing back path={} errno={}", data_path_, errno);
    }
  }
  const Status ended = EndChange();
  if (leaving) {
    MutexLock lock(mu_);
    leaving_ = {0, 0};
  }
  if (!gone || !ended.ok()) return 0;
  Metrics::Add(shared_->metrics.cache_given_back_bytes, static_cast<int64_t>(size));
  return size;
}

}  // namespace headrace::cache
