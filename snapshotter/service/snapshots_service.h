// containerd's Snapshots gRPC service (proto/containerd/snapshots.proto) over core/: converts
// messages, nothing else. Handlers run on gRPC's threads and block as core/snapshotter.h says.
// Exceptions end here and become INTERNAL. One socket may serve several proxy plugin names: the
// field `snapshotter` of the requests does not matter.
#ifndef HEADRACE_SNAPSHOTTER_SERVICE_SNAPSHOTS_SERVICE_H_
#define HEADRACE_SNAPSHOTTER_SERVICE_SNAPSHOTS_SERVICE_H_

#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "fusefs/base/status.h"
#include "snapshotter/core/snapshotter.h"
#include "snapshotter/service/accept_loop.h"

namespace headrace::snapshotter {

// containerd's own limit for messages, both ways.
inline constexpr int kMessageBytesMax = 16 << 20;

struct ServedSnapshotter {
  std::unique_ptr<grpc::Service> service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<AcceptLoop> accept;  // goes first; null where gRPC listens itself
};

// Serves on the unix socket, which is made for root only; a file that is there already is replaced.
// `snapshotter` outlives the result. With `listener`, a socket that the service manager listens on, that one
// is served instead and `socket` is not touched.
Result<ServedSnapshotter> Serve(Snapshotter* snapshotter, const std::string& socket, UniqueFd listener = {});

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_SERVICE_SNAPSHOTS_SERVICE_H_
