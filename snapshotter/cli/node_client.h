// NodeClient: the control socket of headrace-fused (proto/headrace/control.proto) for the commands that speak to a running node.
// Every call blocks, with a deadline; one thread. Errors are the daemon's own, or FailedPrecondition if none answers at the socket.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_CLIENT_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "fusefs/base/status.h"
#include "headrace/control.pb.h"

namespace headrace::cli {

class NodeClient {
 public:
  explicit NodeClient(std::string socket);
  ~NodeClient();

  Result<control::v1::StatusResponse> GetStatus(const control::v1::StatusRequest& request);
  Result<control::v1::CacheResponse> GetCache(const control::v1::CacheRequest& request);
  Result<control::v1::PruneResponse> Prune(const control::v1::PruneRequest& request);
  Result<control::v1::PinResponse> Pin(const control::v1::PinRequest& request);
  Result<control::v1::UnpinResponse> Unpin(const control::v1::UnpinRequest& request);
  // `progress` is called as the daemon reports; false: give up (Cancelled).
  headrace::Status Prefetch(const control::v1::PrefetchRequest& request, const std::function<bool(const control::v1::PrefetchProgress&)>& progress);

 private:
  struct Stub;
  const std::string socket_;
  std::unique_ptr<Stub> stub_;
};

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_CLIENT_H_
