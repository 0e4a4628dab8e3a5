// What a Content does when bytes do not come: pauses, tries again, deadlines, the end.
#include <algorithm>
#include <utility>

#include "fusefs/base/log.h"
#include "fusefs/stream/content.h"

namespace headrace::stream {
namespace {

Status GiveUp(const std::string& what, const Status& last_error, unsigned tries) {
  if (last_error.ok()) return DeadlineExceededError(what + ": no answer before the deadline");
  return last_error.Annotate(what + ": given up after " + std::to_string(tries) + " tries");
}

}  // namespace

void Content::FetchFailed(const std::vector<std::shared_ptr<Flight>>& flights, const Status& status, bool progress) {
  const TimePoint now = std::chrono::steady_clock::now();
  Flights again;
  std::vector<std::pair<std::shared_ptr<ReadOp>, Status>> failed;
  unsigned tries = 0;
  TimePoint until = TimePoint::min();
  {
    MutexLock lock(mu_);
    for (const std::shared_ptr<Flight>& flight : flights) {
      if (!IsCurrent(*flight)) continue;
      flight->range = nullptr;
      flight->tries = progress ? 1 : flight->tries + 1;
      flight->last_error = status;
      if (flight->want_until > now) {
        flight->state = Flight::State::kPaused;
        tries = std::max(tries, flight->tries);
        until = std::max(until, flight->want_until);
        again.push_back(flight);
        continue;
      }
      const Status error = GiveUp(Where() + ", chunk " + Describe(flight), status, flight->tries);
      for (auto& op : Erase(*flight)) failed.emplace_back(std::move(op), error);
    }
  }
  Replan();
  for (auto& [op, error] : failed) {
    Metrics::Add(core_->metrics.wire_errors);
    op->Fail(error);
  }
  if (again.empty()) return;
  Metrics::Add(core_->metrics.wire_retries);
  const std::chrono::nanoseconds pause = core_->RetryPause(tries, status, until);
  uint64_t suppressed = 0;
  if (core_->retry_log.Allow(&suppressed)) {
    log::Warn("fetch failed, trying again chunk={} chunks={} tries={} pause_ms={} error=\"{}\" suppressed={}",
              Describe(again.front()), again.size(), tries,
              std::chrono::duration_cast<std::chrono::milliseconds>(pause).count(), status.ToString(), suppressed);
  }
  core_->After(pause, [weak = weak_from_this(), again] {
    if (const std::shared_ptr<Content> self = weak.lock()) self->Resume(again);
  });
}

// The pause is over.
void Content::Resume(const Flights& flights) {
  const TimePoint now = std::chrono::steady_clock::now();
  Plan plan;
  Flights again;
  std::vector<std::pair<std::shared_ptr<ReadOp>, Status>> failed;
  Priority priority = Priority::kFill;
  {
    MutexLock lock(mu_);
    for (const std::shared_ptr<Flight>& flight : flights) {
      if (!IsCurrent(*flight) || flight->state != Flight::State::kPaused) continue;
      if (flight->want_until > now) {
        if (!flight->waiters.empty()) priority = Priority::kDemand;
        again.push_back(flight);
        continue;
      }
      const Status error = GiveUp(Where() + ", chunk " + Describe(flight), flight->last_error, flight->tries);
      for (auto& op : Erase(*flight)) failed.emplace_back(std::move(op), error);
    }
    MakeRanges(again, &plan);
  }
  Replan();
  for (auto& [op, error] : failed) {
    Metrics::Add(core_->metrics.wire_errors);
    op->Fail(error);
  }
  Launch(plan, priority);
}

void Content::Expire(const std::shared_ptr<ReadOp>& op, TimePoint now) {
  Status error;
  std::vector<std::shared_ptr<RangeFetch>> cancelled;
  {
    MutexLock lock(mu_);
    std::string what = Where() + ", \"" + name_ + "\"";
    unsigned tries = 0;
    Status last_error;
    for (auto it = flights_.lower_bound(ChunkAt(op->offset)); it != flights_.end(); ++it) {
      Flight& flight = *it->second;
      if (chunk(flight.chunk).file_offset >= op->offset + op->size) break;
      if (std::erase(flight.waiters, op) == 0 || !last_error.ok()) continue;
      last_error = flight.last_error;
      tries = flight.tries;
      if (!last_error.ok()) what = Where() + ", chunk " + Describe(it->second);
    }
    error = GiveUp(what, last_error, tries);
    cancelled = DropUnwanted(op, now);
  }
  for (const auto& range : cancelled) range->Cancel();
  Replan();
  Metrics::Add(core_->metrics.wire_errors);
  op->Fail(std::move(error));
}

// Flights of the chunks of `op` that nobody wants any more: those that pause go, and ranges of which no chunk is wanted, so that the next
// reader starts anew and does not join one that hangs. Returns the ranges, to be cancelled.
std::vector<std::shared_ptr<RangeFetch>> Content::DropUnwanted(const std::shared_ptr<ReadOp>& op, TimePoint now) {
  std::vector<std::shared_ptr<RangeFetch>> cancelled;
  const auto unwanted = [now](const Flight& f) { return f.waiters.empty() && f.want_until <= now; };
  Flights mine;
  for (auto it = flights_.lower_bound(ChunkAt(op->offset)); it != flights_.end(); ++it) {
    if (chunk(it->second->chunk).file_offset >= op->offset + op->size) break;
    if (unwanted(*it->second)) mine.push_back(it->second);
  }
  for (const std::shared_ptr<Flight>& flight : mine) {
    if (!IsCurrent(*flight)) continue;
    if (flight->state == Flight::State::kPaused) Erase(*flight);
    if (flight->state != Flight::State::kRange || !flight->range) continue;
    const std::shared_ptr<RangeFetch> range = flight->range;
    Flights of_range;
    for (const std::weak_ptr<Flight>& weak : range->flights()) {
      std::shared_ptr<Flight> other = weak.lock();
      if (other && IsCurrent(*other) && other->range == range) of_range.push_back(std::move(other));
    }
    if (!std::all_of(of_range.begin(), of_range.end(), [&](const auto& f) { return unwanted(*f); })) continue;
    for (const std::shared_ptr<Flight>& other : of_range) Erase(*other);
    cancelled.push_back(range);
  }
  return cancelled;
}

void Content::Close() {
  std::map<uint32_t, std::shared_ptr<Flight>> ended;
  std::vector<std::shared_ptr<RangeFetch>> ranges;
  Ops waiters;
  {
    MutexLock lock(mu_);
    ended.swap(flights_);
    for (auto& [index, flight] : ended) {
      if (flight->range) ranges.push_back(std::move(flight->range));
      flight->range = nullptr;
      waiters.insert(waiters.end(), flight->waiters.begin(), flight->waiters.end());
      flight->waiters.clear();
    }
  }
  for (const auto& range : ranges) range->Cancel();
  for (const auto& op : waiters) op->Fail(CancelledError("the streamer is shut down"));
}

}  // namespace headrace::stream
