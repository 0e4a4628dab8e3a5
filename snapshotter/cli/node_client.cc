#include "snapshotter/cli/node_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <climits>
#include <utility>

#include "headrace/control.grpc.pb.h"

namespace headrace::cli {
namespace {

namespace pb = headrace::control::v1;

constexpr std::chrono::seconds kTimeout{30};
constexpr std::chrono::minutes kPruneTimeout{31};
constexpr std::chrono::hours kPrefetchTimeout{24 * 7};
// In the details of an error that the daemon gave, and gRPC did not make up (fusefs/daemon/control_service.cc).
constexpr char kAnswerMark[] = "headrace-fused";

}  // namespace

struct NodeClient::Stub {
  explicit Stub(const std::string& socket) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(INT_MAX);  // the files of an image may be many
    control = pb::Control::NewStub(grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
  }

  template <typename Request, typename Response>
  Result<Response> Call(grpc::Status (pb::Control::Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request, const std::string& socket,
                        std::chrono::seconds timeout = kTimeout) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    Response response;
    const grpc::Status status = (control.get()->*method)(&context, request, &response);
    if (status.ok()) return response;
    return Translate(status, socket);
  }

  static headrace::Status Translate(const grpc::Status& status, const std::string& socket) {
    if (status.error_details() == kAnswerMark || status.error_code() == grpc::StatusCode::CANCELLED) {
      return {static_cast<StatusCode>(status.error_code()), status.error_message()};
    }
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) return FailedPreconditionError("headrace-fused at " + socket + " is of a version that cannot do this");
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) return FailedPreconditionError("headrace-fused at " + socket + " did not answer in time");
    return FailedPreconditionError("headrace-fused does not answer at " + socket + ": " + status.error_message() +
                                   "\n  Is it running (systemctl status headrace-fused)? Another socket: --control-socket PATH.");
  }

  std::unique_ptr<pb::Control::Stub> control;
};

NodeClient::NodeClient(std::string socket) : socket_(std::move(socket)), stub_(std::make_unique<Stub>(socket_)) {}
NodeClient::~NodeClient() = default;

Result<pb::StatusResponse> NodeClient::GetStatus(const pb::StatusRequest& request) { return stub_->Call(&pb::Control::Stub::Status, request, socket_); }
Result<pb::CacheResponse> NodeClient::GetCache(const pb::CacheRequest& request) { return stub_->Call(&pb::Control::Stub::Cache, request, socket_); }
Result<pb::PruneResponse> NodeClient::Prune(const pb::PruneRequest& request) { return stub_->Call(&pb::Control::Stub::Prune, request, socket_, kPruneTimeout); }
Result<pb::PinResponse> NodeClient::Pin(const pb::PinRequest& request) { return stub_->Call(&pb::Control::Stub::Pin, request, socket_); }
Result<pb::UnpinResponse> NodeClient::Unpin(const pb::UnpinRequest& request) { return stub_->Call(&pb::Control::Stub::Unpin, request, socket_); }

headrace::Status NodeClient::Prefetch(const pb::PrefetchRequest& request, const std::function<bool(const pb::PrefetchProgress&)>& progress) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPrefetchTimeout);
  const std::unique_ptr<grpc::ClientReader<pb::PrefetchProgress>> reader = stub_->control->Prefetch(&context, request);
  pb::PrefetchProgress report;
  bool cancelled = false;
  while (reader->Read(&report)) {
    if (cancelled || progress(report)) continue;
    cancelled = true;
    context.TryCancel();
  }
  const grpc::Status status = reader->Finish();
  if (cancelled) return CancelledError("interrupted");
  return status.ok() ? OkStatus() : Stub::Translate(status, socket_);
}

}  // namespace headrace::cli
