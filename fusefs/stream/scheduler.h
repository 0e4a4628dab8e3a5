// Scheduler: which range is fetched next, within the memory budget. Ranges start in order of priority, then of arrival; the first in
// line waits until its cost fits (nobody overtakes it within its class, so a large one is not starved) and always starts when nothing
// else is in flight. Internal to stream/. Any thread; Begin() of a range is called without a lock held.
#ifndef HEADRACE_FUSEFS_STREAM_SCHEDULER_H_
#define HEADRACE_FUSEFS_STREAM_SCHEDULER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "fusefs/base/mutex.h"

namespace headrace::stream {

// Smaller goes first.
enum class Priority : int { kDemand = 0, kFill = 1 };

// What is scheduled (RangeFetch).
class Job {
 public:
  virtual ~Job() = default;
  virtual uint64_t cost() const = 0;
  virtual bool cancelled() const = 0;
  // cost() was charged; the job gives it back by Charges.
  virtual void Begin() = 0;

 private:
  friend class Scheduler;
  std::pair<Priority, uint64_t> key_{Priority::kDemand, 0};  // guarded by the scheduler's lock
  bool queued_ = false;
};

class Scheduler;

// A part of the budget; given back when it goes. May outlive the users of the scheduler.
class Charge {
 public:
  Charge() = default;
  Charge(std::shared_ptr<Scheduler> scheduler, uint64_t bytes) : scheduler_(std::move(scheduler)), bytes_(bytes) {}
  ~Charge();
  Charge(Charge&& other) noexcept : scheduler_(std::move(other.scheduler_)), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept;
  // Takes `bytes` of this charge out as one of its own. REQUIRES: it has as much.
  Charge Split(uint64_t bytes);

 private:
  std::shared_ptr<Scheduler> scheduler_;
  uint64_t bytes_ = 0;
};

class Scheduler {
 public:
  explicit Scheduler(uint64_t budget) : budget_(budget) {}
  void Submit(const std::shared_ptr<Job>& job, Priority priority);
  // A queued job of a lower class goes to the end of this class.
  void Promote(const std::shared_ptr<Job>& job, Priority priority);
  void Close();
  uint64_t used() const;

 private:
  friend class Charge;
  void Release(uint64_t bytes);
  void Pump();
  std::shared_ptr<Job> TakeNext();

  const uint64_t budget_;
  mutable Mutex mu_;
  std::map<std::pair<Priority, uint64_t>, std::shared_ptr<Job>> queue_ HR_GUARDED_BY(mu_);
  uint64_t sequence_ HR_GUARDED_BY(mu_) = 0;
  uint64_t used_ HR_GUARDED_BY(mu_) = 0;
  bool closed_ HR_GUARDED_BY(mu_) = false;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_SCHEDULER_H_
