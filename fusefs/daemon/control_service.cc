#include "fusefs/daemon/control_service.h"

#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "headrace/control.grpc.pb.h"

namespace headrace::daemon {
namespace {

namespace pb = headrace::control::v1;

constexpr int kControlThreads = 64;
constexpr std::chrono::seconds kShutdownGrace{2};
constexpr char kAnswerMark[] = "headrace-fused";

grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // The details tell an answer of ours from one that gRPC makes up when the connection breaks.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), status.message(), kAnswerMark);
}

// The edge: nothing is thrown into gRPC; every failure is logged once, here.
grpc::Status Edge(const char* method, const std::string& id, const std::function<Status()>& call) {
  Status status;
  try {
    status = call();
  } catch (const std::bad_alloc&) {
    status = ResourceExhaustedError("out of memory");
  } catch (const std::exception& e) {
    status = InternalError(e.what());
  }
  if (!status.ok() && status.code() != StatusCode::kNotFound && status.code() != StatusCode::kUnimplemented) {
    log::Warn("control call failed method={} id={} error=\"{}\"", method, id, status.ToString());
  }
  return ToGrpc(status);
}

// Differs from every other process's, those with the same number included.
std::string NewInstance() {
  return std::to_string(::getpid()) + "-" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count());
}

class Service : public pb::Control::Service {
 public:
  Service(std::string mountpoint, LayerManager& manager, registry::RememberedCredentials& credentials, const Metrics& metrics)
      : mountpoint_(std::move(mountpoint)), manager_(manager), credentials_(credentials), metrics_(metrics) {}

  grpc::Status Mount(grpc::ServerContext*, const pb::MountRequest* request, pb::MountResponse* response) override {
    return Edge("Mount", request->id(), [&]() -> HrStatus {
      MountArgs args;
      args.id = request->id();
      args.parent_id = request->parent_id();
      args.above_foreign = request->above_foreign();
      args.image_ref = request->layer().image_ref();
      args.manifest_digest = request->layer().manifest_digest();
      args.blob_digest = request->layer().blob_digest();
      args.toc = request->layer().toc();
      args.no_fill = request->no_fill();
      HR_ASSIGN_OR_RETURN(Mounted mounted, manager_.Mount(args));
      response->set_path(mounted.path);
      response->set_files(static_cast<int64_t>(mounted.files));
      response->set_size(static_cast<int64_t>(mounted.size));
      response->set_pending(mounted.pending);
      response->set_done_bytes(static_cast<int64_t>(mounted.done_bytes));
      response->set_total_bytes(static_cast<int64_t>(mounted.total_bytes));
      return OkStatus();
    });
  }

  grpc::Status Check(grpc::ServerContext*, const pb::CheckRequest* request, pb::CheckResponse* response) override {
    return Edge("Check", request->id(), [&]() -> HrStatus {
      HR_ASSIGN_OR_RETURN(std::string path, manager_.Check(request->id()));
      response->set_path(path);
      return OkStatus();
    });
  }

  grpc::Status Unmount(grpc::ServerContext*, const pb::UnmountRequest* request, pb::UnmountResponse*) override {
    return Edge("Unmount", request->id(), [&] { return manager_.Unmount(request->id()); });
  }

  grpc::Status Status(grpc::ServerContext*, const pb::StatusRequest*, pb::StatusResponse* response) override {
    return Edge("Status", "", [&] {
      response->set_version(HEADRACE_VERSION);
      response->set_mountpoint(mountpoint_);
      for (const LayerState& layer : manager_.Layers()) {
        pb::LayerStatus* out = response->add_layers();
        out->set_blob_digest(layer.blob_digest);
        out->set_image_ref(layer.image_ref);
        out->set_format(std::string(layer.format));
        out->set_size(static_cast<int64_t>(layer.size));
        out->set_resident(static_cast<int64_t>(layer.resident));
        out->set_files(static_cast<int64_t>(layer.files));
        for (const std::string& id : layer.ids) out->add_ids(id);
      }
      auto& metrics = *response->mutable_metrics();
#define HEADRACE_EXPORT(field, name, type, help) metrics[name] = Metrics::Get(metrics_.field);
      HEADRACE_METRICS(HEADRACE_EXPORT)
#undef HEADRACE_EXPORT
      return OkStatus();
    });
  }

  grpc::Status SetCredentials(grpc::ServerContext*, const pb::SetCredentialsRequest* request,
                              pb::SetCredentialsResponse* response) override {
    return Edge("SetCredentials", "", [&] {
      response->set_instance(instance_);
      int rejected = 0;
      for (const pb::ImageCredentials& one : request->credentials()) {
        if (!credentials_.Remember(one.image(), {one.username(), one.password(), one.identity_token()}).ok()) ++rejected;
      }
      response->set_rejected(rejected);
      return OkStatus();
    });
  }

 private:
  using HrStatus = headrace::Status;
  const std::string mountpoint_;
  LayerManager& manager_;
  registry::RememberedCredentials& credentials_;
  const Metrics& metrics_;
  const std::string instance_ = NewInstance();
};

class ControlServerImpl : public ControlServer {
 public:
  ControlServerImpl(std::string mountpoint, LayerManager& manager, registry::RememberedCredentials& credentials, const Metrics& metrics)
      : service_(std::move(mountpoint), manager, credentials, metrics) {}
  ~ControlServerImpl() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  }

  Status Listen(const std::string& socket) {
    grpc::ServerBuilder builder;
    grpc::ResourceQuota quota("control");
    quota.SetMaxThreads(kControlThreads);
    builder.SetResourceQuota(quota);
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (!server_) return UnavailableError("cannot listen on " + socket);
    // The socket gives whoever may open it the right to mount: root only.
    if (::chmod(socket.c_str(), 0600) != 0) return Status::FromErrno(errno, "chmod " + socket);
    return OkStatus();
  }

 private:
  Service service_;
  std::unique_ptr<grpc::Server> server_;
};

// True if somebody answers at the socket.
bool IsLive(const std::string& socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket.data(), socket.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return fd.valid() && ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::Start(const std::string& socket, const std::string& mountpoint,
                                                            LayerManager& manager, registry::RememberedCredentials& credentials,
                                                            const Metrics& metrics) {
  if (socket.empty() || socket[0] != '/' || socket.size() >= sizeof(sockaddr_un{}.sun_path)) {
    return InvalidArgumentError("control socket \"" + socket + "\": an absolute path of at most 107 bytes is needed");
  }
  HR_RETURN_IF_ERROR(MakeDirs(socket.substr(0, std::max<size_t>(socket.rfind('/'), 1)), 0755));
  if (IsLive(socket)) return FailedPreconditionError("control socket " + socket + " is in use by another process");
  if (::unlink(socket.c_str()) != 0 && errno != ENOENT) return Status::FromErrno(errno, "unlink " + socket);
  auto server = std::make_unique<ControlServerImpl>(mountpoint, manager, credentials, metrics);
  HR_RETURN_IF_ERROR(server->Listen(socket));
  return std::unique_ptr<ControlServer>(std::move(server));
}

}  // namespace headrace::daemon
