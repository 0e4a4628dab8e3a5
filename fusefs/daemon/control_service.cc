#include "fusefs/daemon/control_service.h"

#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <set>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/daemon/control_messages.h"
#include "fusefs/daemon/prefetch.h"
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
  explicit Service(const ControlParts& parts)
      : mountpoint_(parts.mountpoint), manager_(parts.manager), credentials_(parts.credentials), streamer_(parts.streamer), cache_(parts.cache), metrics_(parts.metrics) {}

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

  grpc::Status Status(grpc::ServerContext*, const pb::StatusRequest* request, pb::StatusResponse* response) override {
    return Edge("Status", request->what(), [&]() -> HrStatus {
      HR_ASSIGN_OR_RETURN(const std::vector<LayerState> layers, manager_.Layers(request->what()));
      response->set_version(HEADRACE_VERSION);
      response->set_mountpoint(mountpoint_);
      for (const LayerState& layer : layers) FillLayer(layer, request->files(), response->add_layers());
      FillSpace(cache_.Usage(), response->mutable_cache());
      auto& metrics = *response->mutable_metrics();
#define HEADRACE_EXPORT(field, name, type, help) metrics[name] = Metrics::Get(metrics_.field);
      HEADRACE_METRICS(HEADRACE_EXPORT)
#undef HEADRACE_EXPORT
      return OkStatus();
    });
  }

  grpc::Status Cache(grpc::ServerContext*, const pb::CacheRequest* request, pb::CacheResponse* response) override {
    return Edge("Cache", "", [&] {
      FillCache(cache_.List(), cache_.Pinned(), request->contents(), response);
      FillSpace(cache_.Usage(), response->mutable_space());
      const auto now = std::chrono::system_clock::now().time_since_epoch();
      response->set_now(std::chrono::duration_cast<std::chrono::seconds>(now).count());
      return OkStatus();
    });
  }

  grpc::Status Prune(grpc::ServerContext*, const pb::PruneRequest* request, pb::PruneResponse* response) override {
    return Edge("Prune", "", [&]() -> HrStatus {
      if (request->keep_bytes() < 0 || request->min_age_seconds() < 0) return InvalidArgumentError("a negative size or age");
      HR_ASSIGN_OR_RETURN(const cache::Pruned pruned, cache_.Prune({.keep_bytes = static_cast<uint64_t>(request->keep_bytes()),
                                                                    .min_age = std::chrono::seconds(request->min_age_seconds()),
                                                                    .mounted = request->mounted(),
                                                                    .dry_run = request->dry_run()}));
      response->set_contents(static_cast<int64_t>(pruned.contents));
      response->set_bytes(static_cast<int64_t>(pruned.bytes));
      return OkStatus();
    });
  }

  grpc::Status Pin(grpc::ServerContext*, const pb::PinRequest* request, pb::PinResponse* response) override {
    return Edge("Pin", request->what(), [&]() -> HrStatus {
      HR_ASSIGN_OR_RETURN(const LayerSelection found, manager_.Select(request->what()));
      if (found.unverified) return FailedPreconditionError(found.name + " has a layer that is still being verified (headrace status); pin it when that has ended");
      HR_RETURN_IF_ERROR(cache_.Pin(found.name, found.contents, LayerNotes(found.keys)));
      HR_ASSIGN_OR_RETURN(const std::vector<LayerState> layers, manager_.Layers(request->what()));
      uint64_t size = 0, resident = 0;
      for (const LayerState& layer : layers) {
        size += layer.size;
        resident += layer.resident;
      }
      response->set_name(found.name);
      response->set_layers(static_cast<int64_t>(found.layers.size()));
      response->set_contents(static_cast<int64_t>(std::set<Digest>(found.contents.begin(), found.contents.end()).size()));
      response->set_size(static_cast<int64_t>(size));
      response->set_resident(static_cast<int64_t>(resident));
      return OkStatus();
    });
  }

  grpc::Status Unpin(grpc::ServerContext*, const pb::UnpinRequest* request, pb::UnpinResponse* response) override {
    return Edge("Unpin", request->what(), [&]() -> HrStatus {
      response->set_name(request->what());
      return cache_.Unpin(request->what());
    });
  }

  grpc::Status Prefetch(grpc::ServerContext* context, const pb::PrefetchRequest* request, grpc::ServerWriter<pb::PrefetchProgress>* writer) override {
    return Edge("Prefetch", request->what(), [&]() -> HrStatus {
      HR_ASSIGN_OR_RETURN(const LayerSelection found, manager_.Select(request->what()));
      return daemon::Prefetch(found.layers, streamer_, cache_, {}, [&](const PrefetchState& state) {
        if (context->IsCancelled() || stopping_.load(std::memory_order_acquire)) return false;
        pb::PrefetchProgress progress;
        progress.set_total_bytes(static_cast<int64_t>(state.total_bytes));
        progress.set_done_bytes(static_cast<int64_t>(state.done_bytes));
        progress.set_files(static_cast<int64_t>(state.files));
        progress.set_done_files(static_cast<int64_t>(state.done_files));
        return writer->Write(progress);
      });
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

  // Prefetches end at their next report.
  void Stop() { stopping_.store(true, std::memory_order_release); }

 private:
  using HrStatus = headrace::Status;
  const std::string mountpoint_;
  LayerManager& manager_;
  registry::RememberedCredentials& credentials_;
  stream::Streamer& streamer_;
  cache::ContentStore& cache_;
  const Metrics& metrics_;
  const std::string instance_ = NewInstance();
  std::atomic<bool> stopping_{false};
};

class ControlServerImpl : public ControlServer {
 public:
  explicit ControlServerImpl(const ControlParts& parts) : service_(parts) {}
  ~ControlServerImpl() override {
    service_.Stop();
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

Result<std::unique_ptr<ControlServer>> ControlServer::Start(const std::string& socket, const ControlParts& parts) {
  if (socket.empty() || socket[0] != '/' || socket.size() >= sizeof(sockaddr_un{}.sun_path)) {
    return InvalidArgumentError("control socket \"" + socket + "\": an absolute path of at most 107 bytes is needed");
  }
  HR_RETURN_IF_ERROR(MakeDirs(socket.substr(0, std::max<size_t>(socket.rfind('/'), 1)), 0755));
  if (IsLive(socket)) return FailedPreconditionError("control socket " + socket + " is in use by another process");
  if (::unlink(socket.c_str()) != 0 && errno != ENOENT) return Status::FromErrno(errno, "unlink " + socket);
  auto server = std::make_unique<ControlServerImpl>(parts);
  HR_RETURN_IF_ERROR(server->Listen(socket));
  return std::unique_ptr<ControlServer>(std::move(server));
}

}  // namespace headrace::daemon
