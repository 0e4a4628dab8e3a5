// Retries of blocking calls: which failures are worth another try, and how long to pause between two.
// Backoff is used by one thread. Nothing blocks.
#ifndef HEADRACE_FUSEFS_REGISTRY_RETRY_H_
#define HEADRACE_FUSEFS_REGISTRY_RETRY_H_

#include <algorithm>
#include <chrono>
#include <random>

#include "fusefs/base/status.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {

// Network trouble, time-outs, 429 and 5xx. Not: what a registry refuses for good.
inline bool WorthRetrying(const Status& status) {
  return status.code() == StatusCode::kUnavailable || status.code() == StatusCode::kDeadlineExceeded ||
         status.code() == StatusCode::kResourceExhausted;
}

// Doubling pauses, each drawn between half and all of its size so that many clients do not come back at once.
class Backoff {
 public:
  Backoff() : random_(std::random_device{}()) {}
  std::chrono::milliseconds Next() {
    const auto pause = pause_;
    pause_ = std::min(pause_ * 2, std::chrono::duration_cast<std::chrono::milliseconds>(kRetryPauseMax));
    std::uniform_int_distribution<int64_t> draw(pause.count() / 2, pause.count());
    return std::chrono::milliseconds(draw(random_));
  }
  void Reset() { pause_ = kRetryPauseMin; }

 private:
  std::chrono::milliseconds pause_ = kRetryPauseMin;
  std::minstd_rand random_;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_RETRY_H_
