// Progress: one line on standard error that tells how far a command is: on a terminal a bar with rate and time left, redrawn five
// times a second; otherwise a plain line every five seconds, so that logs stay readable and short commands print nothing.
// Done/Sent/AddTotal may be called from any thread and never block. The line is cleared when the object goes.
#ifndef HEADRACE_SNAPSHOTTER_CLI_PROGRESS_H_
#define HEADRACE_SNAPSHOTTER_CLI_PROGRESS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "fusefs/base/mutex.h"

namespace headrace::cli {

class Progress {
 public:
  // `verb`: "building". Quiet: counts only.
  Progress(std::string verb, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void AddTotal(uint64_t bytes) { total_.fetch_add(bytes, std::memory_order_relaxed); }
  void Done(uint64_t bytes) { done_.fetch_add(bytes, std::memory_order_relaxed); }
  // Bytes that went to the registry; shown beside.
  void Sent(uint64_t bytes) { sent_.fetch_add(bytes, std::memory_order_relaxed); }
  uint64_t done() const { return done_.load(std::memory_order_relaxed); }
  uint64_t sent() const { return sent_.load(std::memory_order_relaxed); }

 private:
  void Run();

  const std::string verb_;
  const bool terminal_;
  std::atomic<uint64_t> total_{0};
  std::atomic<uint64_t> done_{0};
  std::atomic<uint64_t> sent_{0};
  Mutex mu_;
  CondVar wake_;
  bool stop_ HR_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// The line without its control characters. `rate` in bytes per second, 0 = not known yet. Pure.
struct ProgressState {
  std::string verb;
  uint64_t done = 0;
  uint64_t total = 0;
  uint64_t sent = 0;
  double rate = 0;
  unsigned columns = 80;  // 0: no bar
};
std::string ProgressLine(const ProgressState& state);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_PROGRESS_H_
