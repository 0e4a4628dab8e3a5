// Interrupt: what happens on Ctrl-C (SIGINT), SIGTERM and SIGHUP: the temporary directories that were entered here are removed and
// the process ends with exit code 130, at once, whatever the other threads wait for.
//
// main makes one before any other thread, so that every thread inherits the blocked signals; the object's own thread waits for them.
// SIGPIPE is ignored: writing to a closed pipe fails instead. The signals stay as they are when the object goes. Protect/Unprotect may be called from any thread.
#ifndef HEADRACE_SNAPSHOTTER_CLI_INTERRUPT_H_
#define HEADRACE_SNAPSHOTTER_CLI_INTERRUPT_H_

#include <memory>
#include <set>
#include <string>
#include <thread>

#include "fusefs/base/file.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"

namespace headrace::cli {

inline constexpr int kExitInterrupted = 130;

class Interrupt {
 public:
  static Result<std::unique_ptr<Interrupt>> Create();
  ~Interrupt();
  // `path` is removed, with everything in it, if the process is interrupted before Release(path).
  void Protect(const std::string& path);
  void Release(const std::string& path);

 private:
  Interrupt() = default;
  void Run();

  Mutex mu_;
  std::set<std::string> paths_ HR_GUARDED_BY(mu_);
  UniqueFd signals_;
  UniqueFd stop_;
  std::thread thread_;
};

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_INTERRUPT_H_
