#include "fusefs/stream/core.h"

#include <algorithm>
#include <utility>

#include "fusefs/stream/content.h"
#include "fusefs/stream/planner.h"

namespace headrace::stream {
namespace {

// Verified chunks that a full or broken disk did not take: enough for a few sequential readers.
constexpr uint64_t kUnwrittenBytesMax = uint64_t{64} << 20;
// A range costs its compressed and its decoded bytes: weights decode to a third more.
constexpr uint64_t kQuantumFactor = 3;
// Errors that another try will hardly mend (a token may be renewed, though) are tried so many times more slowly.
constexpr int kHardErrorPauseFactor = 4;

bool LooksPermanent(StatusCode code) {
  return code == StatusCode::kNotFound || code == StatusCode::kPermissionDenied ||
         code == StatusCode::kUnauthenticated || code == StatusCode::kInvalidArgument;
}

}  // namespace

bool LogLimiter::Allow(uint64_t* suppressed) {
  const TimePoint now = std::chrono::steady_clock::now();
  MutexLock lock(mu_);
  if (now - period_start_ >= kPeriod) {
    period_start_ = now;
    lines_ = 0;
  }
  if (++lines_ > kLinesPerPeriod) {
    ++suppressed_;
    return false;
  }
  *suppressed = std::exchange(suppressed_, 0);
  return true;
}

Core::Core(const StreamerOptions& o, registry::RangeSource& s, ThreadPool& p, Timer& t, Metrics& m)
    : options(o),
      source(s),
      metrics(m),
      buffers(std::make_shared<BufferPool>(o.inflight_bytes_max)),
      scheduler(std::make_shared<Scheduler>(o.inflight_bytes_max, o.range_bytes_max * kQuantumFactor, &m)),
      deadlines(m),
      pool_(p),
      timer_(t),
      random_(static_cast<std::minstd_rand::result_type>(
          std::chrono::steady_clock::now().time_since_epoch().count())) {}

void Core::Post(std::function<void()> task) {
  Metrics::Add(metrics.pool_queue);
  pool_.Post([self = shared_from_this(), work = std::move(task)] {
    Gate::Pass pass(self->gate);
    if (!pass) return;
    work();
    Metrics::Add(self->metrics.pool_queue, -1);
  });
}

void Core::After(std::chrono::nanoseconds delay, std::function<void()> task) {
  timer_.After(delay, [weak = weak_from_this(), work = std::move(task)] {
    const std::shared_ptr<Core> self = weak.lock();
    if (!self) return;
    Gate::Pass pass(self->gate);
    if (pass) work();
  });
}

void Core::AwaitDeadline(const std::shared_ptr<ReadOp>& op) {
  if (deadlines.Add(op)) ArmDeadline(op->deadline);
}

void Core::ArmDeadline(TimePoint when) {
  const auto delay = std::max(std::chrono::nanoseconds(0), std::chrono::nanoseconds(when - std::chrono::steady_clock::now()));
  After(delay, [weak = weak_from_this()] {
    if (const std::shared_ptr<Core> self = weak.lock()) self->OnDeadline();
  });
}

void Core::OnDeadline() {
  const TimePoint now = std::chrono::steady_clock::now();
  TimePoint next;
  for (const std::shared_ptr<ReadOp>& op : deadlines.TakeExpired(now, &next)) op->content->Expire(op, now);
  if (next != TimePoint::max()) ArmDeadline(next);
}

std::chrono::nanoseconds Core::RetryPause(unsigned tries, const Status& error, TimePoint until) {
  std::chrono::nanoseconds pause = options.retry_pause_min;
  for (unsigned i = 1; i < tries && pause < options.retry_pause_max; ++i) pause *= 2;
  if (LooksPermanent(error.code())) pause *= kHardErrorPauseFactor;
  pause = std::min<std::chrono::nanoseconds>(pause, options.retry_pause_max);
  std::chrono::nanoseconds wish = error.retry_after();
  if (until != TimePoint::max()) wish = std::min<std::chrono::nanoseconds>(wish, (until - std::chrono::steady_clock::now()) / 2);
  MutexLock lock(mu_);
  // Between half and all of it, so that many readers of one registry do not come back together; at a wish, that much later than what was wished.
  const std::chrono::nanoseconds drawn(std::uniform_int_distribution<int64_t>(0, std::max<int64_t>(pause.count() / 2, 1))(random_));
  return std::max(pause / 2, wish) + drawn;
}

void Core::KeepUnwritten(const std::shared_ptr<Content>& content, const std::shared_ptr<Flight>& flight,
                         uint64_t bytes) {
  std::vector<Unwritten> dropped;
  {
    MutexLock lock(mu_);
    unwritten_.push_back({content, flight, bytes});
    unwritten_bytes_ += bytes;
    while (unwritten_.size() > 1 && unwritten_bytes_ > kUnwrittenBytesMax) {
      unwritten_bytes_ -= unwritten_.front().bytes;
      dropped.push_back(std::move(unwritten_.front()));
      unwritten_.pop_front();
    }
  }
  for (const Unwritten& old : dropped) {
    if (const std::shared_ptr<Content> owner = old.content.lock()) owner->Forget(old.flight);
  }
}

void Core::PostVerify(std::function<void()> verify) {
  verifying_.fetch_add(1, std::memory_order_relaxed);
  Post([self = shared_from_this(), work = std::move(verify)] {
    work();
    self->verifying_.fetch_sub(1, std::memory_order_relaxed);
    if (const std::shared_ptr<Planner> planner = self->planner()) planner->Poke();
  });
}

void Core::CountRange(RangeKind kind) {
  switch (kind) {
    case RangeKind::kDemand:
      return Metrics::Add(metrics.ranges_demand);
    case RangeKind::kReadAhead:
      return Metrics::Add(metrics.ranges_read_ahead);
    case RangeKind::kFill:
      return Metrics::Add(metrics.ranges_fill);
  }
}

void Core::RangeCame() {
  if (const std::shared_ptr<Planner> planner = this->planner()) planner->Succeeded();
}

std::shared_ptr<Planner> Core::planner() const {
  MutexLock lock(mu_);
  return planner_.lock();
}

void Core::SetPlanner(const std::shared_ptr<Planner>& planner) {
  MutexLock lock(mu_);
  planner_ = planner;
}

void Core::Close() {
  scheduler->Close();
  arrived.Clear();
  std::deque<Unwritten> dropped;
  {
    MutexLock lock(mu_);
    dropped.swap(unwritten_);
  }
  for (const std::shared_ptr<ReadOp>& op : deadlines.TakeAll()) op->Fail(CancelledError("the streamer is shut down"));
}

}  // namespace headrace::stream
