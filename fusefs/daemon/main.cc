// headrace-fused: owns the FUSE mount; registry ranges -> verify -> decode -> cache -> reply.
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <functional>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/base/process.h"
#include "fusefs/daemon/command_line.h"
#include "fusefs/daemon/daemon.h"

namespace headrace::daemon {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

// SIGTERM, SIGINT and SIGHUP as a descriptor. Blocked before the first thread starts, so that every thread inherits it.
Result<UniqueFd> TakeSignals(sigset_t& set) {
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  ::signal(SIGPIPE, SIG_IGN);
  if (int err = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); err != 0) return Status::FromErrno(err, "block signals");
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!fd.valid()) return Status::FromErrno(errno, "signalfd");
  return fd;
}

void Notify(const char* state) {
  if (Status status = NotifySupervisor(state); !status.ok()) log::Warn("the supervisor was not told state={} error=\"{}\"", state, status.ToString());
}

// Tells the service manager twice in its interval that the FUSE workers move. A worker that is at one request for half the interval hangs: then nothing is said,
// this process is killed, and its successor is handed the request again.
class Watchdog {
 public:
  explicit Watchdog(const Daemon& daemon) : daemon_(daemon), interval_(WatchdogInterval()) {}
  // What poll(2) takes; -1: nobody watches.
  int PauseMs() const { return interval_.count() == 0 ? -1 : static_cast<int>(std::clamp<int64_t>(interval_.count() / 2000, 1, 1 << 30)); }
  void Feed() {
    const std::chrono::nanoseconds busy = daemon_.LongestRequest();
    if (busy < interval_ / 2) {
      Notify("WATCHDOG=1");
    } else if (!said_) {
      said_ = true;
      log::Error("a FUSE worker hangs, the service manager is to kill this process seconds={}", std::chrono::duration_cast<std::chrono::seconds>(busy).count());
    }
  }

 private:
  const Daemon& daemon_;
  const std::chrono::microseconds interval_;
  bool said_ = false;
};

// True: the settings are to be read again; false: a signal to end came, or the file system ended.
bool WaitForSignal(int signals, int ended, Watchdog& watchdog) {
  pollfd fds[] = {{signals, POLLIN, 0}, {ended, POLLIN, 0}};
  for (;;) {
    const int n = ::poll(fds, 2, watchdog.PauseMs());
    if (n > 0) break;
    if (n == 0) watchdog.Feed();
  }
  if (fds[0].revents == 0) {
    log::Error("stopping: the file system was unmounted or aborted by somebody else");
    return false;
  }
  signalfd_siginfo info{};
  if (::read(signals, &info, sizeof info) == sizeof info && info.ssi_signo == SIGHUP) return true;
  log::Info("stopping signal={}", info.ssi_signo);
  return false;
}

// `reread`: the command line and the file that it names, again.
Status Run(DaemonOptions options, const std::function<Result<CommandLine>()>& reread) {
  std::vector<StoredDescriptor> stored = TakeStoredDescriptors();
  options.stored = &stored;
  HR_RETURN_IF_ERROR(log::Setup("headrace-fused", options.config.log_level));
  if (Status status = RaiseDescriptorLimit(); !status.ok()) log::Warn("descriptor limit stays error=\"{}\"", status.ToString());
  sigset_t set;
  HR_ASSIGN_OR_RETURN(UniqueFd signals, TakeSignals(set));
  UniqueFd ended(::eventfd(0, EFD_CLOEXEC));
  if (!ended.valid()) return Status::FromErrno(errno, "eventfd");
  HR_ASSIGN_OR_RETURN(std::unique_ptr<Daemon> daemon, Daemon::Create(options, [&] { SignalEvent(ended.get()); }));
  log::Info("ready version={} root={} mountpoint={} control_socket={}", HEADRACE_VERSION, options.config.root,
            options.config.mountpoint, options.config.control_socket);
  Notify("READY=1");
  Watchdog watchdog(*daemon);
  while (WaitForSignal(signals.get(), ended.get(), watchdog)) {
    Notify("RELOADING=1");
    if (auto again = reread(); again.ok()) {
      daemon->Reload(again->options.config);
    } else {
      log::Error("not reloaded, everything stays as it is error=\"{}\"", again.status().ToString());
    }
    Notify("READY=1");
  }
  // A second signal ends the process at once.
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  Notify("STOPPING=1");
  daemon.reset();
  log::Info("stopped");
  return OkStatus();
}

}  // namespace
}  // namespace headrace::daemon

int main(int argc, char** argv) {
  using namespace headrace;
  auto command = daemon::ParseCommandLine(argc, argv);
  if (!command.ok()) {
    std::fprintf(stderr, "headrace-fused: %s\n", command.status().ToString().c_str());
    return daemon::kExitUsage;
  }
  if (command->exit_code) return *command->exit_code;
  Status status = command->unmount ? daemon::TakeDown(command->options.config) : daemon::Run(command->options, [&] { return daemon::ParseCommandLine(argc, argv); });
  if (status.ok()) return 0;
  std::fprintf(stderr, "headrace-fused: %s\n", status.ToString().c_str());
  return daemon::kExitFailure;
}
