// Sets of things that are being worked on: ids that Cleanup must not take for leftovers, and
// targets that only one call may make. Thread-safe; nothing blocks except TakeTurn, up to its
// deadline.
#ifndef HEADRACE_SNAPSHOTTER_CORE_IN_FLIGHT_H_
#define HEADRACE_SNAPSHOTTER_CORE_IN_FLIGHT_H_

#include <chrono>
#include <set>
#include <utility>

#include "fusefs/base/mutex.h"

namespace headrace::snapshotter {

template <typename Key>
class InFlight {
 public:
  // Membership as long as it lives.
  class Guard {
   public:
    Guard() = default;
    Guard(InFlight* owner, Key key) : owner_(owner), key_(std::move(key)) {}
    ~Guard() {
      if (owner_ != nullptr) owner_->Leave(key_);
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    Guard(Guard&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), key_(std::move(other.key_)) {}
    Guard& operator=(Guard&&) = delete;
    bool held() const { return owner_ != nullptr; }

   private:
    InFlight* owner_ = nullptr;
    Key key_{};
  };

  // Waits until nobody holds `key`; the guard is not held() if that did not happen in time.
  Guard TakeTurn(const Key& key, std::chrono::steady_clock::time_point deadline) {
    MutexLock lock(mu_);
    if (!left_.WaitUntil(mu_, deadline, [&] { return !keys_.contains(key); })) return Guard();
    keys_.insert(key);
    return Guard(this, key);
  }

  bool Contains(const Key& key) {
    MutexLock lock(mu_);
    return keys_.contains(key);
  }

 private:
  void Leave(const Key& key) {
    MutexLock lock(mu_);
    keys_.erase(key);
    left_.NotifyAll();
  }

  Mutex mu_;
  CondVar left_;
  std::set<Key> keys_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_CORE_IN_FLIGHT_H_
