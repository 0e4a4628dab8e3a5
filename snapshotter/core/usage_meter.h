// UsageMeter: how much disk a snapshot takes, without making anybody wait for a tree walk: one
// background thread walks, callers get the latest result. Commit must be fast (it runs inside
// containerd's write transaction) and Usage is asked for every ten seconds for every snapshot, so
// neither may walk itself. Thread-safe. Get waits for a walk at most Options::wait. The destructor
// stops the walk that is under way.
#ifndef HEADRACE_SNAPSHOTTER_CORE_USAGE_METER_H_
#define HEADRACE_SNAPSHOTTER_CORE_USAGE_METER_H_

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "fusefs/base/executor.h"
#include "fusefs/base/mutex.h"
#include "snapshotter/store/info.h"

namespace headrace::snapshotter {

class UsageMeter {
 public:
  struct Options {
    std::chrono::milliseconds max_age{5000};  // half of the CRI plugin's polling interval
    std::chrono::milliseconds wait{500};
    // Called on the background thread with the result of MeasureForGood.
    std::function<void(uint64_t id, Usage usage)> on_final;
  };
  explicit UsageMeter(Options options);
  ~UsageMeter();

  // Of a directory that may change: at most max_age old if it was measured within `wait`, else the
  // last result (at first nothing).
  Usage Get(uint64_t id, const std::string& path);
  // The directory will not change any more: it is measured (again), and the result goes to
  // on_final.
  void MeasureForGood(uint64_t id, const std::string& path);
  void Forget(uint64_t id);

 private:
  struct Entry {
    Usage usage;
    bool known = false;
    bool running = false;
    bool final = false;
    uint64_t generation = 0;  // results of walks that began before MeasureForGood are not taken
    std::chrono::steady_clock::time_point measured_at;
  };
  void Start(uint64_t id, Entry* entry, const std::string& path) HR_REQUIRES(mu_);
  void Finish(uint64_t id, uint64_t generation, const std::string& path);

  Options options_;
  std::atomic<bool> stop_{false};
  Mutex mu_;
  CondVar done_;
  std::map<uint64_t, Entry> entries_ HR_GUARDED_BY(mu_);
  uint64_t generations_ HR_GUARDED_BY(mu_) = 0;
  std::unique_ptr<ThreadPool> pool_;  // last: joined before the rest goes
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_CORE_USAGE_METER_H_
