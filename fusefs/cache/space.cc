#include "fusefs/cache/space.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <utility>

namespace headrace::cache {
namespace {

// The floor is looked at again after so many bytes: others write to the file system, too.
constexpr int64_t kLookBytes = int64_t{16} << 20;
constexpr uint64_t kOffMin = uint64_t{64} << 20;
// Eviction begins when less than this times the floor is free, and ends at the second.
constexpr double kFloorBegin = 1.25;
constexpr double kFloorEnd = 1.5;

}  // namespace

Space::Space(std::string root, const SpaceLimits& limits, Metrics& metrics) : root_(std::move(root)), metrics_(metrics) { SetLimits(limits); }

void Space::SetLimits(const SpaceLimits& limits) {
  budget_.store(limits.budget, std::memory_order_relaxed);
  low_percent_.store(limits.low_percent, std::memory_order_relaxed);
  free_min_.store(limits.free_min, std::memory_order_relaxed);
  allowance_.store(0, std::memory_order_relaxed);
  metrics_.cache_budget_bytes.store(static_cast<int64_t>(limits.budget), std::memory_order_relaxed);
  Wake();
}

SpaceLimits Space::limits() const {
  return {budget_.load(std::memory_order_relaxed), static_cast<unsigned>(low_percent_.load(std::memory_order_relaxed)), free_min_.load(std::memory_order_relaxed)};
}

uint64_t Space::used() const { return static_cast<uint64_t>(std::max<int64_t>(0, used_.load(std::memory_order_relaxed))); }

uint64_t Space::Capacity() const {
  if (const uint64_t budget = budget_.load(std::memory_order_relaxed); budget != 0) return budget;
  const uint64_t free = Free();
  return used() + free - std::min(free, Floor());
}

uint64_t Space::Free() const {
  struct statvfs fs;
  if (::statvfs(root_.c_str(), &fs) != 0) return 0;
  return static_cast<uint64_t>(fs.f_bavail) * fs.f_frsize;
}

uint64_t Space::Floor() const {
  const uint64_t set = free_min_.load(std::memory_order_relaxed);
  struct statvfs fs;
  if (set == 0 || ::statvfs(root_.c_str(), &fs) != 0) return 0;
  return std::min(set, static_cast<uint64_t>(fs.f_blocks) * fs.f_frsize / 20);
}

// Within the floor: by what was found free last, less what was promised since.
bool Space::Fits(uint64_t bytes) {
  if (free_min_.load(std::memory_order_relaxed) == 0) return true;
  const int64_t want = static_cast<int64_t>(bytes);
  if (allowance_.fetch_sub(want, std::memory_order_relaxed) >= want) return true;
  const int64_t above = static_cast<int64_t>(Free()) - static_cast<int64_t>(Floor());
  if (above < want) return false;
  allowance_.store(std::min(above - want, kLookBytes), std::memory_order_relaxed);
  return true;
}

bool Space::HasRoom(uint64_t bytes) const {
  const uint64_t budget = budget_.load(std::memory_order_relaxed);
  if (budget != 0 && (!counted() || used() + static_cast<uint64_t>(std::max<int64_t>(0, reserved_.load(std::memory_order_relaxed))) + bytes > budget)) return false;
  if (free_min_.load(std::memory_order_relaxed) == 0 || allowance_.load(std::memory_order_relaxed) >= static_cast<int64_t>(bytes)) return true;
  return Free() >= Floor() + bytes;
}

bool Space::Reserve(uint64_t bytes) {
  const int64_t reserved = reserved_.fetch_add(static_cast<int64_t>(bytes), std::memory_order_acq_rel) + static_cast<int64_t>(bytes);
  const uint64_t budget = budget_.load(std::memory_order_relaxed);
  const uint64_t after = used() + static_cast<uint64_t>(std::max<int64_t>(0, reserved));
  const bool within = budget == 0 || (counted() && after <= budget);
  if (within && Fits(bytes)) {
    const uint64_t low = budget / 100 * low_percent_.load(std::memory_order_relaxed);
    if (budget != 0 && after > low + (budget - low) / 2) Wake();
    return true;
  }
  Release(bytes);
  Metrics::Add(metrics_.cache_writes_refused);
  Wake();
  return false;
}

bool Space::HasRoomAhead(uint64_t bytes) {
  if (HasRoom(under_way_.load(std::memory_order_relaxed) + bytes)) return true;
  Wake();
  return false;
}

bool Space::ReserveUntil(uint64_t bytes, TimePoint deadline) {
  for (;;) {
    uint64_t passes = 0;
    {
      MutexLock lock(mu_);
      passes = passes_;
    }
    if (Reserve(bytes)) return true;
    MutexLock lock(mu_);
    if (!changed_.WaitUntil(mu_, deadline, [&] { return passes_ != passes || stopping(); }) || stopping()) return false;
  }
}

void Space::Add(int64_t change) {
  if (change == 0) return;
  const int64_t now = used_.fetch_add(change, std::memory_order_relaxed) + change;
  version_.fetch_add(1, std::memory_order_acq_rel);
  metrics_.cache_used_bytes.store(std::max<int64_t>(0, now), std::memory_order_relaxed);
}

void Space::Counted(uint64_t bytes) {
  Add(static_cast<int64_t>(bytes));
  counted_.store(true, std::memory_order_release);
  Wake();
}

void Space::Correct(uint64_t bytes, uint64_t version) {
  const uint64_t before = used();
  const uint64_t off = bytes > before ? bytes - before : before - bytes;
  if (this->version() != version || off < std::max<uint64_t>(kOffMin, before / 20)) return;
  used_.store(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  metrics_.cache_used_bytes.store(static_cast<int64_t>(bytes), std::memory_order_relaxed);
}

// `budget_share` of what lies between the budget and its low mark may be used.
uint64_t Space::ExcessOver(double budget_share, double floor_share, uint64_t more) const {
  more += under_way_.load(std::memory_order_relaxed);
  uint64_t excess = 0;
  if (const uint64_t budget = budget_.load(std::memory_order_relaxed); budget != 0) {
    const uint64_t low = budget / 100 * low_percent_.load(std::memory_order_relaxed);
    const uint64_t mark = low + static_cast<uint64_t>(static_cast<double>(budget - low) * budget_share);
    if (used() + more > mark) excess = used() + more - low;
  }
  if (const uint64_t floor = Floor(); floor != 0) {
    const uint64_t free = Free() - std::min(Free(), more);
    if (static_cast<double>(free) < static_cast<double>(floor) * floor_share) {
      excess = std::max(excess, static_cast<uint64_t>(static_cast<double>(floor) * kFloorEnd) - free);
    }
  }
  return excess;
}

uint64_t Space::Excess() const { return ExcessOver(0.5, kFloorBegin); }
uint64_t Space::StillExcess() const { return ExcessOver(0, kFloorEnd); }

bool Space::HasSpare(uint64_t bytes) const { return HasRoom(under_way_.load(std::memory_order_relaxed) + bytes) && ExcessOver(0.5, kFloorBegin, bytes) == 0; }

bool Space::WaitForWork(TimePoint deadline) {
  MutexLock lock(mu_);
  changed_.WaitUntil(mu_, deadline, [&] { return work_ || stopping(); });
  hurry_ = false;
  return std::exchange(work_, false) && !stopping();
}

void Space::Rest(uint64_t let_go, TimePoint earliest, TimePoint latest) {
  MutexLock lock(mu_);
  if (changed_.WaitUntil(mu_, earliest, [&] { return hurry_ || stopping(); })) return;
  // Who lets go counts first and asks for this afterwards: one of the two sees the other. So both are sequentially consistent.
  resting_.store(true);
  if (changed_.WaitUntil(mu_, latest, [&] { return hurry_ || stopping() || let_go_.load() != let_go; }) && let_go_.load() != let_go) work_ = true;
  resting_.store(false);
}

void Space::LetGo() {
  let_go_.fetch_add(1);
  if (!resting_.load()) return;
  MutexLock lock(mu_);
  changed_.NotifyAll();
}

void Space::Hurry() {
  MutexLock lock(mu_);
  work_ = hurry_ = true;
  changed_.NotifyAll();
}

void Space::PassEnded() {
  MutexLock lock(mu_);
  ++passes_;
  changed_.NotifyAll();
}

void Space::Wake() {
  MutexLock lock(mu_);
  if (std::exchange(work_, true)) return;
  changed_.NotifyAll();
}

void Space::Stop() {
  MutexLock lock(mu_);
  stopping_.store(true, std::memory_order_release);
  changed_.NotifyAll();
}

}  // namespace headrace::cache
