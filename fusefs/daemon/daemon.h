// Daemon: the object graph of headrace-fused. Create builds it in the order of the architecture, shows what was mounted before, mounts the
// file system and opens the control socket last; the destructor takes it down in reverse.
//
// One Daemon for a root directory (flock on <root>/lock). Create blocks on the local disk; nothing in it needs the network.
// Threads: Create and destruction by one thread. `on_end` comes from a FUSE worker when somebody else unmounted the file system.
#ifndef HEADRACE_FUSEFS_DAEMON_DAEMON_H_
#define HEADRACE_FUSEFS_DAEMON_DAEMON_H_

#include <chrono>
#include <functional>
#include <memory>

#include "config/config.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"

namespace headrace::daemon {

struct DaemonOptions {
  config::FusedConfig config;
  bool unmount_on_exit = true;
  // A table of contents must come within this time, retries included: below the 30 s that the snapshotter gives a Mount by default, so
  // that the caller hears which registry failed and not only that time is up.
  std::chrono::milliseconds toc_deadline{25'000};
};

class Daemon {
 public:
  static Result<std::unique_ptr<Daemon>> Create(const DaemonOptions& options, std::function<void()> on_end);
  virtual ~Daemon() = default;
  virtual const Metrics& metrics() const = 0;
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_DAEMON_H_
