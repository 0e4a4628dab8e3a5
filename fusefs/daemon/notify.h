// NotifySupervisor: tells systemd (or whatever set NOTIFY_SOCKET) how far the service is: sd_notify(3) without libsystemd.
// Any thread; one datagram, does not block. Nobody who listens is fine.
#ifndef HEADRACE_FUSEFS_DAEMON_NOTIFY_H_
#define HEADRACE_FUSEFS_DAEMON_NOTIFY_H_

#include <string>

#include "fusefs/base/status.h"

namespace headrace::daemon {

// `state`: "READY=1", "STOPPING=1". Errors: the socket is set but does not take it.
Status NotifySupervisor(const std::string& state);

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_NOTIFY_H_
