// Scheduler: which range is fetched next, within the memory budget. Internal to stream/. Any thread.
//
// Two kinds of work. Submitted jobs (readers wait for them, or a small file that was opened, or a try after a failure) start in order of priority,
// then of arrival; the first in line waits until its cost fits (nobody overtakes it within its class, so a large one is not starved) and always
// starts when nothing else is in flight. Planned jobs (read-ahead, fill) are made only when there is room for one: none is queued here, so
// what is fetched next is decided when it is fetched. They leave a part of the budget to readers, and at most `window` ranges of
// any kind are under way when one starts.
// Begin() of a job and the listener are called without a lock held.
#ifndef HEADRACE_FUSEFS_STREAM_SCHEDULER_H_
#define HEADRACE_FUSEFS_STREAM_SCHEDULER_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "fusefs/base/metrics.h"
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
  // cost() was charged and one turn taken; the job gives them back by Charges and Scheduler::EndTurn.
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
  uint64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<Scheduler> scheduler_;
  uint64_t bytes_ = 0;
};

class Scheduler {
 public:
  // `quantum`: what a planned range of full size costs: there is room for one or for none, so that a scarce budget does not make small ranges.
  explicit Scheduler(uint64_t budget, uint64_t quantum = 0, Metrics* metrics = nullptr)
      : budget_(budget), planned_budget_(budget - budget / 4), quantum_(std::min(quantum, planned_budget_ / 4)), metrics_(metrics) {}
  void Submit(const std::shared_ptr<Job>& job, Priority priority);
  // A queued job of a lower class goes to the end of this class.
  void Promote(const std::shared_ptr<Job>& job, Priority priority);

  // What a planned range that starts now may cost; 0: none may start. The planner is one thread: nobody takes the room away from it.
  uint64_t Room() const;
  // Charges the job and begins it at once.
  void StartPlanned(const std::shared_ptr<Job>& job);
  // A range is no longer under way.
  void EndTurn();
  // How many ranges may be under way for a planned one to start.
  void SetWindow(unsigned window);
  // Told whenever there may be more room than before. Set before the first job.
  void SetListener(std::function<void()> more_room) { more_room_ = std::move(more_room); }

  void Close();
  uint64_t used() const;
  unsigned active() const;
  size_t queued() const;

 private:
  friend class Charge;
  void Release(uint64_t bytes);
  void Pump();
  std::shared_ptr<Job> TakeNext();
  void ShowGauges() HR_REQUIRES(mu_);

  const uint64_t budget_;
  const uint64_t planned_budget_;
  const uint64_t quantum_;
  Metrics* const metrics_;  // may be null; used only until Close
  std::function<void()> more_room_;
  mutable Mutex mu_;
  std::map<std::pair<Priority, uint64_t>, std::shared_ptr<Job>> queue_ HR_GUARDED_BY(mu_);
  uint64_t sequence_ HR_GUARDED_BY(mu_) = 0;
  uint64_t used_ HR_GUARDED_BY(mu_) = 0;
  unsigned active_ HR_GUARDED_BY(mu_) = 0;
  unsigned window_ HR_GUARDED_BY(mu_) = 1;
  bool closed_ HR_GUARDED_BY(mu_) = false;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_SCHEDULER_H_
