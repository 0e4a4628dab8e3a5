// Prefetch: fills the cache with every file of some layers, as fast as the registry gives them, and tells how far it is. Runs on the caller's thread until all is here, the caller
// gives up, or nothing came for a while. Files are fetched some at a time, in the order of the layers; readers overtake.
// Errors: Cancelled; ResourceExhausted: the cache has no room for more; Unavailable: nothing came for `stall`.
#ifndef HEADRACE_FUSEFS_DAEMON_PREFETCH_H_
#define HEADRACE_FUSEFS_DAEMON_PREFETCH_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/stream/streamer.h"

namespace headrace::daemon {

struct PrefetchState {
  uint64_t total_bytes = 0;  // decoded
  uint64_t done_bytes = 0;   // of these, in the cache and verified
  uint64_t files = 0;
  uint64_t done_files = 0;
};

struct PrefetchOptions {
  std::chrono::milliseconds look{50};       // at what has come
  std::chrono::milliseconds report{500};
  std::chrono::milliseconds ask_again{5'000};
  std::chrono::milliseconds stall{120'000};
  std::chrono::milliseconds full{10'000};   // so long without room in the cache
};

// `report` is called now and then, and at the end; false: the caller gives up.
Status Prefetch(const std::vector<std::shared_ptr<const stream::LayerSource>>& layers, stream::Streamer& streamer, cache::ContentStore& cache, const PrefetchOptions& options,
                const std::function<bool(const PrefetchState&)>& report);

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_PREFETCH_H_
