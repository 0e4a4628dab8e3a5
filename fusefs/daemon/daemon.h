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
#include <vector>

#include "config/config.h"
#include "fusefs/base/descriptors.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"

namespace headrace::daemon {

// kAuto: the mount stays if somebody uses it and somebody keeps the session for a successor.
enum class UnmountOnExit { kAuto, kYes, kNo };

struct DaemonOptions {
  config::FusedConfig config;
  UnmountOnExit unmount_on_exit = UnmountOnExit::kAuto;
  // What the service manager kept (TakeStoredDescriptors, by main, before there are threads).
  std::vector<StoredDescriptor>* stored = nullptr;
  // A table of contents must come within this time, retries included: below the 30 s that the snapshotter gives a Mount by default, so
  // that the caller hears which registry failed and not only that time is up.
  std::chrono::milliseconds toc_deadline{25'000};
  // A layer that was attached before anybody asked is forgotten after this.
  std::chrono::milliseconds keep_ahead{600'000};
};

class Daemon {
 public:
  static Result<std::unique_ptr<Daemon>> Create(const DaemonOptions& options, std::function<void()> on_end);
  virtual ~Daemon() = default;
  virtual const Metrics& metrics() const = 0;
  // FuseServer::LongestRequest: what the service manager's watchdog is fed by.
  virtual std::chrono::nanoseconds LongestRequest() const = 0;
  // Takes over the settings that can change while it runs (config::IsReloadable); the log says what was, and what else differs and needs a restart. One call at a time.
  virtual void Reload(const config::FusedConfig& config) = 0;
};

// Ends what a dead daemon left: the mount, and the session that is kept for a successor. Who still reads from it gets an error. FailedPrecondition: a daemon runs.
Status TakeDown(const config::FusedConfig& config);

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_DAEMON_H_
