// Space: how many bytes of the disk the cache uses, how many it may use, and who is to make room. Internal to cache/.
//
// Two limits: a budget (bytes of all files of the cache, as the file system counts them) and a floor (bytes that stay free on its file system, whoever fills it). Whoever is about to write asks
// first (Reserve) and is refused, never kept waiting, when the bytes do not fit; the evictor is woken long before that.
// Bytes are those of st_blocks, so holes cost nothing. Any thread; one small lock, a leaf, and no I/O but statvfs(3).
#ifndef HEADRACE_FUSEFS_CACHE_SPACE_H_
#define HEADRACE_FUSEFS_CACHE_SPACE_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "fusefs/base/metrics.h"
#include "fusefs/base/mutex.h"

namespace headrace::cache {

struct SpaceLimits {
  uint64_t budget = 0;       // bytes, never exceeded; 0: none
  unsigned low_percent = 90; // of the budget: eviction goes on down to this; it begins half way between the two
  uint64_t free_min = 0;     // bytes that stay free on the file system, but at most a twentieth of it; 0: none
};

class Space {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  Space(std::string root, const SpaceLimits& limits, Metrics& metrics);

  // Limits that are in force from now on (configuration reload).
  void SetLimits(const SpaceLimits& limits);
  SpaceLimits limits() const;

  // True: so many bytes may be written; to be given back with Release when they were (and counted with Add) or not. False: full; counted, and the evictor is woken.
  bool Reserve(uint64_t bytes);
  void Release(uint64_t bytes) { reserved_.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_acq_rel); }  // who sees them given back sees them counted
  // The same, but waits for the evictor until then. Not for readers.
  bool ReserveUntil(uint64_t bytes, TimePoint deadline);
  // Reserve would do, as far as one can know. Counts nothing, wakes nobody.
  bool HasRoom(uint64_t bytes) const;
  // HasRoomAhead without anything being evicted for it.
  bool HasSpare(uint64_t bytes) const;
  // So many bytes come next without having asked: room is made for them, and whoever asks whether more may come (HasRoomAhead) is told of what they leave.
  void SetUnderWay(uint64_t bytes) { under_way_.store(bytes, std::memory_order_relaxed); }
  // HasRoom behind what is under way. If not, the evictor is woken.
  bool HasRoomAhead(uint64_t bytes);
  // What is on the disk grew or shrank.
  void Add(int64_t change);

  // What was found on the disk at the start: until then nothing fits into a budget.
  void Counted(uint64_t bytes);
  bool counted() const { return counted_.load(std::memory_order_acquire); }
  // Another one whenever Add was called: a sum that was made of the files meanwhile is right if it did not change.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }
  // The sum of all files as it was found. Believed if it is far from what was counted (somebody removed files behind our back) and nothing was counted since `version`; a file that is being
  // written or removed just now may stand in one of the two only, so small differences mean nothing.
  void Correct(uint64_t bytes, uint64_t version);

  uint64_t used() const;
  // The budget; without one what is used and what is free above the floor.
  uint64_t Capacity() const;
  // Bytes free on the file system, as statvfs(3) says now; 0 if it does not.
  uint64_t Free() const;
  // The floor in force.
  uint64_t Floor() const;
  // Bytes that are to be evicted now: 0 below the mark at which eviction begins, else down to where it ends.
  uint64_t Excess() const;
  // The same once eviction has begun: down to where it ends.
  uint64_t StillExcess() const;

  // For the evictor's thread: returns when somebody was refused or use came above the mark, when `Stop` was called, or at the deadline. True: there is work.
  bool WaitForWork(TimePoint deadline);
  // Room was made, or none can be: those who wait look again.
  void PassEnded();
  // The same after a pass that could free nothing: at least until `earliest`, then until something was let go since `let_go()` was asked, which is work, or until `latest`. Hurry and Stop end it.
  void Rest(uint64_t let_go, TimePoint earliest, TimePoint latest);
  void Wake();
  // As Wake, and whoever rests stops resting.
  void Hurry();
  // A content that was in use may be evicted now. Cheap while nobody rests.
  void LetGo();
  // The evictor's last look found nothing that may go, and there is too much.
  bool stuck() const { return stuck_.load(std::memory_order_acquire); }
  void SetStuck(bool stuck) { stuck_.store(stuck, std::memory_order_release); }
  uint64_t let_go() const { return let_go_.load(std::memory_order_acquire); }
  void Stop();
  bool stopping() const { return stopping_.load(std::memory_order_acquire); }

 private:
  bool Fits(uint64_t bytes);
  uint64_t ExcessOver(double budget_share, double floor_share, uint64_t more = 0) const;

  const std::string root_;
  Metrics& metrics_;
  std::atomic<uint64_t> budget_{0}, low_percent_{90}, free_min_{0};
  std::atomic<int64_t> used_{0};
  std::atomic<int64_t> reserved_{0};
  std::atomic<uint64_t> under_way_{0};
  std::atomic<uint64_t> version_{0};
  std::atomic<bool> counted_{false};
  std::atomic<uint64_t> let_go_{0};
  std::atomic<bool> resting_{false};
  std::atomic<bool> stuck_{false};
  std::atomic<bool> stopping_{false};
  // Bytes above the floor that may still be written before the file system is asked again.
  std::atomic<int64_t> allowance_{0};
  Mutex mu_;
  CondVar changed_;
  bool work_ HR_GUARDED_BY(mu_) = false;
  bool hurry_ HR_GUARDED_BY(mu_) = false;
  uint64_t passes_ HR_GUARDED_BY(mu_) = 0;
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_SPACE_H_
