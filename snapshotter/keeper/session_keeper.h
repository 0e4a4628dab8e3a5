// SessionKeeper: keeps the FUSE session of headrace-fused (descriptor of /dev/fuse and session table) while that process is dead or being replaced, so that no read
// fails meanwhile. It never looks into either. What the daemon says: fusefs/base/keeper_protocol.h.
//
// A session whose daemon does not come back is let go after `orphan_time`: readers that wait for it get an error then, instead of hanging for ever.
//
// Threads: one of its own (`session-keeper`), which never waits for a client. Ownership: the descriptors it was given. Only root, or the own user, is served.
// Limits: kClientsMax connections, kSessionsMax sessions (mount points).
#ifndef HEADRACE_SNAPSHOTTER_KEEPER_SESSION_KEEPER_H_
#define HEADRACE_SNAPSHOTTER_KEEPER_SESSION_KEEPER_H_

#include <chrono>
#include <memory>
#include <string>

#include "fusefs/base/status.h"

namespace headrace::snapshotter {

struct SessionKeeperOptions {
  std::string socket;
  std::chrono::milliseconds orphan_time = std::chrono::minutes(10);
};

class SessionKeeper {
 public:
  static constexpr size_t kClientsMax = 16;
  static constexpr size_t kSessionsMax = 16;

  // FailedPrecondition: another process listens there.
  static Result<std::unique_ptr<SessionKeeper>> Start(SessionKeeperOptions options);
  // Lets go of everything.
  virtual ~SessionKeeper() = default;
  // Sessions that are kept now.
  virtual size_t sessions() const = 0;
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_KEEPER_SESSION_KEEPER_H_
