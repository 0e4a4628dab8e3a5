// Status to grpc::Status: one of the two total tables of base/status.h. The numbers are the same;
// messages are cut to what fits into HTTP/2 headers.
#ifndef HEADRACE_SNAPSHOTTER_SERVICE_GRPC_STATUS_H_
#define HEADRACE_SNAPSHOTTER_SERVICE_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "fusefs/base/status.h"

namespace headrace::snapshotter {

grpc::StatusCode ToGrpcCode(StatusCode code);
grpc::Status ToGrpc(const Status& status);

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_SERVICE_GRPC_STATUS_H_
