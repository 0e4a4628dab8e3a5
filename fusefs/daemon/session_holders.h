// SessionHolders: who keeps the FUSE session (descriptor and SessionTable) for a successor of this process, and what they kept for us. Two, of which either alone is
// enough: the service manager's descriptor store, and the snapshotter's SessionKeeper (base/keeper_protocol.h).
//
// Threads: one of its own (`session-holder`), which waits for the snapshotter to come (back); the public methods from any thread.
// Blocks: Collect and Withdraw for at most a second, if the snapshotter hangs. Ownership: borrows the descriptors until destroyed; what the holders have is theirs.
#ifndef HEADRACE_FUSEFS_DAEMON_SESSION_HOLDERS_H_
#define HEADRACE_FUSEFS_DAEMON_SESSION_HOLDERS_H_

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/mutex.h"
#include "fusefs/kernel/fuse_server.h"

namespace headrace::daemon {

class SessionHolders {
 public:
  // What was kept: `stored` is the service manager's (TakeStoredDescriptors). Best first; nothing is checked but the shape.
  static std::vector<kernel::Predecessor> Collect(std::vector<StoredDescriptor> stored, const std::string& keeper_socket, const std::string& mountpoint);

  // Gives the session to both. Never waits for the snapshotter.
  SessionHolders(std::string keeper_socket, std::string mountpoint, kernel::SessionDescriptors session, Metrics& metrics);
  // They keep what they have.
  ~SessionHolders();

  // Somebody would hand the session to a successor.
  bool Any() const;
  // The session is over: they shall let go.
  void Withdraw() { Withdraw(keeper_socket_, mountpoint_); }
  static void Withdraw(const std::string& keeper_socket, const std::string& mountpoint);

 private:
  void GiveToSupervisor();
  void Run();
  // Gives it to the snapshotter and returns when the connection to it is lost or this object ends.
  void StayConnected();
  void Held(bool* holder, bool held);

  const std::string keeper_socket_;
  const std::string mountpoint_;
  const kernel::SessionDescriptors session_;
  Metrics& metrics_;
  UniqueFd stop_;
  mutable Mutex mu_;
  bool supervisor_ HR_GUARDED_BY(mu_) = false;
  bool keeper_ HR_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_SESSION_HOLDERS_H_
