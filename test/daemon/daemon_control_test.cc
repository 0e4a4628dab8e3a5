// The control API of headrace-fused, end to end: errors, idempotency, what survives a restart.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <future>
#include <thread>

#include "fusefs/base/file.h"
#include "fusefs/daemon/layer_store.h"
#include "test/daemon/daemon_fixture.h"
#include "test/support/noise.h"

namespace headrace::test {
namespace {

using DaemonControlTest = DaemonFixture;

uint64_t Inode(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}

// Goal: a mount shows its files, answers its size, is idempotent, and the same id with another content is refused.
TEST_F(DaemonControlTest, MountIsIdempotent) {
  auto layer = Publish(registry, repository, {Dir("d"), File("d/f", "hello")});
  auto other = Publish(registry, repository, {File("g", "other")});
  ASSERT_OK(Mount("5", "", layer));
  EXPECT_EQ(Slurp(Path("5/d/f")), "hello");
  EXPECT_OK(Mount("5", "", layer));
  EXPECT_OK(Check("5"));
  EXPECT_CODE(Mount("5", "", other), StatusCode::kAlreadyExists);
  EXPECT_CODE(Mount("5", "", layer, true), StatusCode::kAlreadyExists);
  EXPECT_CODE(Check("6"), StatusCode::kNotFound);
  auto status = GetStatus();
  ASSERT_EQ(status.layers_size(), 1);
  EXPECT_EQ(status.layers(0).blob_digest(), layer.digest.ToString());
  EXPECT_EQ(status.layers(0).size(), 5);
  EXPECT_EQ(status.layers(0).files(), 1);
  EXPECT_EQ(status.layers(0).ids(0), "5");
  EXPECT_EQ(status.mountpoint(), options.config.mountpoint);
  EXPECT_EQ(status.metrics().at("headrace_mounts"), 1);
}

// Goal: what the image-service proxy tells opens layers, from the next attempt on; a restart forgets it and says so by another instance.
TEST_F(DaemonControlTest, SetCredentials) {
  auto layer = Publish(registry, repository, {File("f", Noise(300'000, 1))});
  registry.RequireBasic("user", "hunter2");
  auto tell = [&](const std::vector<std::string>& passwords, int* rejected) {
    control::SetCredentialsRequest request;
    for (const std::string& password : passwords) {
      auto* one = request.add_credentials();
      one->set_image(password.empty() ? "Not A Reference" : registry.host() + "/" + repository + ":v1");
      one->set_username("user");
      one->set_password(password);
    }
    control::SetCredentialsResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    grpc::Status status = Client()->SetCredentials(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    *rejected = response.rejected();
    return response.instance();
  };
  EXPECT_CODE(Mount("5", "", layer), StatusCode::kUnauthenticated);
  int rejected = 0;
  const std::string instance = tell({}, &rejected);
  EXPECT_NE(instance, "");
  EXPECT_EQ(tell({"hunter2-wrong", "", "hunter2"}, &rejected), instance);
  EXPECT_EQ(rejected, 1);
  EXPECT_OK(Mount("5", "", layer));
  // The password changes while the layer is there: a read waits for the new one.
  registry.RequireBasic("user", "hunter2-new");
  auto read = std::async(std::launch::async, [&] { return Slurp(Path("5/f")); });
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  const uint64_t refused = registry.counts().unauthorized;
  while (registry.counts().unauthorized == refused && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  tell({"hunter2-new"}, &rejected);
  EXPECT_EQ(read.get(), Noise(300'000, 1));
  Restart();
  EXPECT_NE(tell({}, &rejected), instance);
}

// Goal: requests that make no sense are refused with the class that control.proto promises.
TEST_F(DaemonControlTest, BadRequests) {
  auto layer = Publish(registry, repository, {File("f", "x")});
  EXPECT_CODE(Mount("", "", layer), StatusCode::kInvalidArgument);
  EXPECT_CODE(Mount("../5", "", layer), StatusCode::kInvalidArgument);
  EXPECT_CODE(Mount("123456789012345678901", "", layer), StatusCode::kInvalidArgument);
  EXPECT_CODE(Mount("5", "x", layer), StatusCode::kInvalidArgument);
  EXPECT_CODE(Mount("5", "4", layer), StatusCode::kNotFound);
  auto request = Request("5", "", layer);
  request.mutable_layer()->set_toc("");
  EXPECT_CODE(Mount(request), StatusCode::kUnavailable);  // its manifest is not there
  request.mutable_layer()->set_manifest_digest("");
  EXPECT_CODE(Mount(request), StatusCode::kUnimplemented);
  request.mutable_layer()->set_toc("v2,whatever");
  EXPECT_CODE(Mount(request), StatusCode::kUnimplemented);
  request.mutable_layer()->set_toc("v1,nonsense");
  EXPECT_CODE(Mount(request), StatusCode::kInvalidArgument);
  request = Request("5", "", layer);
  request.mutable_layer()->set_blob_digest("sha256:abc");
  EXPECT_CODE(Mount(request), StatusCode::kInvalidArgument);
  request = Request("5", "", layer);
  request.mutable_layer()->clear_image_ref();
  EXPECT_CODE(Mount(request), StatusCode::kInvalidArgument);
  EXPECT_EQ(GetStatus().layers_size(), 0);
}

// Goal: unmounting goes from the top, an unknown id is fine, and nothing of the layer stays on disk or in the file system.
TEST_F(DaemonControlTest, UnmountFromTheTop) {
  MountChain({{File("a", "1")}, {File("b", "2")}});
  EXPECT_EQ(Slurp(Path("2/a")) + Slurp(Path("2/b")), "12");
  EXPECT_CODE(Unmount("1"), StatusCode::kFailedPrecondition);
  EXPECT_OK(Unmount("2"));
  EXPECT_EQ(Inode(Path("2")), 0u);
  EXPECT_EQ(Slurp(Path("1/a")), "1");
  EXPECT_OK(Unmount("1"));
  EXPECT_OK(Unmount("1"));
  EXPECT_OK(Unmount("77"));
  EXPECT_EQ(GetStatus().layers_size(), 0);
  EXPECT_TRUE(FsyncDir(options.config.root + "/layers").ok());
  struct stat st;
  ASSERT_EQ(::stat((options.config.root + "/layers").c_str(), &st), 0);
  EXPECT_EQ(st.st_nlink, 2u) << "a layer's directory is left";
  Restart();
  EXPECT_EQ(Inode(Path("1")), 0u);
}

// Goal: many Mounts of one layer at a time fetch its table of contents once.
TEST_F(DaemonControlTest, ConcurrentMountsFetchOnce) {
  auto layer = Publish(registry, repository, {File("f", "x")});
  registry.AddFault({.kind = Fault::Kind::kHold, .path_contains = layer.digest.Hex()});
  std::vector<std::future<Status>> mounts;
  for (int i = 1; i <= 8; ++i) {
    mounts.push_back(std::async(std::launch::async, [&, i] { return Mount(std::to_string(1 + i / 2), "", layer); }));
  }
  ASSERT_TRUE(registry.WaitForHeld(1));
  registry.Release();
  for (auto& mount : mounts) EXPECT_OK(mount.get());
  EXPECT_EQ(registry.counts().blob_gets, 1u);
  EXPECT_EQ(Slurp(Path("3/f")), "x");
}

// Goal: a registry that fails gives an error that names it and the layer, in bounded time, and the next try succeeds.
TEST_F(DaemonControlTest, RegistryTroubleIsNamed) {
  auto layer = Publish(registry, repository, {File("f", "x")});
  const std::vector<Fault> faults = {
      {.kind = Fault::Kind::kStatus, .times = -1, .status = 500},
      {.kind = Fault::Kind::kStatus, .times = -1, .status = 401},
      {.kind = Fault::Kind::kStatus, .times = -1, .status = 404},
      {.kind = Fault::Kind::kStatus, .times = -1, .status = 429},
      {.kind = Fault::Kind::kIgnoreRange, .times = -1},
      {.kind = Fault::Kind::kShortRange, .times = -1},
      {.kind = Fault::Kind::kTruncate, .times = -1},
      {.kind = Fault::Kind::kStall, .times = -1},
  };
  for (const Fault& fault : faults) {
    SCOPED_TRACE("fault " + std::to_string(static_cast<int>(fault.kind)) + " status " + std::to_string(fault.status));
    registry.AddFault(fault);
    Status status = Mount("5", "", layer);
    registry.ClearFaults();
    registry.Release();
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.code(), StatusCode::kNotFound) << "means the parent";
    EXPECT_NE(status.message().find(registry.host()), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(layer.digest.ToString()), std::string::npos) << status.message();
  }
  registry.RefuseConnections();
  Status status = Mount("5", "", layer);
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find(registry.host()), std::string::npos) << status.message();
  registry.AcceptConnections();
  EXPECT_OK(Mount("5", "", layer));
  EXPECT_EQ(Slurp(Path("5/f")), "x");
}

// Goal: a table of contents that was tampered with is refused, with an error that names the layer.
TEST_F(DaemonControlTest, DamagedTocIsRefused) {
  auto layer = Publish(registry, repository, {File("f", "x")});
  registry.AddFault({.kind = Fault::Kind::kFlipBit, .path_contains = layer.digest.Hex(), .times = -1,
                     .blob_offset = layer.location.offset + layer.location.compressed_size / 2});
  Status status = Mount("5", "", layer);
  EXPECT_CODE(status, StatusCode::kDataLoss);
  EXPECT_NE(status.message().find(layer.digest.ToString()), std::string::npos) << status.message();
  registry.ClearFaults();
  EXPECT_OK(Mount("5", "", layer));
}

// Goal: a restart shows everything again from disk alone: same inodes, same bytes, nothing fetched twice, complete files passed through.
TEST_F(DaemonControlTest, RestartNeedsNoRegistry) {
  const std::string large = Noise(5 << 20, 1);
  MountChain({{File("small", "s"), File("large", large)}, {Dir("d"), File("d/b", "2"), Hardlink("d/c", "d/b")}});
  EXPECT_EQ(Slurp(Path("2/large")), large);
  EXPECT_EQ(Slurp(Path("2/d/b")), "2");
  EXPECT_EQ(Slurp(Path("2/small")), "s");
  const std::vector<std::string> paths = {"1", "2", "1/large", "2/large", "2/d", "2/d/b", "2/d/c"};
  std::vector<uint64_t> before;
  for (const auto& path : paths) before.push_back(Inode(Path(path)));
  EXPECT_EQ(before[2], before[3]) << "a file is one inode in every view";
  Stop();
  registry.RefuseConnections();
  Start();
  std::vector<uint64_t> after;
  for (const auto& path : paths) after.push_back(Inode(Path(path)));
  EXPECT_EQ(after, before);
  EXPECT_EQ(Slurp(Path("2/large")), large);
  EXPECT_EQ(Slurp(Path("1/small")), "s");
  EXPECT_EQ(Slurp(Path("2/d/c")), "2");
  EXPECT_EQ(Metric("headrace_wire_bytes_total"), 0);
  EXPECT_GE(Metric("headrace_fuse_opens_passthrough_total"), 1);
  auto status = GetStatus();
  ASSERT_EQ(status.layers_size(), 2);
  for (const auto& layer : status.layers()) EXPECT_EQ(layer.resident(), layer.size());
}

// Goal: what a restart cannot read is left out with what stands on it, the rest is served, and mounting it again heals it.
TEST_F(DaemonControlTest, RestartWithDamagedState) {
  auto good = Publish(registry, repository, {File("g", "good")});
  auto bad = Publish(registry, repository, {File("b", "bad")});
  ASSERT_OK(Mount("1", "", good));
  ASSERT_OK(Mount("2", "", bad));
  ASSERT_OK(Mount("3", "2", good));
  Stop();
  const daemon::LayerAsk ask{bad.digest, bad.toc, "", ""};
  const std::string toc = options.config.root + "/layers/" + ask.Key() + "/toc";
  auto bytes = ReadFile(toc, 1 << 20);
  ASSERT_OK(bytes);
  (*bytes)[bytes->size() / 2] = static_cast<char>((*bytes)[bytes->size() / 2] ^ 1);
  ASSERT_OK(WriteFileAtomic(toc, *bytes));
  ASSERT_OK(WriteFileAtomic(options.config.root + "/mounts/9.json", "{\"version\":1"));
  Start();
  EXPECT_EQ(Slurp(Path("1/g")), "good");
  EXPECT_CODE(Check("2"), StatusCode::kNotFound);
  EXPECT_CODE(Check("3"), StatusCode::kNotFound);
  EXPECT_CODE(Check("9"), StatusCode::kNotFound);
  EXPECT_OK(Mount("2", "", bad));
  EXPECT_OK(Mount("3", "2", good));
  EXPECT_EQ(Slurp(Path("3/g")) + Slurp(Path("3/b")), "goodbad");
  EXPECT_OK(Unmount("9"));
  Restart();
  EXPECT_EQ(Slurp(Path("3/b")), "bad");
}

// Goal: two daemons never work on one root.
TEST_F(DaemonControlTest, OneDaemonForARoot) {
  auto second = daemon::Daemon::Create(options, [] {});
  EXPECT_CODE(second, StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find(options.config.root), std::string::npos);
  EXPECT_CODE(Check("1"), StatusCode::kNotFound);  // the first still answers
}

}  // namespace
}  // namespace headrace::test
