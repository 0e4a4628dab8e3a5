// ControlServer: control.proto over gRPC on a unix socket. No logic: requests become calls of LayerManager, Status becomes grpc::Status.
//
// Threads: gRPC's own, at most kControlThreads; Mount keeps one for as long as the registry takes. Start replaces a socket that a dead
// process left. The destructor stops listening and waits for calls under way.
#ifndef HEADRACE_FUSEFS_DAEMON_CONTROL_SERVICE_H_
#define HEADRACE_FUSEFS_DAEMON_CONTROL_SERVICE_H_

#include <memory>
#include <string>

#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/daemon/layer_manager.h"
#include "fusefs/registry/remembered_credentials.h"
#include "fusefs/stream/streamer.h"

namespace headrace::daemon {

// What the server serves; all of it outlives the server.
struct ControlParts {
  std::string mountpoint;
  LayerManager& manager;
  registry::RememberedCredentials& credentials;
  stream::Streamer& streamer;
  cache::ContentStore& cache;
  const Metrics& metrics;
};

class ControlServer {
 public:
  static Result<std::unique_ptr<ControlServer>> Start(const std::string& socket, const ControlParts& parts);
  virtual ~ControlServer() = default;
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_CONTROL_SERVICE_H_
