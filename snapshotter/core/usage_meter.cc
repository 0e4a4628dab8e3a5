#include "snapshotter/core/usage_meter.h"

#include <utility>

#include "fusefs/base/log.h"
#include "snapshotter/core/directories.h"

namespace headrace::snapshotter {

UsageMeter::UsageMeter(Options options)
    : options_(std::move(options)), pool_(std::make_unique<ThreadPool>("usage", 1)) {}

UsageMeter::~UsageMeter() {
  stop_.store(true);
  pool_.reset();
}

void UsageMeter::Start(uint64_t id, Entry* entry, const std::string& path) {
  entry->running = true;
  entry->generation = ++generations_;
  pool_->Post([this, id, generation = entry->generation, path] { Finish(id, generation, path); });
}

void UsageMeter::Finish(uint64_t id, uint64_t generation, const std::string& path) {
  Result<Usage> usage = MeasureUsage(path, stop_);
  if (!usage.ok() && usage.status().code() != StatusCode::kNotFound &&
      usage.status().code() != StatusCode::kCancelled) {
    log::Warn("usage cannot be measured snapshot={} error=\"{}\"", id, usage.status().ToString());
  }
  bool final = false;
  {
    MutexLock lock(mu_);
    auto found = entries_.find(id);
    if (found == entries_.end() || found->second.generation != generation) return;
    Entry& entry = found->second;
    entry.running = false;
    if (usage.ok()) {
      entry.usage = *usage;
      entry.known = true;
      final = entry.final;
    }
    // A failed walk counts as fresh, too: it is not repeated at every call.
    entry.measured_at = std::chrono::steady_clock::now();
    done_.NotifyAll();
  }
  if (final && options_.on_final) options_.on_final(id, *usage);
}

Usage UsageMeter::Get(uint64_t id, const std::string& path) {
  MutexLock lock(mu_);
  Entry& entry = entries_[id];
  bool measured = entry.measured_at != std::chrono::steady_clock::time_point();
  bool fresh = measured && (entry.final || std::chrono::steady_clock::now() - entry.measured_at <
                                               options_.max_age);
  if (!fresh && !entry.running) Start(id, &entry, path);
  if (!fresh) {
    done_.WaitFor(mu_, options_.wait, [&] {
      auto found = entries_.find(id);
      return found == entries_.end() || !found->second.running;
    });
  }
  auto found = entries_.find(id);
  return found == entries_.end() ? Usage{} : found->second.usage;
}

void UsageMeter::MeasureForGood(uint64_t id, const std::string& path) {
  MutexLock lock(mu_);
  Entry& entry = entries_[id];
  entry = Entry{};
  entry.final = true;
  Start(id, &entry, path);
}

void UsageMeter::Forget(uint64_t id) {
  MutexLock lock(mu_);
  entries_.erase(id);
  done_.NotifyAll();
}

}  // namespace headrace::snapshotter
