// Mutex, MutexLock and CondVar with clang's thread-safety annotations (gcc ignores them). Rules: a lock is small, never held across
// I/O, callbacks or FUSE/gRPC replies; the one lock order is written in fusefs/README.md (THREADING).
#ifndef HEADRACE_FUSEFS_BASE_MUTEX_H_
#define HEADRACE_FUSEFS_BASE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define HR_TSA(x) __attribute__((x))
#else
#define HR_TSA(x)
#endif
#define HR_GUARDED_BY(x) HR_TSA(guarded_by(x))
#define HR_REQUIRES(...) HR_TSA(requires_capability(__VA_ARGS__))
#define HR_EXCLUDES(...) HR_TSA(locks_excluded(__VA_ARGS__))

namespace headrace {

class HR_TSA(capability("mutex")) Mutex {
 public:
  void lock() HR_TSA(acquire_capability()) { mu_.lock(); }
  void unlock() HR_TSA(release_capability()) { mu_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mu_;
};

class HR_TSA(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mu) HR_TSA(acquire_capability(mu)) : mu_(mu) { mu_.lock(); }
  ~MutexLock() HR_TSA(release_capability()) { mu_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mu_;
};

// Waits always have a deadline (style guide 11).
class CondVar {
 public:
  // REQUIRES: mu is held by the caller. Returns false when the deadline passed and `ready` is still false.
  template <typename Predicate>
  bool WaitUntil(Mutex& mu, std::chrono::steady_clock::time_point deadline, Predicate ready) HR_REQUIRES(mu) {
    std::unique_lock<std::mutex> lock(mu.mu_, std::adopt_lock);
    bool ok = cv_.wait_until(lock, deadline, ready);
    lock.release();
    return ok;
  }
  template <typename Predicate>
  bool WaitFor(Mutex& mu, std::chrono::nanoseconds timeout, Predicate ready) HR_REQUIRES(mu) {
    return WaitUntil(mu, std::chrono::steady_clock::now() + timeout, ready);
  }
  void NotifyOne() { cv_.notify_one(); }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_MUTEX_H_
