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

namespace headrace::snapshotter {

// containerd's own limit for messages, both ways.
inline constexpr int kMessageBytesMax = 16 << 20;

struct ServedSnapshotter {
  std::unique_ptr<grpc::Service> service;
  std::unique_ptr<grpc::Server> server;  // goes first
};

// Serves on the unix socket, which is made for root only; a file that is there already is replaced.
// `snapshotter` outlives the result.
Result<ServedSnapshotter> Serve(Snapshotter* snapshotter, const std::string& socket);

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_SERVICE_SNAPSHOTS_SERVICE_H_
