#include "test/daemon/daemon_fixture.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <span>

#include "fusefs/base/file.h"
#include "test/support/overlay_dirs.h"

// libfuse keeps the copy of the mount point's name when it is a descriptor ("/dev/fd/N"): a few bytes for each session.
extern "C" const char* __lsan_default_suppressions() { return "leak:fuse_session_mount\n"; }

namespace headrace::test {
namespace {

constexpr std::chrono::seconds kCallDeadline{30};

Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return OkStatus();
  return Status(static_cast<StatusCode>(status.error_code()), status.error_message());
}

void SetDeadline(grpc::ClientContext& context) { context.set_deadline(std::chrono::system_clock::now() + kCallDeadline); }

}  // namespace

PublishedLayer Publish(FakeRegistry& registry, const std::string& repository, const TreeLayer& layer, uint64_t chunk_size) {
  PublishedLayer out;
  auto tar = ToTar(layer);
  EXPECT_OK(tar);
  format::LayerWriterOptions options;
  options.chunk_size = chunk_size;
  options.zstd_level = 1;
  auto writer = format::LayerWriter::Create(options, [&](std::span<const uint8_t> bytes) {
    out.blob.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return OkStatus();
  });
  EXPECT_OK(writer);
  EXPECT_OK((*writer)->Write({reinterpret_cast<const uint8_t*>(tar->data()), tar->size()}));
  auto summary = (*writer)->Finish();
  EXPECT_OK(summary);
  out.location = summary->toc;
  out.toc = summary->toc.ToString();
  out.digest = registry.AddBlob(repository, out.blob);
  EXPECT_EQ(out.digest, summary->blob_digest);
  return out;
}

void DaemonFixture::SetUp() {
  if (::geteuid() != 0 || ::access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "NOT TESTED: needs root and /dev/fuse";
  const Status private_mounts = MountPrivateTmpfs(dir.path());
  if (!private_mounts.ok()) GTEST_SKIP() << "NOT TESTED: no private mounts here: " << private_mounts.ToString();
  options.config.root = dir / "root";
  options.config.mountpoint = dir / "fs";
  options.config.control_socket = dir / "control.sock";
  options.config.read_deadline = std::chrono::seconds(60);
  options.config.stall_timeout = std::chrono::seconds(1);
  options.config.connect_timeout = std::chrono::seconds(1);
  options.toc_deadline = std::chrono::milliseconds(1500);
  Start();
}

void DaemonFixture::TearDown() {
  registry.Release();
  Stop();
  ::umount2(dir.path().c_str(), MNT_DETACH);
}

void DaemonFixture::Start() {
  auto started = daemon::Daemon::Create(options, [this] { ++ended; });
  ASSERT_OK(started);
  daemon = std::move(*started);
}

std::unique_ptr<control::Control::Stub> DaemonFixture::Client() const {
  grpc::ChannelArguments arguments;
  // A channel of its own each time: one that is shared remembers that the daemon was away.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return control::Control::NewStub(
      grpc::CreateCustomChannel("unix:" + options.config.control_socket, grpc::InsecureChannelCredentials(), arguments));
}

control::MountRequest DaemonFixture::Request(const std::string& id, const std::string& parent, const PublishedLayer& layer,
                                             bool above_foreign) const {
  control::MountRequest request;
  request.set_id(id);
  request.set_parent_id(parent);
  request.set_above_foreign(above_foreign);
  request.mutable_layer()->set_image_ref(registry.host() + "/" + repository + ":latest");
  request.mutable_layer()->set_manifest_digest("sha256:" + std::string(64, '0'));
  request.mutable_layer()->set_blob_digest(layer.digest.ToString());
  request.mutable_layer()->set_toc(layer.toc);
  return request;
}

Status DaemonFixture::Mount(const control::MountRequest& request) {
  control::MountResponse response;
  Status status;
  const auto deadline = std::chrono::steady_clock::now() + kCallDeadline;
  do {  // a layer that is read whole first is asked for again
    grpc::ClientContext context;
    SetDeadline(context);
    response.Clear();
    status = FromGrpc(Client()->Mount(&context, request, &response));
  } while (status.ok() && response.pending() && std::chrono::steady_clock::now() < deadline);
  if (status.ok()) {
    EXPECT_EQ(response.path(), Path(request.id()));
  }
  return status;
}

Status DaemonFixture::Mount(const std::string& id, const std::string& parent, const PublishedLayer& layer, bool above_foreign) {
  return Mount(Request(id, parent, layer, above_foreign));
}

Status DaemonFixture::Unmount(const std::string& id) {
  grpc::ClientContext context;
  SetDeadline(context);
  control::UnmountRequest request;
  control::UnmountResponse response;
  request.set_id(id);
  return FromGrpc(Client()->Unmount(&context, request, &response));
}

Status DaemonFixture::Check(const std::string& id) {
  grpc::ClientContext context;
  SetDeadline(context);
  control::CheckRequest request;
  control::CheckResponse response;
  request.set_id(id);
  return FromGrpc(Client()->Check(&context, request, &response));
}

control::StatusResponse DaemonFixture::GetStatus() {
  grpc::ClientContext context;
  SetDeadline(context);
  control::StatusResponse response;
  EXPECT_OK(FromGrpc(Client()->Status(&context, {}, &response)));
  return response;
}

std::string DaemonFixture::MountChain(const std::vector<TreeLayer>& layers, int first, bool above_foreign) {
  std::string parent;
  for (const TreeLayer& layer : layers) {
    std::string id = std::to_string(first++);
    EXPECT_OK(Mount(id, parent, Publish(registry, repository, layer), above_foreign));
    parent = id;
  }
  return Path(parent);
}

std::string Slurp(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "errno " + std::to_string(errno);
  UniqueFd owner(fd);
  std::string bytes;
  char buffer[64 << 10];
  for (;;) {
    ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0) return "errno " + std::to_string(errno);
    if (n == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace headrace::test
