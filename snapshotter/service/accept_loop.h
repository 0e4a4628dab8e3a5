// AcceptLoop: takes the connections of a socket that somebody else listens on for us (the service manager: socket activation) and gives them to a gRPC
// server. The socket outlives this process, so containerd's calls wait for the next one instead of failing.
//
// Threads: one of its own (`accept`). Start and destruction by one thread; the server outlives the loop. Ownership: the listening descriptor.
// Errors of Start: InvalidArgument, the descriptor is no listening unix stream socket.
#ifndef HEADRACE_SNAPSHOTTER_SERVICE_ACCEPT_LOOP_H_
#define HEADRACE_SNAPSHOTTER_SERVICE_ACCEPT_LOOP_H_

#include <grpcpp/server.h>

#include <memory>
#include <thread>

#include "fusefs/base/file.h"
#include "fusefs/base/status.h"

namespace headrace::snapshotter {

class AcceptLoop {
 public:
  static Result<std::unique_ptr<AcceptLoop>> Start(UniqueFd listener, grpc::Server* server);
  // Accepts no more; connections that were given to the server stay its.
  ~AcceptLoop();

 private:
  AcceptLoop(UniqueFd listener, UniqueFd stop, grpc::Server* server);
  void Run();

  const UniqueFd listener_;
  const UniqueFd stop_;
  grpc::Server* const server_;
  std::thread thread_;
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_SERVICE_ACCEPT_LOOP_H_
