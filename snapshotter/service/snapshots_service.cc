#include "snapshotter/service/snapshots_service.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <exception>
#include <utility>

#include "containerd/snapshots.grpc.pb.h"
#include "fusefs/base/log.h"
#include "snapshotter/service/grpc_status.h"

namespace headrace::snapshotter {
namespace {

namespace api = ::containerd::services::snapshots::v1;

// As many as containerd's own service sends in one message.
constexpr int kListBatch = 100;
// Handlers block on the disk and, in Prepare, on a registry: enough of them that a few slow
// registries do not stop the others.
constexpr int kThreadsMax = 128;

Labels ToLabels(const google::protobuf::Map<std::string, std::string>& map) {
  return {map.begin(), map.end()};
}

void ToTimestamp(int64_t ns, google::protobuf::Timestamp* out) {
  constexpr int64_t kNsPerSecond = 1'000'000'000;
  out->set_seconds(ns / kNsPerSecond);
  out->set_nanos(static_cast<int32_t>(ns % kNsPerSecond));
}

api::Kind ToKind(Kind kind) {
  switch (kind) {
    case Kind::kView:
      return api::VIEW;
    case Kind::kActive:
      return api::ACTIVE;
    case Kind::kCommitted:
      return api::COMMITTED;
  }
  return api::UNKNOWN;
}

void ToInfo(const Info& info, api::Info* out) {
  out->set_name(info.name);
  out->set_parent(info.parent);
  out->set_kind(ToKind(info.kind));
  ToTimestamp(info.created_ns, out->mutable_created_at());
  ToTimestamp(info.updated_ns, out->mutable_updated_at());
  out->mutable_labels()->insert(info.labels.begin(), info.labels.end());
}

template <typename Response>
void ToMounts(const std::vector<Mount>& mounts, Response* out) {
  for (const Mount& mount : mounts) {
    auto* m = out->add_mounts();
    m->set_type(mount.type);
    m->set_source(mount.source);
    for (const std::string& option : mount.options) m->add_options(option);
  }
}

CallContext ToCall(grpc::ServerContext* context) {
  CallContext call;
  // Clients without a deadline have one at the end of time, which the steady clock cannot express.
  auto left = context->deadline() - std::chrono::system_clock::now();
  if (left < std::chrono::hours(24)) call.deadline = std::chrono::steady_clock::now() + left;
  call.cancelled = [context] { return context->IsCancelled(); };
  return call;
}

class SnapshotsService final : public api::Snapshots::Service {
 public:
  explicit SnapshotsService(Snapshotter* core) : core_(core) {}

  grpc::Status Prepare(grpc::ServerContext* context, const api::PrepareSnapshotRequest* request,
                       api::PrepareSnapshotResponse* response) override {
    return Answer("Prepare", request->key(), [&]() -> Status {
      HR_ASSIGN_OR_RETURN(auto mounts,
                          core_->Prepare(ToCall(context), request->key(), request->parent(),
                                         ToLabels(request->labels())));
      ToMounts(mounts, response);
      return {};
    });
  }

  grpc::Status View(grpc::ServerContext* context, const api::ViewSnapshotRequest* request,
                    api::ViewSnapshotResponse* response) override {
    return Answer("View", request->key(), [&]() -> Status {
      HR_ASSIGN_OR_RETURN(auto mounts, core_->View(ToCall(context), request->key(),
                                                   request->parent(), ToLabels(request->labels())));
      ToMounts(mounts, response);
      return {};
    });
  }

  grpc::Status Mounts(grpc::ServerContext*, const api::MountsRequest* request,
                      api::MountsResponse* response) override {
    return Answer("Mounts", request->key(), [&]() -> Status {
      HR_ASSIGN_OR_RETURN(auto mounts, core_->Mounts(request->key()));
      ToMounts(mounts, response);
      return {};
    });
  }

  grpc::Status Commit(grpc::ServerContext*, const api::CommitSnapshotRequest* request,
                      google::protobuf::Empty*) override {
    return Answer("Commit", request->key(), [&] {
      return core_->Commit(request->name(), request->key(), ToLabels(request->labels()),
                           request->parent());
    });
  }

  grpc::Status Remove(grpc::ServerContext*, const api::RemoveSnapshotRequest* request,
                      google::protobuf::Empty*) override {
    return Answer("Remove", request->key(), [&] { return core_->Remove(request->key()); });
  }

  grpc::Status Stat(grpc::ServerContext*, const api::StatSnapshotRequest* request,
                    api::StatSnapshotResponse* response) override {
    return Answer("Stat", request->key(), [&]() -> Status {
      HR_ASSIGN_OR_RETURN(Info info, core_->Stat(request->key()));
      ToInfo(info, response->mutable_info());
      return {};
    });
  }

  grpc::Status Update(grpc::ServerContext*, const api::UpdateSnapshotRequest* request,
                      api::UpdateSnapshotResponse* response) override {
    return Answer("Update", request->info().name(), [&]() -> Status {
      std::vector<std::string> mask(request->update_mask().paths().begin(),
                                    request->update_mask().paths().end());
      HR_ASSIGN_OR_RETURN(Info info, core_->Update(request->info().name(),
                                                   ToLabels(request->info().labels()), mask));
      ToInfo(info, response->mutable_info());
      return {};
    });
  }

  grpc::Status List(grpc::ServerContext*, const api::ListSnapshotsRequest* request,
                    grpc::ServerWriter<api::ListSnapshotsResponse>* writer) override {
    return Answer("List", "", [&]() -> Status {
      HR_ASSIGN_OR_RETURN(std::vector<Info> infos,
                          core_->List({request->filters().begin(), request->filters().end()}));
      api::ListSnapshotsResponse batch;
      for (const Info& info : infos) {
        ToInfo(info, batch.add_info());
        if (batch.info_size() < kListBatch) continue;
        if (!writer->Write(batch)) return CancelledError("the caller went away");
        batch.Clear();
      }
      if (batch.info_size() > 0 && !writer->Write(batch))
        return CancelledError("the caller went away");
      return {};
    });
  }

  grpc::Status Usage(grpc::ServerContext*, const api::UsageRequest* request,
                     api::UsageResponse* response) override {
    return Answer("Usage", request->key(), [&]() -> Status {
      HR_ASSIGN_OR_RETURN(auto usage, core_->GetUsage(request->key()));
      response->set_size(usage.size);
      response->set_inodes(usage.inodes);
      return {};
    });
  }

  grpc::Status Cleanup(grpc::ServerContext*, const api::CleanupRequest*,
                       google::protobuf::Empty*) override {
    return Answer("Cleanup", "", [&] { return core_->Cleanup(); });
  }

 private:
  template <typename Call>
  grpc::Status Answer(const char* method, const std::string& key, Call call) {
    Status status;
    try {
      status = call();
    } catch (const std::exception& error) {
      status = InternalError(std::string(method) + ": " + error.what());
    } catch (...) {
      status = InternalError(std::string(method) + ": unknown exception");
    }
    // NotFound and AlreadyExists are ordinary answers to containerd's questions.
    bool ordinary = status.ok() || status.code() == StatusCode::kNotFound ||
                    status.code() == StatusCode::kAlreadyExists;
    if (ordinary) {
      log::Debug("call method={} key=\"{}\" status={}", method, key, StatusCodeName(status.code()));
    } else {
      log::Warn("call failed method={} key=\"{}\" error=\"{}\"", method, key, status.ToString());
    }
    return ToGrpc(status);
  }

  Snapshotter* core_;
};

}  // namespace

Result<ServedSnapshotter> Serve(Snapshotter* snapshotter, const std::string& socket, UniqueFd listener) {
  const bool handed = listener.valid();
  if (!handed && ::unlink(socket.c_str()) != 0 && errno != ENOENT)
    return Status::FromErrno(errno, "unlink " + socket);
  ServedSnapshotter out;
  out.service = std::make_unique<SnapshotsService>(snapshotter);
  grpc::ResourceQuota quota("snapshotter");
  quota.SetMaxThreads(kThreadsMax);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  builder.SetMaxSendMessageSize(kMessageBytesMax);
  if (!handed) builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
  builder.RegisterService(out.service.get());
  out.server = builder.BuildAndStart();
  if (out.server == nullptr) {
    return UnavailableError("cannot listen on " + socket +
                            ": its directory must exist and its path may have 107 bytes at most");
  }
  if (handed) {
    HR_ASSIGN_OR_RETURN(out.accept, AcceptLoop::Start(std::move(listener), out.server.get()));
    return out;
  }
  if (::chmod(socket.c_str(), 0600) != 0) return Status::FromErrno(errno, "chmod " + socket);
  return out;
}

}  // namespace headrace::snapshotter
