// What the ContentFiles of one store have in common. Internal to cache/.
#ifndef HEADRACE_FUSEFS_CACHE_STORE_SHARED_H_
#define HEADRACE_FUSEFS_CACHE_STORE_SHARED_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "fusefs/base/executor.h"
#include "fusefs/base/metrics.h"

namespace headrace::cache {

struct StoreShared {
  explicit StoreShared(Metrics& m) : metrics(m) {}

  // False while writing rests after a failure.
  bool MayWrite() const {
    return std::chrono::steady_clock::now().time_since_epoch().count() >=
           write_again_at.load(std::memory_order_relaxed);
  }
  // Counts a failed write and lets writing rest. True if the caller should log it: once each pause.
  bool WriteFailed() {
    Metrics::Add(metrics.cache_write_errors);
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    const int64_t next = (now + std::chrono::steady_clock::duration(write_pause)).count();
    const int64_t before = write_again_at.exchange(next, std::memory_order_relaxed);
    return before <= now.count();
  }

  Metrics& metrics;
  std::string boot_id;
  std::chrono::milliseconds write_pause{0};
  ThreadPool* sealer = nullptr;
  std::atomic<int64_t> write_again_at{INT64_MIN};  // steady_clock ticks
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_STORE_SHARED_H_
