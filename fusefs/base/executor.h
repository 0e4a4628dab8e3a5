// ThreadPool and Timer: where work that must not run on a FUSE, gRPC or network thread goes.
//
// ThreadPool: `threads` named threads ("<name>-<i>") run posted tasks in the order of posting. Post never blocks. The destructor
// runs what was posted before it began, then joins; tasks posted by tasks after that are run as well until the queue is empty.
// Timer: one thread that runs tasks at their time; tasks must be short (post to a pool). Its destructor drops what is not due.
// All methods may be called from any thread, also from tasks (but a pool must not be destroyed from one of its own tasks).
#ifndef HEADRACE_FUSEFS_BASE_EXECUTOR_H_
#define HEADRACE_FUSEFS_BASE_EXECUTOR_H_

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace headrace {

class ThreadPool {
 public:
  ThreadPool(std::string name, unsigned threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  void Post(std::function<void()> task);
  size_t queued() const;

 private:
  void Run();
  mutable std::mutex mu_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

class Timer {
 public:
  explicit Timer(std::string name);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void After(std::chrono::nanoseconds delay, std::function<void()> task);

 private:
  void Run();
  std::mutex mu_;
  std::condition_variable wake_;
  std::multimap<std::chrono::steady_clock::time_point, std::function<void()>> queue_;
  bool stopping_ = false;
  std::thread thread_;
};

// Number of cores this process may run on (affinity and not the machine's count); at least 1.
unsigned CoreCount();
// Names the calling thread for top, gdb and /proc (cut to 15 characters).
void SetThreadName(const std::string& name);

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_EXECUTOR_H_
