// Gate: lets callbacks of other people's threads (network, pool, timer) into an object until it closes, and lets the closer wait
// for those that are inside. What is inside never blocks, so Close is short. REQUIRES: Close is not called from inside.
#ifndef HEADRACE_FUSEFS_STREAM_GATE_H_
#define HEADRACE_FUSEFS_STREAM_GATE_H_

#include <chrono>
#include <cstdint>

#include "fusefs/base/mutex.h"

namespace headrace::stream {

class Gate {
 public:
  class Pass {
   public:
    explicit Pass(Gate& gate) : gate_(gate.Enter() ? &gate : nullptr) {}
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave();
    }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    Gate* gate_;
  };

  // Nobody enters any more; returns when nobody is inside.
  void Close() {
    MutexLock lock(mu_);
    closed_ = true;
    while (!empty_.WaitFor(mu_, std::chrono::seconds(1), [this] { return inside_ == 0; })) {
    }
  }

 private:
  bool Enter() {
    MutexLock lock(mu_);
    if (closed_) return false;
    ++inside_;
    return true;
  }
  void Leave() {
    MutexLock lock(mu_);
    if (--inside_ == 0 && closed_) empty_.NotifyAll();
  }

  Mutex mu_;
  CondVar empty_;
  uint64_t inside_ HR_GUARDED_BY(mu_) = 0;
  bool closed_ HR_GUARDED_BY(mu_) = false;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_GATE_H_
