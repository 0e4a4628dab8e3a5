// Evictor: removes contents until the cache is within its limits again. Internal to cache/; ContentStore owns it.
//
// Order: contents that no mount shows, least recently used first; then, as a last resort, idle contents that a mount shows (they come back from the registry when they are read). Never one that
// this or another process has open, that the kernel serves by itself (passthrough holds a lock on the data file), or that is pinned. A content goes whole.
// Threads: one of its own ("cache-evict"); public methods from any thread; Prune waits for that thread. Blocks on the local disk. Nobody who reads waits for it: what is held over I/O is the
// stripe of `StoreShared::opening` of the one content that goes, over its names' removal, while the freeing of its bytes happens after that.
#ifndef HEADRACE_FUSEFS_CACHE_EVICTOR_H_
#define HEADRACE_FUSEFS_CACHE_EVICTOR_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/cache/content_store.h"

namespace headrace::cache {

class Evictor {
 public:
  // `max_age`: contents that no mount shows go after so long without use; 0: never.
  Evictor(ContentStore& store, std::chrono::seconds max_age);
  ~Evictor();

  void Start();
  // Joins; nothing is evicted any more. The store's `mounted` is not asked any more.
  void Stop();
  void SetMaxAge(std::chrono::seconds max_age) { max_age_s_.store(max_age.count(), std::memory_order_relaxed); }

  // On its own thread, in between passes; Cancelled if it is stopped. Waits.
  Result<Pruned> Prune(const PruneRequest& request);

 private:
  struct Task {
    PruneRequest request;
    std::optional<Pruned> done;
  };

  void Run();
  // Frees `excess` bytes and more, as the space says; what it freed.
  uint64_t MakeRoom();
  Pruned RunPrune(const PruneRequest& request);
  // All that may go now, in the order in which it goes; and what all contents take.
  std::vector<StoredContent> Candidates(uint64_t* used = nullptr);
  void ForgetOld();
  bool TakeTask();

  ContentStore& store_;
  std::atomic<int64_t> max_age_s_;
  std::thread thread_;
  Mutex mu_;
  CondVar changed_;
  std::deque<std::shared_ptr<Task>> tasks_ HR_GUARDED_BY(mu_);
  // Its thread only: candidates of the last look that are left, so that a pass does not look at every file again.
  std::deque<StoredContent> left_;
  std::chrono::steady_clock::time_point left_since_{};
  bool said_full_ = false;
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_EVICTOR_H_
