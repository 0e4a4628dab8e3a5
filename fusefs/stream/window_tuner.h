// WindowTuner: how many ranges to have under way. More connections fill a long or per-connection limited path sooner; beyond that they only cost
// memory and take turns from readers that miss. So: grow while growing pays, go back one step when it does not, look again after a while.
// Pure: fed with what arrived, by one thread. Internal to stream/.
#ifndef HEADRACE_FUSEFS_STREAM_WINDOW_TUNER_H_
#define HEADRACE_FUSEFS_STREAM_WINDOW_TUNER_H_

#include <cstdint>

#include "fusefs/stream/read_op.h"

namespace headrace::stream {

class WindowTuner {
 public:
  static constexpr std::chrono::milliseconds kTick{200};
  static constexpr std::chrono::milliseconds kHorizon{500};

  // The window stays in [first, most].
  WindowTuner(unsigned first, unsigned most);
  unsigned window() const { return window_; }
  // How large a range should be so that what is under way arrives within kHorizon: behind more than that a reader that jumps would wait.
  uint64_t RangeBytes(uint64_t most) const;
  // `bytes` arrived ever until `now`; `full`: the window was the limit since the last call (not the budget, not a lack of work).
  // True: the window changed.
  bool Tick(TimePoint now, uint64_t bytes, bool full);

 private:
  void Set(unsigned window);

  const unsigned first_;
  const unsigned most_;
  unsigned window_;
  unsigned before_ = 0;      // the window before the last step up; 0: no step is being judged
  double rate_before_ = 0;   // bytes a second with it
  double rate_ = 0;          // the last that was measured under pressure; 0: none yet
  TimePoint since_{};        // start of the measurement
  uint64_t bytes_at_ = 0;
  TimePoint rest_until_{};   // no steps until then
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_WINDOW_TUNER_H_
