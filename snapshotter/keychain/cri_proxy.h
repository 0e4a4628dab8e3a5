// CriProxy: stands between the kubelet and containerd's CRI image service and learns pull secrets, which containerd does not pass on.
//
//   kubelet --image-service-endpoint--> proxy (unix socket) --> containerd (unix socket)
//
// Every method is forwarded, known or not, unary or streaming in either direction: messages byte for byte, metadata, deadlines, status with
// its details, and cancellation; nothing is answered by the proxy itself, but UNAVAILABLE while containerd is not there. Of
// PullImage requests the credentials are handed to `keeper` before the request goes on, so that the daemon knows them when
// containerd asks for the layers; a keeper that fails or takes long delays the pull by its time limit and no more.
// Threads: one of its own does everything; nothing blocks. Keeper and proxy are alive until the destructor has
// ended, which ends the calls under way with CANCELLED.
// Limits: 64 MiB a message; as many calls at once as clients make (the socket is root's).
// Logged: that the backend is down is not (the caller hears it); contents of messages never.
#ifndef HEADRACE_SNAPSHOTTER_KEYCHAIN_CRI_PROXY_H_
#define HEADRACE_SNAPSHOTTER_KEYCHAIN_CRI_PROXY_H_

#include <functional>
#include <memory>
#include <string>

#include "fusefs/base/status.h"
#include "snapshotter/keychain/pull_secret.h"

namespace headrace::snapshotter {

class CriProxy {
 public:
  struct Options {
    std::string socket;   // ours; one that a dead process left is replaced
    std::string backend;  // containerd's
  };
  // Takes the secret and calls `done` once, from any thread; SecretKeeper::Tell.
  using Keeper = std::function<void(PullSecret secret, std::function<void()> done)>;

  static Result<std::unique_ptr<CriProxy>> Start(const Options& options, Keeper keeper);
  virtual ~CriProxy() = default;
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_KEYCHAIN_CRI_PROXY_H_
