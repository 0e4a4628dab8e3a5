#include "fusefs/stream/scheduler.h"

#include <vector>

#include "fusefs/base/status.h"

namespace headrace::stream {

Charge::~Charge() {
  if (bytes_ != 0) scheduler_->Release(bytes_);
}

Charge& Charge::operator=(Charge&& other) noexcept {
  if (this != &other) {
    Charge old(std::move(*this));
    scheduler_ = std::move(other.scheduler_);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

Charge Charge::Split(uint64_t bytes) {
  HEADRACE_CHECK(bytes <= bytes_);
  bytes_ -= bytes;
  return Charge(scheduler_, bytes);
}

void Scheduler::Submit(const std::shared_ptr<Job>& job, Priority priority) {
  {
    MutexLock lock(mu_);
    if (closed_) return;
    job->key_ = {priority, sequence_++};
    job->queued_ = true;
    queue_.emplace(job->key_, job);
    ShowGauges();
  }
  Pump();
}

void Scheduler::Promote(const std::shared_ptr<Job>& job, Priority priority) {
  MutexLock lock(mu_);
  if (!job->queued_ || job->key_.first <= priority) return;
  queue_.erase(job->key_);
  job->key_ = {priority, sequence_++};
  queue_.emplace(job->key_, job);
}

std::shared_ptr<Job> Scheduler::TakeNext() {
  std::vector<std::shared_ptr<Job>> dropped;  // goes after the lock
  MutexLock lock(mu_);
  while (!queue_.empty()) {
    auto first = queue_.begin();
    const uint64_t cost = first->second->cost();
    const bool cancelled = first->second->cancelled();
    if (!cancelled && used_ != 0 && (used_ > budget_ || cost > budget_ - used_)) return nullptr;
    std::shared_ptr<Job> job = std::move(first->second);
    job->queued_ = false;
    queue_.erase(first);
    if (cancelled) {
      dropped.push_back(std::move(job));
      continue;
    }
    used_ += cost;
    ++active_;
    ShowGauges();
    return job;
  }
  return nullptr;
}

void Scheduler::ShowGauges() {
  if (metrics_ == nullptr || closed_) return;
  metrics_->ranges_active.store(active_, std::memory_order_relaxed);
  metrics_->ranges_queued.store(static_cast<int64_t>(queue_.size()), std::memory_order_relaxed);
  metrics_->inflight_bytes.store(static_cast<int64_t>(used_), std::memory_order_relaxed);
}

void Scheduler::Pump() {
  while (std::shared_ptr<Job> job = TakeNext()) job->Begin();
  if (more_room_) more_room_();
}

uint64_t Scheduler::Room() const {
  MutexLock lock(mu_);
  if (closed_ || !queue_.empty() || active_ >= window_) return 0;
  if (used_ == 0) return UINT64_MAX;  // however small the budget, one may go
  const uint64_t left = used_ >= planned_budget_ ? 0 : planned_budget_ - used_;
  return left < quantum_ ? 0 : left;
}

void Scheduler::StartPlanned(const std::shared_ptr<Job>& job) {
  {
    MutexLock lock(mu_);
    if (closed_) return;
    used_ += job->cost();
    ++active_;
    ShowGauges();
  }
  job->Begin();
}

void Scheduler::EndTurn() {
  {
    MutexLock lock(mu_);
    HEADRACE_CHECK(active_ > 0);
    --active_;
    ShowGauges();
  }
  if (more_room_) more_room_();
}

void Scheduler::SetWindow(unsigned window) {
  MutexLock lock(mu_);
  window_ = window;
}

void Scheduler::Release(uint64_t bytes) {
  {
    MutexLock lock(mu_);
    HEADRACE_CHECK(used_ >= bytes);
    used_ -= bytes;
    ShowGauges();
  }
  Pump();
}

void Scheduler::Close() {
  std::map<std::pair<Priority, uint64_t>, std::shared_ptr<Job>> dropped;
  MutexLock lock(mu_);
  closed_ = true;
  dropped.swap(queue_);
  for (auto& [key, job] : dropped) job->queued_ = false;
}

uint64_t Scheduler::used() const {
  MutexLock lock(mu_);
  return used_;
}

unsigned Scheduler::active() const {
  MutexLock lock(mu_);
  return active_;
}

size_t Scheduler::queued() const {
  MutexLock lock(mu_);
  return queue_.size();
}

}  // namespace headrace::stream
