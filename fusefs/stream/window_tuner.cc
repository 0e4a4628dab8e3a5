#include "fusefs/stream/window_tuner.h"

#include <algorithm>

namespace headrace::stream {
namespace {

// A step up must bring this much more, or it was for nothing: half of what a step of a half could bring at best is far above noise.
constexpr double kWorthwhile = 1.08;
constexpr std::chrono::seconds kRest{5};
constexpr uint64_t kRangeFirst = uint64_t{4} << 20;  // before anything is known of the wire
constexpr uint64_t kRangeLeast = uint64_t{1} << 20;  // below this the requests themselves begin to cost

}  // namespace

WindowTuner::WindowTuner(unsigned first, unsigned most)
    : first_(std::max(1u, std::min(first, most))), most_(std::max(1u, most)), window_(first_) {}

void WindowTuner::Set(unsigned window) { window_ = std::clamp(window, first_, most_); }

uint64_t WindowTuner::RangeBytes(uint64_t most) const {
  const double horizon = std::chrono::duration<double>(kHorizon).count();
  const uint64_t wanted = rate_ == 0 ? kRangeFirst : static_cast<uint64_t>(rate_ * horizon / window_);
  return std::clamp(wanted, std::min(kRangeLeast, most), most);
}

bool WindowTuner::Tick(TimePoint now, uint64_t bytes, bool full) {
  const auto passed = std::chrono::duration<double>(now - since_).count();
  if (since_ == TimePoint{} || !full) {
    // Without pressure nothing can be learned.
    since_ = now;
    bytes_at_ = bytes;
    before_ = 0;
    return false;
  }
  if (passed < std::chrono::duration<double>(kTick).count()) return false;
  const double rate = static_cast<double>(bytes - bytes_at_) / passed;
  since_ = now;
  bytes_at_ = bytes;
  rate_ = rate_ == 0 ? rate : (rate_ + rate) / 2;
  const unsigned old = window_;
  if (before_ != 0 && rate < rate_before_ * kWorthwhile) {
    Set(before_);
    before_ = 0;
    rest_until_ = now + kRest;
  } else if (now >= rest_until_ && window_ < most_) {
    before_ = window_;
    rate_before_ = rate;
    Set(window_ + std::max(1u, window_ / 2));
  } else {
    before_ = 0;
  }
  return window_ != old;
}

}  // namespace headrace::stream
