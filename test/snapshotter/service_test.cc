// The gRPC edge: a real server on a unix socket and a client made from the same proto; and the
// control client against a server that plays headrace-fused.
#include <grpcpp/grpcpp.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <limits>

#include "containerd/snapshots.grpc.pb.h"
#include "headrace/control.grpc.pb.h"
#include "snapshotter/layers/control_client.h"
#include "snapshotter/service/grpc_status.h"
#include "snapshotter/service/snapshots_service.h"
#include "test/snapshotter/core_fixture.h"

namespace headrace::snapshotter {
namespace {

namespace api = ::containerd::services::snapshots::v1;
using testing::ElementsAre;
using testing::HasSubstr;

class ServiceTest : public CoreTest {
 protected:
  void SetUp() override {
    CoreTest::SetUp();
    std::string socket = dir_ / "s.sock";
    auto served = Serve(core_.get(), socket);
    ASSERT_OK(served);
    served_ = std::move(served).value();
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
    client_ = api::Snapshots::NewStub(
        grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
  }
  void TearDown() override {
    if (served_.server) served_.server->Shutdown(std::chrono::system_clock::now());
    served_.server.reset();
  }

  // Every call of a test has a deadline.
  std::unique_ptr<grpc::ClientContext> Context() {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    context->AddMetadata("containerd-namespace", "test");
    return context;
  }
  grpc::Status CallPrepare(const std::string& key, const std::string& parent, const Labels& labels,
                           api::PrepareSnapshotResponse* response) {
    api::PrepareSnapshotRequest request;
    request.set_snapshotter("headrace");
    request.set_key(key);
    request.set_parent(parent);
    request.mutable_labels()->insert(labels.begin(), labels.end());
    return client_->Prepare(Context().get(), request, response);
  }
  grpc::Status CallCommit(const std::string& name, const std::string& key,
                          const Labels& labels = {}) {
    api::CommitSnapshotRequest request;
    request.set_name(name);
    request.set_key(key);
    request.mutable_labels()->insert(labels.begin(), labels.end());
    google::protobuf::Empty response;
    return client_->Commit(Context().get(), request, &response);
  }

  ServedSnapshotter served_;
  std::unique_ptr<api::Snapshots::Stub> client_;
};

// Goal: all ten calls go through, with every field.
TEST_F(ServiceTest, RoundTrip) {
  api::PrepareSnapshotResponse prepared;
  ASSERT_TRUE(
      CallPrepare("k8s.io/1/extract-1 a", "", {{"containerd.io/snapshot/x", "1"}}, &prepared).ok());
  ASSERT_EQ(prepared.mounts_size(), 1);
  EXPECT_EQ(prepared.mounts(0).type(), "bind");
  EXPECT_EQ(prepared.mounts(0).source(), Dir(1) + "/fs");
  EXPECT_THAT(std::vector<std::string>(prepared.mounts(0).options().begin(),
                                       prepared.mounts(0).options().end()),
              ElementsAre("rw", "rbind"));

  api::MountsRequest mounts_request;
  mounts_request.set_key("k8s.io/1/extract-1 a");
  api::MountsResponse mounts;
  ASSERT_TRUE(client_->Mounts(Context().get(), mounts_request, &mounts).ok());
  EXPECT_EQ(mounts.mounts(0).source(), prepared.mounts(0).source());
  ASSERT_TRUE(CallCommit("c", "k8s.io/1/extract-1 a", {{"l", "v"}}).ok());

  api::StatSnapshotRequest stat_request;
  stat_request.set_key("c");
  api::StatSnapshotResponse stat;
  ASSERT_TRUE(client_->Stat(Context().get(), stat_request, &stat).ok());
  EXPECT_EQ(stat.info().name(), "c");
  EXPECT_EQ(stat.info().kind(), api::COMMITTED);
  EXPECT_EQ(stat.info().labels().at("l"), "v");
  Info info = *core_->Stat("c");
  EXPECT_EQ(stat.info().created_at().seconds() * 1'000'000'000 + stat.info().created_at().nanos(),
            info.created_ns);
  EXPECT_EQ(stat.info().updated_at().nanos(), stat.info().created_at().nanos());

  api::ViewSnapshotRequest view_request;
  view_request.set_key("v");
  view_request.set_parent("c");
  api::ViewSnapshotResponse view;
  ASSERT_TRUE(client_->View(Context().get(), view_request, &view).ok());
  EXPECT_EQ(view.mounts(0).options(0), "ro");

  api::UpdateSnapshotRequest update_request;
  update_request.mutable_info()->set_name("c");
  (*update_request.mutable_info()->mutable_labels())["l"] = "w";
  update_request.mutable_update_mask()->add_paths("labels.l");
  api::UpdateSnapshotResponse updated;
  ASSERT_TRUE(client_->Update(Context().get(), update_request, &updated).ok());
  EXPECT_EQ(updated.info().labels().at("l"), "w");

  api::UsageRequest usage_request;
  usage_request.set_key("c");
  api::UsageResponse usage;
  ASSERT_TRUE(client_->Usage(Context().get(), usage_request, &usage).ok());
  EXPECT_EQ(usage.inodes(), 1);

  api::RemoveSnapshotRequest remove_request;
  remove_request.set_key("c");
  google::protobuf::Empty empty;
  grpc::Status refused = client_->Remove(Context().get(), remove_request, &empty);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr("remove"));
  remove_request.set_key("v");
  ASSERT_TRUE(client_->Remove(Context().get(), remove_request, &empty).ok());
  ASSERT_TRUE(client_->Cleanup(Context().get(), api::CleanupRequest(), &empty).ok());
  EXPECT_EQ(DirectoryCount(), 1u);
}

// A listening unix socket, as the service manager makes it.
UniqueFd ListenAt(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(fd.get(), 16), 0);
  return fd;
}

// Goal: socket activation: a call that was made while no process served waits and is answered by the one that comes; a stop leaves the socket, and the
// next process answers on it.
TEST_F(ServiceTest, ServesASocketThatSomebodyElseListensOn) {
  const std::string path = dir_ / "handed.sock";
  const UniqueFd listener = ListenAt(path);
  auto client = api::Snapshots::NewStub(grpc::CreateChannel("unix:" + path, grpc::InsecureChannelCredentials()));
  for (int round = 0; round < 2; ++round) {
    std::thread caller([&] {
      auto context = Context();
      context->set_wait_for_ready(true);
      api::StatSnapshotRequest request;
      request.set_key("absent");
      api::StatSnapshotResponse response;
      EXPECT_EQ(client->Stat(context.get(), request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
    });
    pollfd pending{listener.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&pending, 1, 30'000), 1);
    auto served = Serve(core_.get(), "/nowhere", UniqueFd(::dup(listener.get())));
    ASSERT_OK(served);
    caller.join();
    served->accept.reset();
    served->server->Shutdown(std::chrono::system_clock::now());
  }
  struct stat st;
  EXPECT_EQ(::stat(path.c_str(), &st), 0);
}

// Goal: what is no listening socket is refused with its reason.
TEST_F(ServiceTest, OtherDescriptorsAreNotServed) {
  EXPECT_CODE(Serve(core_.get(), "/nowhere", UniqueFd(::open("/dev/null", O_RDONLY))), StatusCode::kInvalidArgument);
  EXPECT_CODE(Serve(core_.get(), "/nowhere", UniqueFd(::socket(AF_UNIX, SOCK_STREAM, 0))), StatusCode::kInvalidArgument);
}

// Goal: List streams in batches of 100, while calls on the same snapshots are answered, and filters
// by its own language.
TEST_F(ServiceTest, ListInBatches) {
  for (int i = 0; i < 250; ++i)
    ASSERT_OK(Prepare("key" + std::to_string(i), "", {{"n", std::to_string(i % 2)}}));
  api::ListSnapshotsRequest request;
  auto context = Context();
  auto reader = client_->List(context.get(), request);
  api::ListSnapshotsResponse batch;
  std::vector<int> sizes;
  while (reader->Read(&batch)) {
    sizes.push_back(batch.info_size());
    EXPECT_OK(core_->Update(batch.info(0).name(), {{"seen", "1"}}, {}));
    EXPECT_EQ(batch.info(0).kind(), api::ACTIVE);
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_THAT(sizes, ElementsAre(100, 100, 50));

  request.add_filters("labels.n==1,kind==active");
  auto context2 = Context();
  reader = client_->List(context2.get(), request);
  int count = 0;
  while (reader->Read(&batch)) count += batch.info_size();
  EXPECT_TRUE(reader->Finish().ok());
  // Updating the first of each batch replaced its labels; keys 0, 100 and 200 are even.
  EXPECT_EQ(count, 125);

  request.add_filters("name=");
  auto context3 = Context();
  reader = client_->List(context3.get(), request);
  while (reader->Read(&batch)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

// Goal: requests far beyond what containerd sends are refused without harm.
TEST_F(ServiceTest, Limits) {
  api::PrepareSnapshotResponse response;
  EXPECT_EQ(CallPrepare(std::string(kNameBytesMax + 1, 'k'), "", {}, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(CallPrepare(std::string(17 << 20, 'k'), "", {}, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(CallPrepare("k", "", {}, &response).ok());
}

// Goal: a lazy Prepare looks to containerd as it must.
TEST_F(ServiceTest, LazyPrepare) {
  api::PrepareSnapshotResponse response;
  EXPECT_EQ(CallPrepare("ns/1/extract-1 chain1", "", LazyLabels("chain1"), &response).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  api::ListSnapshotsRequest request;
  request.add_filters("labels.\"containerd.io/snapshot.ref\"==chain1,parent==\"\"");
  auto context = Context();
  auto reader = client_->List(context.get(), request);
  api::ListSnapshotsResponse batch;
  ASSERT_TRUE(reader->Read(&batch));
  EXPECT_EQ(batch.info(0).kind(), api::COMMITTED);
  EXPECT_EQ(batch.info(0).labels().at("containerd.io/snapshot.ref"), "chain1");
  EXPECT_FALSE(reader->Read(&batch));
  EXPECT_TRUE(reader->Finish().ok());
}

// Goal: the socket is for root only, and a stale one does not stop a start.
TEST_F(ServiceTest, Socket) {
  struct stat st;
  ASSERT_EQ(::stat((dir_ / "s.sock").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  std::string stale = dir_ / "stale.sock";
  ASSERT_OK(WriteFileAtomic(stale, ""));
  auto second = Serve(core_.get(), stale);
  ASSERT_OK(second);
  second->server->Shutdown(std::chrono::system_clock::now());
  EXPECT_FALSE(Serve(core_.get(), dir_ / "no/such/dir.sock").ok());
  EXPECT_FALSE(Serve(core_.get(), dir_ / std::string(200, 'x')).ok());
}

// Goal: the table is total and maps by value.
TEST(GrpcStatusTest, EveryCode) {
  for (int code = 0; code <= 16; ++code) {
    EXPECT_EQ(static_cast<int>(ToGrpcCode(static_cast<StatusCode>(code))), code);
    if (code == 0) continue;
    grpc::Status mapped = ToGrpc(Status(static_cast<StatusCode>(code), "message"));
    EXPECT_EQ(static_cast<int>(mapped.error_code()), code);
    EXPECT_EQ(mapped.error_message(), "message");
  }
  EXPECT_TRUE(ToGrpc(OkStatus()).ok());
  EXPECT_EQ(ToGrpcCode(static_cast<StatusCode>(99)), grpc::StatusCode::UNKNOWN);
  EXPECT_LT(ToGrpc(InternalError(std::string(100'000, 'x'))).error_message().size(), 8192u);
}

namespace control = ::headrace::control::v1;

class FakeControl final : public control::Control::Service {
 public:
  grpc::Status Mount(grpc::ServerContext*, const control::MountRequest* request,
                     control::MountResponse* response) override {
    last = *request;
    if (!error.ok()) return error;
    if (pending) {
      response->set_pending(true);
      response->set_done_bytes(3);
      response->set_total_bytes(10);
      return grpc::Status::OK;
    }
    response->set_path(path + request->id());
    return grpc::Status::OK;
  }
  grpc::Status Check(grpc::ServerContext*, const control::CheckRequest* request,
                     control::CheckResponse* response) override {
    ++checks;
    if (cut_off > 0) {
      --cut_off;
      return {grpc::StatusCode::UNAVAILABLE, "Socket closed"};  // as gRPC says it when the daemon dies
    }
    if (!error.ok()) return error;
    response->set_path(path + request->id());
    return grpc::Status::OK;
  }
  grpc::Status Unmount(grpc::ServerContext*, const control::UnmountRequest*,
                       control::UnmountResponse*) override {
    return error;
  }
  grpc::Status SetCredentials(grpc::ServerContext*, const control::SetCredentialsRequest* request,
                              control::SetCredentialsResponse* response) override {
    told = *request;
    response->set_instance("one");
    return error;
  }

  control::MountRequest last;
  control::SetCredentialsRequest told;
  std::string path = "/run/headrace/fs/";
  bool pending = false;
  std::atomic<int> checks{0};
  std::atomic<int> cut_off{0};
  grpc::Status error;
};

std::unique_ptr<grpc::Server> Listen(FakeControl& service, const std::string& socket) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  return builder.BuildAndStart();
}

// Goal: the client says what the proto says, maps errors by code with the daemon's words, and calls
// a daemon that is not there so.
TEST(ControlClientTest, Calls) {
  test::TempDir dir;
  std::string socket = dir / "control.sock";
  ControlClient client({.socket = socket, .local_timeout = std::chrono::milliseconds(300)});
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  Result<std::string> absent = client.Check(7);
  EXPECT_CODE(absent, StatusCode::kUnavailable);
  EXPECT_THAT(absent.status().message(), HasSubstr(socket));
  EXPECT_CODE(client.Unmount(7), StatusCode::kUnavailable);
  EXPECT_CODE(client.SetCredentials({}, std::chrono::milliseconds(300)), StatusCode::kUnavailable);
  EXPECT_FALSE(client.Mount({7, std::nullopt, {}}, std::chrono::steady_clock::now()).ok());

  FakeControl service;
  auto server = Listen(service, socket);
  ASSERT_NE(server, nullptr);
  ControlClient patient({.socket = socket, .local_timeout = std::chrono::seconds(60)});
  Result<MountAnswer> path =
      patient.Mount({12, 7, {"r/i:1", "sha256:m", "sha256:b", "v1,t", true}}, deadline);
  ASSERT_OK(path);
  EXPECT_EQ(*path, (MountAnswer{"/run/headrace/fs/12"}));
  EXPECT_EQ(service.last.id(), "12");
  EXPECT_EQ(service.last.parent_id(), "7");
  EXPECT_TRUE(service.last.above_foreign());
  EXPECT_EQ(service.last.layer().image_ref(), "r/i:1");
  EXPECT_EQ(service.last.layer().manifest_digest(), "sha256:m");
  EXPECT_EQ(service.last.layer().blob_digest(), "sha256:b");
  EXPECT_EQ(service.last.layer().toc(), "v1,t");
  ASSERT_OK(patient.Mount({13, std::nullopt, {}}, std::chrono::steady_clock::time_point::max()));
  EXPECT_EQ(service.last.parent_id(), "");
  EXPECT_EQ(*patient.Check(12), "/run/headrace/fs/12");
  EXPECT_OK(patient.Unmount(12));

  service.pending = true;
  EXPECT_EQ(*patient.Mount({13, std::nullopt, {}}, deadline), (MountAnswer{"", true, 3, 10}));
  service.pending = false;
  EXPECT_EQ(*patient.SetCredentials({{"r/i:1", "u", "p", ""}, {"r/j", "", "", "t"}}, std::chrono::seconds(60)), "one");
  ASSERT_EQ(service.told.credentials_size(), 2);
  EXPECT_EQ(service.told.credentials(0).image(), "r/i:1");
  EXPECT_EQ(service.told.credentials(0).username(), "u");
  EXPECT_EQ(service.told.credentials(0).password(), "p");
  EXPECT_EQ(service.told.credentials(1).identity_token(), "t");

  service.error = {grpc::StatusCode::DATA_LOSS, "layer sha256:b: the TOC does not match"};
  Result<MountAnswer> lost = patient.Mount({14, std::nullopt, {}}, deadline);
  EXPECT_CODE(lost, StatusCode::kDataLoss);
  EXPECT_THAT(lost.status().message(), HasSubstr("the TOC does not match"));
  service.error = {grpc::StatusCode::NOT_FOUND, "unknown id"};
  EXPECT_CODE(patient.Check(99), StatusCode::kNotFound);
  service.error = grpc::Status::OK;
  service.path = "relative/";
  EXPECT_CODE(patient.Mount({15, std::nullopt, {}}, deadline), StatusCode::kInternal);
  EXPECT_CODE(patient.Check(15), StatusCode::kInternal);
  server->Shutdown(std::chrono::system_clock::now());
}

// Goal: a call that the daemon's death cut off is made again until its deadline; an error of the
// daemon's own is an answer.
TEST(ControlClientTest, CallsThatWereCutOff) {
  test::TempDir dir;
  const std::string socket = dir / "control.sock";
  FakeControl service;
  auto server = Listen(service, socket);
  ASSERT_NE(server, nullptr);
  ControlClient client({.socket = socket, .local_timeout = std::chrono::seconds(60)});
  service.cut_off = 3;
  EXPECT_EQ(*client.Check(12), "/run/headrace/fs/12");
  EXPECT_EQ(service.checks, 4);
  service.error = {grpc::StatusCode::UNAVAILABLE, "the registry is away", "headrace-fused"};
  EXPECT_CODE(client.Check(12), StatusCode::kUnavailable);
  EXPECT_EQ(service.checks, 5);
  service.cut_off = 1'000'000;
  ControlClient hasty({.socket = socket, .local_timeout = std::chrono::milliseconds(200)});
  EXPECT_CODE(hasty.Check(12), StatusCode::kUnavailable);
  server->Shutdown(std::chrono::system_clock::now());
}

}  // namespace
}  // namespace headrace::snapshotter
