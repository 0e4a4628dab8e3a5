// Core: what all contents of one Streamer share: the ways to other threads, the budget, the waiting reads. Internal to stream/.
// Tasks posted through it run only while the gate is open, so nothing of ours touches the store, the source, the pool, the timer or the
// metrics after the Streamer is gone, however late a callback comes. Any thread.
#ifndef HEADRACE_FUSEFS_STREAM_CORE_H_
#define HEADRACE_FUSEFS_STREAM_CORE_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/mutex.h"
#include "fusefs/registry/range_source.h"
#include "fusefs/stream/buffer_pool.h"
#include "fusefs/stream/gate.h"
#include "fusefs/stream/range_fetch.h"
#include "fusefs/stream/read_op.h"
#include "fusefs/stream/scheduler.h"
#include "fusefs/stream/streamer.h"

namespace headrace::stream {

struct Flight;
class Planner;

// Lets a few log lines through in each period; says how many it held back.
class LogLimiter {
 public:
  // True: log, and mention *suppressed earlier ones.
  bool Allow(uint64_t* suppressed);

 private:
  static constexpr int kLinesPerPeriod = 10;
  static constexpr std::chrono::seconds kPeriod{10};
  Mutex mu_;
  TimePoint period_start_ HR_GUARDED_BY(mu_);
  int lines_ HR_GUARDED_BY(mu_) = 0;
  uint64_t suppressed_ HR_GUARDED_BY(mu_) = 0;
};

class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(const StreamerOptions& o, registry::RangeSource& s, ThreadPool& p, Timer& t, Metrics& m);

  // Runs the task on the pool, or never if the gate closes before.
  void Post(std::function<void()> task);
  void After(std::chrono::nanoseconds delay, std::function<void()> task);
  // The read is answered with its content's error when its deadline comes.
  void AwaitDeadline(const std::shared_ptr<ReadOp>& op);
  // How long to wait before try number `tries` + 1 after `error`: as long as the registry wished (Status::retry_after), if that is longer than our own pause; but
  // who waits until `until` has another try before that.
  std::chrono::nanoseconds RetryPause(unsigned tries, const Status& error, TimePoint until = TimePoint::max());
  // Keeps the bytes of a flight that the cache did not take for a while; lets go of the oldest above a limit.
  void KeepUnwritten(const std::shared_ptr<Content>& content, const std::shared_ptr<Flight>& flight, uint64_t bytes);
  // A check of what the cache may have, on the pool; not more at a time than keep it busy, so that readers' chunks do not queue behind them.
  bool MayVerify() const { return verifying_.load(std::memory_order_relaxed) < kVerifyingMax; }
  void PostVerify(std::function<void()> verify);

  void CountRange(RangeKind kind);
  // A range came whole.
  void RangeCame();
  // Null until there is one and after it is gone.
  std::shared_ptr<Planner> planner() const;
  void SetPlanner(const std::shared_ptr<Planner>& planner);

  // Answers every waiting read (Cancelled). The gate is closed.
  void Close();

  const StreamerOptions options;
  std::atomic<uint64_t> fill_rate{options.fill_rate};  // may change
  registry::RangeSource& source;
  Metrics& metrics;
  Gate gate;
  const std::shared_ptr<BufferPool> buffers;
  const std::shared_ptr<Scheduler> scheduler;
  Deadlines deadlines;
  DecodeQueue arrived;
  LogLimiter retry_log;
  LogLimiter mismatch_log;
  std::atomic<uint64_t> arrived_bytes{0};  // of ranges, ever

 private:
  static constexpr int kVerifyingMax = 4;
  struct Unwritten {
    std::weak_ptr<Content> content;
    std::shared_ptr<Flight> flight;
    uint64_t bytes;
  };

  void ArmDeadline(TimePoint when);
  void OnDeadline();

  ThreadPool& pool_;
  Timer& timer_;
  std::atomic<int> verifying_{0};
  mutable Mutex mu_;
  std::weak_ptr<Planner> planner_ HR_GUARDED_BY(mu_);
  std::minstd_rand random_ HR_GUARDED_BY(mu_);
  std::deque<Unwritten> unwritten_ HR_GUARDED_BY(mu_);
  uint64_t unwritten_bytes_ HR_GUARDED_BY(mu_) = 0;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_CORE_H_
