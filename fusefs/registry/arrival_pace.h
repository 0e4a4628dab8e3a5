// ArrivalPace: when the network thread had better let bytes gather. Internal to registry/; one thread.
#ifndef HEADRACE_FUSEFS_REGISTRY_ARRIVAL_PACE_H_
#define HEADRACE_FUSEFS_REGISTRY_ARRIVAL_PACE_H_

#include <chrono>
#include <cstdint>

namespace headrace::registry {

// Bodies come in pieces of a packet, and libcurl looks at every transfer whenever it is woken: with a few dozen of them that costs more than decoding does. While much is on its way the thread lets
// bytes gather for a millisecond instead (what network cards do, too).
class ArrivalPace {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // After a round, with the bytes that came so far. True: they come fast, and this round brought few.
  bool ShouldGather(int64_t total, TimePoint now) {
    const int64_t moved = total - total_;
    total_ = total;
    if (now - window_begin_ >= kWindow) {
      fast_ = total - window_total_ >= kFastBytes && now - window_begin_ < 2 * kWindow;
      window_begin_ = now;
      window_total_ = total;
    }
    return fast_ && moved > 0 && moved < kRoundBytes;
  }

 private:
  static constexpr std::chrono::milliseconds kWindow{10};
  static constexpr int64_t kFastBytes = 256 << 10;   // in a window: 200 Mbit/s
  static constexpr int64_t kRoundBytes = 256 << 10;  // a round with more is worth its price
  int64_t total_ = 0;
  int64_t window_total_ = 0;
  TimePoint window_begin_{};
  bool fast_ = false;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_ARRIVAL_PACE_H_
