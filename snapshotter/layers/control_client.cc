#include "snapshotter/layers/control_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <functional>
#include <thread>

#include "headrace/control.grpc.pb.h"

namespace headrace::snapshotter {
namespace {

using std::chrono::steady_clock;
using std::chrono::system_clock;

// gRPC wants wall-clock deadlines.
system_clock::time_point WallDeadline(steady_clock::time_point deadline) {
  auto left = std::max(deadline - steady_clock::now(), steady_clock::duration::zero());
  // An hour bounds deadlines of "for ever", which would overflow.
  return system_clock::now() + std::min<steady_clock::duration>(left, std::chrono::hours(1));
}

}  // namespace

struct ControlClient::Stub {
  std::unique_ptr<control::v1::Control::Stub> control;
};

namespace {

Status FromGrpc(const grpc::Status& status, const std::string& socket) {
  if (status.ok()) return {};
  auto code = static_cast<StatusCode>(static_cast<int>(status.error_code()));
  return Status(code, "headrace-fused at " + socket + ": " + status.error_message());
}

// True if the daemon died during the call (or before it had it): its successor answers the same. An answer of the daemon's own carries its name as details.
bool CutOff(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE && status.error_details() != "headrace-fused";
}

// Every call may be made twice. One that was cut off is made again, once the daemon is there again, until its deadline.
grpc::Status CallUntil(steady_clock::time_point deadline, const std::function<grpc::Status(grpc::ClientContext*)>& call) {
  constexpr std::chrono::milliseconds kPause{20};  // a daemon that dies in each call must not make us spin
  for (;;) {
    grpc::ClientContext context;
    context.set_deadline(WallDeadline(deadline));
    context.set_wait_for_ready(true);
    grpc::Status status = call(&context);
    if (!CutOff(status) || steady_clock::now() + kPause >= deadline) return status;
    std::this_thread::sleep_for(kPause);
  }
}

// A daemon that hangs is as good as none for a call that touches no network.
Status FromLocalCall(const grpc::Status& status, const std::string& socket) {
  Status out = FromGrpc(status, socket);
  if (out.code() == StatusCode::kDeadlineExceeded || out.code() == StatusCode::kUnavailable) {
    return UnavailableError(out.message() +
                            " (is headrace-fused running? systemctl status headrace-fused)");
  }
  return out;
}

}  // namespace

ControlClient::ControlClient(Options options)
    : options_(std::move(options)), stub_(std::make_unique<Stub>()) {
  grpc::ChannelArguments arguments;
  // A restarted daemon is found again at once: the socket is local, trying costs nothing.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  // Unix sockets need no proxy and no authority made of a path.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
  auto channel = grpc::CreateCustomChannel("unix:" + options_.socket,
                                           grpc::InsecureChannelCredentials(), arguments);
  stub_->control = control::v1::Control::NewStub(channel);
}

ControlClient::~ControlClient() = default;

Result<MountAnswer> ControlClient::Mount(const MountSpec& spec, steady_clock::time_point deadline) {
  control::v1::MountRequest request;
  request.set_id(std::to_string(spec.id));
  if (spec.parent_id) request.set_parent_id(std::to_string(*spec.parent_id));
  request.set_above_foreign(spec.layer.above_foreign);
  request.mutable_layer()->set_image_ref(spec.layer.image_ref);
  request.mutable_layer()->set_manifest_digest(spec.layer.manifest_digest);
  request.mutable_layer()->set_blob_digest(spec.layer.blob_digest);
  request.mutable_layer()->set_toc(spec.layer.toc);
  request.set_no_fill(spec.no_fill);
  control::v1::MountResponse response;
  grpc::Status called = CallUntil(deadline, [&](grpc::ClientContext* context) { return stub_->control->Mount(context, request, &response); });
  HR_RETURN_IF_ERROR(FromGrpc(called, options_.socket));
  MountAnswer answer;
  if (response.pending()) {
    answer.pending = true;
    answer.done_bytes = static_cast<uint64_t>(std::max<int64_t>(response.done_bytes(), 0));
    answer.total_bytes = static_cast<uint64_t>(std::max<int64_t>(response.total_bytes(), 0));
    return answer;
  }
  if (response.path().empty() || response.path().front() != '/') {
    return InternalError("headrace-fused answered Mount with the path \"" + response.path() +
                         "\", not an absolute one");
  }
  answer.path = response.path();
  return answer;
}

Result<std::string> ControlClient::Check(uint64_t id) {
  control::v1::CheckRequest request;
  request.set_id(std::to_string(id));
  control::v1::CheckResponse response;
  grpc::Status called = CallUntil(steady_clock::now() + options_.local_timeout,
                                  [&](grpc::ClientContext* context) { return stub_->control->Check(context, request, &response); });
  HR_RETURN_IF_ERROR(FromLocalCall(called, options_.socket));
  if (response.path().empty() || response.path().front() != '/') {
    return InternalError("headrace-fused answered Check with the path \"" + response.path() +
                         "\", not an absolute one");
  }
  return response.path();
}

Status ControlClient::Unmount(uint64_t id) {
  control::v1::UnmountRequest request;
  request.set_id(std::to_string(id));
  control::v1::UnmountResponse response;
  grpc::Status called = CallUntil(steady_clock::now() + options_.local_timeout,
                                  [&](grpc::ClientContext* context) { return stub_->control->Unmount(context, request, &response); });
  return FromLocalCall(called, options_.socket);
}

Result<std::string> ControlClient::SetCredentials(const std::vector<ImageCredentials>& credentials,
                                                  std::chrono::milliseconds timeout) {
  control::v1::SetCredentialsRequest request;
  for (const ImageCredentials& one : credentials) {
    auto* out = request.add_credentials();
    out->set_image(one.image);
    out->set_username(one.username);
    out->set_password(one.password);
    out->set_identity_token(one.identity_token);
  }
  grpc::ClientContext context;
  context.set_deadline(WallDeadline(steady_clock::now() + timeout));
  control::v1::SetCredentialsResponse response;
  HR_RETURN_IF_ERROR(
      FromLocalCall(stub_->control->SetCredentials(&context, request, &response), options_.socket));
  return response.instance();
}

}  // namespace headrace::snapshotter
