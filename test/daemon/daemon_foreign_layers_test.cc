// Layers that have no table of contents of ours: found in the manifest, read by zstd:chunked's or learned from the whole blob; what is verified, what is shared, what
// survives a restart.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>

#include "fusefs/base/file.h"
#include "test/daemon/daemon_fixture.h"
#include "test/support/compress.h"
#include "test/support/noise.h"
#include "test/support/overlay_dirs.h"

namespace headrace::test {
namespace {

using Json = nlohmann::json;

std::string Compressible(size_t size, unsigned seed) {
  std::string bytes = Noise(size, seed);
  for (char& c : bytes) c = static_cast<char>(c & 0x3f);
  return bytes;
}

std::string InGzip(const std::string& data) { return Gzip(data); }
std::string InZstd(const std::string& data) { return Zstd(data, 1); }

struct ForeignLayer {
  std::string blob;
  Digest digest;   // of the blob
  Digest diff_id;  // what the config says
  std::map<std::string, std::string> annotations;
};

class DaemonForeignLayersTest : public DaemonFixture {
 protected:
  using Compress = std::string (*)(const std::string&);
  ForeignLayer Layer(const TreeLayer& tree, Compress compress = nullptr) {
    auto tar = ToTar(tree);
    EXPECT_OK(tar);
    ForeignLayer layer;
    layer.diff_id = Digest::Of(*tar);
    layer.blob = compress ? compress(*tar) : *tar;
    layer.digest = registry.AddBlob(repository, layer.blob);
    return layer;
  }
  // Puts an image into the registry; the digest of its manifest.
  std::string Image(const std::vector<ForeignLayer>& layers) {
    Json config = {{"os", "linux"}, {"architecture", "amd64"}, {"rootfs", {{"type", "layers"}, {"diff_ids", Json::array()}}}};
    Json manifest = {{"schemaVersion", 2}, {"mediaType", "application/vnd.oci.image.manifest.v1+json"}, {"layers", Json::array()}};
    for (const ForeignLayer& layer : layers) {
      config["rootfs"]["diff_ids"].push_back(layer.diff_id.ToString());
      Json descriptor = {{"mediaType", "application/vnd.oci.image.layer.v1.tar"}, {"digest", layer.digest.ToString()}, {"size", layer.blob.size()}};
      if (!layer.annotations.empty()) descriptor["annotations"] = layer.annotations;
      manifest["layers"].push_back(descriptor);
    }
    const std::string text = config.dump();
    manifest["config"] = {{"mediaType", "application/vnd.oci.image.config.v1+json"},
                          {"digest", registry.AddBlob(repository, text).ToString()},
                          {"size", text.size()}};
    return registry.AddManifest(repository, "", manifest.dump()).ToString();
  }
  control::MountRequest Ask(const std::string& id, const std::string& parent, const ForeignLayer& layer, const std::string& manifest) {
    control::MountRequest request;
    request.set_id(id);
    request.set_parent_id(parent);
    request.mutable_layer()->set_image_ref(registry.host() + "/" + repository + ":latest");
    request.mutable_layer()->set_manifest_digest(manifest);
    request.mutable_layer()->set_blob_digest(layer.digest.ToString());
    return request;
  }
  // Mounts all layers of an image as 1, 2, ... and returns the path of the top.
  std::string MountImage(const std::vector<ForeignLayer>& layers, const std::string& manifest, int first = 1) {
    std::string parent;
    for (const ForeignLayer& layer : layers) {
      const std::string id = std::to_string(first++);
      EXPECT_OK(Mount(Ask(id, parent, layer, manifest)));
      parent = id;
    }
    return Path(parent);
  }
  std::string FormatOf(const ForeignLayer& layer) {
    const control::StatusResponse answer = GetStatus();
    for (const auto& status : answer.layers()) {
      if (status.blob_digest() == layer.digest.ToString()) return status.format();
    }
    return "";
  }
  TreeDump DumpOf(const std::string& path) {
    auto dump = DumpDirectory(path);
    EXPECT_OK(dump);
    return dump.ok() ? *dump : TreeDump();
  }
};

// Goal: random trees in plain, gzip and zstd layers show what overlayfs shows for the extracted ones, before and after a restart without a registry.
TEST_F(DaemonForeignLayersTest, RandomTreesLikeOverlayfs) {
  const uint64_t seed = TestSeed();
  SCOPED_TRACE("HEADRACE_TEST_SEED=" + std::to_string(seed));
  const auto trees = RandomLayers(seed, {.layers = 4, .entries_per_layer = 60, .file_bytes_max = 300'000});
  const std::vector<Compress> ways = {nullptr, InGzip, InZstd, InGzip};
  std::vector<ForeignLayer> layers;
  for (size_t i = 0; i < trees.size(); ++i) layers.push_back(Layer(trees[i], ways[i]));
  const std::string top = MountImage(layers, Image(layers));
  auto lower = WriteOverlayDirs(trees, dir / "layers");
  ASSERT_OK(lower);
  const std::string target = dir / "overlay";
  ASSERT_OK(MountOverlay(*lower, dir / "empty", target));
  const TreeDump wanted = DumpOf(target);
  ::umount2(target.c_str(), MNT_DETACH);
  EXPECT_EQ(CompareDumps(DumpOf(top), wanted), "");
  for (const ForeignLayer& layer : layers) EXPECT_EQ(FormatOf(layer), "learned");
  registry.RefuseConnections();
  Restart();
  EXPECT_EQ(CompareDumps(DumpOf(top), wanted), "");
}

// Goal: a blob is read once: wire bytes are the blob's, reads afterwards are local; the next image with the layer needs its manifest only.
TEST_F(DaemonForeignLayersTest, LearnedOnce) {
  ForeignLayer layer = Layer({Dir("d"), File("d/f", Compressible(5 << 20, 1)), File("g", "small")}, InGzip);
  const std::string manifest = Image({layer});
  const uint64_t before = registry.counts().blob_bytes;
  ASSERT_OK(Mount(Ask("1", "", layer, manifest)));
  EXPECT_EQ(Slurp(Path("1/d/f")), Compressible(5 << 20, 1));
  EXPECT_LE(registry.counts().blob_bytes - before, layer.blob.size() + 2000);
  ASSERT_OK(Unmount("1"));
  registry.RemoveBlob(repository, layer.digest);
  ForeignLayer other = Layer({File("h", "x")});
  const std::string second = Image({other, layer});
  EXPECT_EQ(MountImage({other, layer}, second, 5), Path("6"));
  EXPECT_EQ(Slurp(Path("6/d/f")), Compressible(5 << 20, 1));
}

std::string InManyFrames(const std::string& data) {
  std::string blob;
  for (size_t at = 0; at < data.size(); at += 1 << 20) blob += Zstd(data.substr(at, 1 << 20), 1);
  return blob;
}

// Goal: what the cache lost of a learned layer costs the frames that it lies in, before and after a restart: the seek points are kept.
TEST_F(DaemonForeignLayersTest, LostChunksComeBackFrameByFrame) {
  options.config.fill_rate = 0;
  options.config.small_file = 0;
  options.config.read_ahead = 128 << 10;  // the kernel's: what it reads on would count as reading forward
  Restart();
  const std::string big = Compressible(64 << 20, 3);
  ForeignLayer layer = Layer({File("big", big)}, InManyFrames);
  ASSERT_OK(Mount(Ask("1", "", layer, Image({layer}))));
  EXPECT_TRUE(Slurp(Path("1/big")) == big);
  Stop();
  std::filesystem::remove_all(std::filesystem::path(options.config.root) / "cache");
  Start();
  const uint64_t before = registry.counts().blob_bytes;
  std::string part(1000, '\0');
  UniqueFd fd(::open(Path("1/big").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fd.valid());
  ASSERT_EQ(::pread(fd.get(), part.data(), part.size(), 40 << 20), 1000);
  EXPECT_TRUE(part == big.substr(40 << 20, 1000));
  // The chunk of 4 MiB and what lies around it in its frames: a tenth of the blob and not two thirds.
  EXPECT_LE(registry.counts().blob_bytes - before, layer.blob.size() / 6);
  EXPECT_GE(registry.counts().blob_bytes - before, layer.blob.size() / 32);
}

// Goal: zstd:chunked layers are found by the manifest's annotations and read lazily.
TEST_F(DaemonForeignLayersTest, ZstdChunked) {
  std::string blob;
  format::LayerWriterOptions writer_options;
  writer_options.chunk_size = 64 << 10;
  auto writer = format::LayerWriter::Create(writer_options, [&](std::span<const uint8_t> bytes) {
    blob.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return OkStatus();
  });
  ASSERT_OK(writer);
  auto tar = ToTar({File("big", Compressible(8 << 20, 2)), File("small", "s")});
  ASSERT_OK((*writer)->Write({reinterpret_cast<const uint8_t*>(tar->data()), tar->size()}));
  auto summary = (*writer)->Finish();
  ASSERT_OK(summary);
  ForeignLayer layer;
  layer.blob = blob;
  layer.digest = registry.AddBlob(repository, blob);
  layer.diff_id = summary->diff_id;
  layer.annotations = summary->annotations;
  layer.annotations.erase(std::string(format::kTocLabel));
  ASSERT_EQ(layer.annotations.size(), 3u);
  ASSERT_OK(Mount(Ask("1", "", layer, Image({layer}))));
  EXPECT_EQ(FormatOf(layer), "zstd:chunked");
  EXPECT_LT(registry.counts().blob_bytes, blob.size() / 4);
  EXPECT_EQ(Slurp(Path("1/small")), "s");
  EXPECT_EQ(Slurp(Path("1/big")), Compressible(8 << 20, 2));
}

// Goal: a table of contents that is not what the manifest says, or makes no sense, costs laziness and nothing else.
TEST_F(DaemonForeignLayersTest, BrokenTableIsLearned) {
  for (const char* position : {"0:10:10:1", "5:100000000:10:1", "nonsense", "10:20:30:1"}) {
    ForeignLayer layer = Layer({File("f", position)}, InZstd);
    layer.annotations = {{"io.github.containers.zstd-chunked.manifest-checksum", Digest::Of("x").ToString()},
                         {"io.github.containers.zstd-chunked.manifest-position", position}};
    const std::string id = std::to_string(registry.counts().requests + 1);
    ASSERT_OK(Mount(Ask(id, "", layer, Image({layer}))));
    EXPECT_EQ(FormatOf(layer), "learned");
    EXPECT_EQ(Slurp(Path(id + "/f")), position);
  }
}

// Goal: nothing of a layer whose bytes are not those of its digest, or whose tar is not that of its DiffID, is ever shown or kept.
TEST_F(DaemonForeignLayersTest, WrongBytesAreNotServed) {
  ForeignLayer layer = Layer({File("f", Compressible(100'000, 3))});
  ForeignLayer fake = layer;
  fake.diff_id = Digest::Of("another tar");
  EXPECT_CODE(Mount(Ask("1", "", fake, Image({fake}))), StatusCode::kDataLoss);
  ForeignLayer flipped = Layer({File("f", Compressible(100'000, 4))});
  registry.AddFault({.kind = Fault::Kind::kFlipBit, .path_contains = flipped.digest.Hex(), .times = -1, .blob_offset = 600});
  EXPECT_CODE(Mount(Ask("2", "", flipped, Image({flipped}))), StatusCode::kDataLoss);
  EXPECT_CODE(Check("1"), StatusCode::kNotFound);
  EXPECT_CODE(Check("2"), StatusCode::kNotFound);
  registry.ClearFaults();
  ASSERT_OK(Mount(Ask("2", "", flipped, Image({flipped}))));
  EXPECT_EQ(Slurp(Path("2/f")), Compressible(100'000, 4));
}

// Goal: while a layer is being read the answer is "pending" with how far it is; who asks again gets the mount.
TEST_F(DaemonForeignLayersTest, PendingUntilRead) {
  ForeignLayer layer = Layer({File("f", Compressible(2 << 20, 5))});
  const std::string manifest = Image({layer});
  registry.AddFault({.kind = Fault::Kind::kHold, .path_contains = layer.digest.Hex(), .times = -1});
  grpc::ClientContext context;
  control::MountResponse response;
  ASSERT_TRUE(Client()->Mount(&context, Ask("1", "", layer, manifest), &response).ok());
  EXPECT_TRUE(response.pending());
  EXPECT_EQ(response.path(), "");
  EXPECT_EQ(response.total_bytes(), static_cast<int64_t>(layer.blob.size()));
  EXPECT_LT(response.done_bytes(), response.total_bytes());
  EXPECT_CODE(Check("1"), StatusCode::kNotFound);
  registry.Release();
  ASSERT_OK(Mount(Ask("1", "", layer, manifest)));
  EXPECT_EQ(Slurp(Path("1/f")), Compressible(2 << 20, 5));
}

// Goal: a daemon that stops while a layer is being read stops, and begins anew afterwards.
TEST_F(DaemonForeignLayersTest, StopWhileReading) {
  ForeignLayer layer = Layer({File("f", Compressible(2 << 20, 6))}, InZstd);
  const std::string manifest = Image({layer});
  registry.AddFault({.kind = Fault::Kind::kHold, .path_contains = layer.digest.Hex(), .times = -1});
  grpc::ClientContext context;
  control::MountResponse response;
  ASSERT_TRUE(Client()->Mount(&context, Ask("1", "", layer, manifest), &response).ok());
  EXPECT_TRUE(response.pending());
  Restart();
  registry.ClearFaults();
  registry.Release();
  ASSERT_OK(Mount(Ask("1", "", layer, manifest)));
  EXPECT_EQ(Slurp(Path("1/f")), Compressible(2 << 20, 6));
}

// Goal: what containerd will ask next is there before it asks: the second layer is attached although nobody asked for it.
TEST_F(DaemonForeignLayersTest, NextLayersAhead) {
  std::vector<ForeignLayer> layers;
  for (int i = 0; i < 3; ++i) layers.push_back(Layer({File("f" + std::to_string(i), Compressible(3000, 7))}, InGzip));
  const std::string manifest = Image(layers);
  ASSERT_OK(Mount(Ask("1", "", layers[0], manifest)));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  struct stat st;
  while (::stat((options.config.root + "/learned/" + layers[2].digest.Hex()).c_str(), &st) != 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  registry.RefuseConnections();
  ASSERT_OK(Mount(Ask("2", "1", layers[1], manifest)));
  ASSERT_OK(Mount(Ask("3", "2", layers[2], manifest)));
  EXPECT_EQ(Slurp(Path("3/f2")), Compressible(3000, 7));
}

// Goal: what was attached ahead and nobody asked for is forgotten by itself; files and gauge included.
TEST_F(DaemonForeignLayersTest, AheadIsNotForEver) {
  Stop();
  options.keep_ahead = std::chrono::milliseconds(300);
  Start();
  std::vector<ForeignLayer> layers;
  for (int i = 0; i < 3; ++i) layers.push_back(Layer({File("f" + std::to_string(i), Compressible(3000, 8))}, InGzip));
  ASSERT_OK(Mount(Ask("1", "", layers[0], Image(layers))));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (daemon->metrics().layers.load() != 1) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(Slurp(Path("1/f0")), Compressible(3000, 8));
}

// Goal: a mount that is taken away while its layer is still being attached does not come up afterwards, with nobody who knows of it.
TEST_F(DaemonForeignLayersTest, TakenAwayWhileAttaching) {
  ForeignLayer layer = Layer({File("f", Compressible(2 << 20, 9))});
  const std::string manifest = Image({layer});
  registry.AddFault({.kind = Fault::Kind::kHold, .path_contains = "/manifests/", .times = 1});
  auto mounting = std::async(std::launch::async, [&] { return Mount(Ask("1", "", layer, manifest)); });
  ASSERT_TRUE(registry.WaitForHeld(1));
  ASSERT_OK(Unmount("1"));
  registry.Release();
  EXPECT_CODE(mounting.get(), StatusCode::kCancelled);
  EXPECT_CODE(Check("1"), StatusCode::kNotFound);
  ASSERT_OK(Mount(Ask("1", "", layer, manifest)));
  EXPECT_EQ(Slurp(Path("1/f")), Compressible(2 << 20, 9));
}

class DaemonDeferredTest : public DaemonForeignLayersTest {
 protected:
  void SetUp() override {
    DaemonForeignLayersTest::SetUp();
    Stop();
    options.config.verify = "deferred";
    Start();
    layer = Layer({Dir("d"), File("d/first", big), File("d/second", second), File("end", "end")});
    manifest = Image({layer});
  }
  bool BecomesFormat(const std::string& format) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (FormatOf(layer) != format) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }
  // Everything beyond the first blocks of the blob comes only after Release; the headers do.
  void HoldContents() { registry.AddFault({.kind = Fault::Kind::kHold, .path_contains = layer.digest.Hex(), .times = -1, .skip = 3}); }

  const std::string big = Compressible(40 << 20, 21);
  const std::string second = Compressible(9 << 20, 22);
  ForeignLayer layer;
  std::string manifest;
};

// Goal: a large plain tar is shown after a look at its headers, read while it comes, and a learned layer in the end, also for the next daemon, without a registry.
TEST_F(DaemonDeferredTest, ShownAtOnceVerifiedLater) {
  HoldContents();
  ASSERT_OK(Mount(Ask("1", "", layer, manifest)));
  EXPECT_EQ(FormatOf(layer), "deferred");
  struct stat st;
  ASSERT_EQ(::stat(Path("1/d/second").c_str(), &st), 0);
  EXPECT_EQ(static_cast<size_t>(st.st_size), second.size());
  auto reading = std::async(std::launch::async, [&] { return Slurp(Path("1/d/second")) == second; });
  EXPECT_EQ(reading.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  registry.Release();
  EXPECT_TRUE(reading.get());
  EXPECT_TRUE(Slurp(Path("1/d/first")) == big);
  EXPECT_TRUE(BecomesFormat("learned"));
  // Each byte once, and the headers once more.
  EXPECT_LE(registry.counts().blob_bytes, layer.blob.size() + (200u << 10));
  registry.RefuseConnections();
  EXPECT_TRUE(Slurp(Path("1/d/first")) == big);
  Restart();
  EXPECT_EQ(FormatOf(layer), "learned");
  EXPECT_TRUE(Slurp(Path("1/d/first")) == big);
  EXPECT_TRUE(Slurp(Path("1/d/second")) == second);
  EXPECT_EQ(Slurp(Path("1/end")), "end");
}

// Goal: status says what came and who waits while a layer is being verified, as of any other; what cannot be pinned yet is refused, and can be in the end.
TEST_F(DaemonDeferredTest, StatusAndPinWhileItComes) {
  HoldContents();
  ASSERT_OK(Mount(Ask("1", "", layer, manifest)));
  auto reading = std::async(std::launch::async, [&] { return Slurp(Path("1/d/second")) == second; });
  const auto file = [&](const std::string& name) {
    grpc::ClientContext context;
    control::StatusRequest request;
    request.set_files(control::StatusRequest::FILES_ALL);
    control::StatusResponse status;
    EXPECT_TRUE(Client()->Status(&context, request, &status).ok());
    for (const control::FileStatus& one : status.layers(0).file()) {
      if (one.name() == name) return one;
    }
    return control::FileStatus();
  };
  const auto pin = [&] {
    grpc::ClientContext context;
    control::PinRequest request;
    request.set_what("1");
    control::PinResponse response;
    return Client()->Pin(&context, request, &response).error_code();
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (file("d/second").waiting() == 0) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
  EXPECT_EQ(file("d/second").cause(), "fetching");
  EXPECT_LT(file("d/second").resident(), file("d/second").size());
  EXPECT_EQ(pin(), grpc::StatusCode::FAILED_PRECONDITION);
  registry.Release();
  EXPECT_TRUE(reading.get());
  EXPECT_TRUE(BecomesFormat("learned"));
  for (const char* name : {"d/first", "d/second", "end"}) EXPECT_EQ(file(name).resident(), file(name).size()) << name;
  EXPECT_EQ(pin(), grpc::StatusCode::OK);
}

// Goal: a daemon that stops before the end begins anew, with the same nodes.
TEST_F(DaemonDeferredTest, RestartBeforeTheEnd) {
  HoldContents();
  ASSERT_OK(Mount(Ask("1", "", layer, manifest)));
  struct stat before;
  ASSERT_EQ(::stat(Path("1/d/second").c_str(), &before), 0);
  Restart();
  struct stat after;
  ASSERT_EQ(::stat(Path("1/d/second").c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(FormatOf(layer), "deferred");
  registry.ClearFaults();
  registry.Release();
  EXPECT_TRUE(Slurp(Path("1/d/first")) == big);
  EXPECT_TRUE(BecomesFormat("learned"));
}

// Goal: wrong bytes poison the mount: reads and opens fail, what the kernel had of its files is gone, status and counter say so; what is pulled again afterwards is right.
TEST_F(DaemonDeferredTest, WrongBytesPoisonTheMount) {
  registry.AddFault({.kind = Fault::Kind::kFlipBit, .path_contains = layer.digest.Hex(), .times = -1, .blob_offset = layer.blob.size() - 20'000});
  ASSERT_OK(Mount(Ask("1", "", layer, manifest)));
  const int open = ::open(Path("1/end").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(open, 0);
  char byte = 0;
  EXPECT_EQ(::pread(open, &byte, 1, 0), 1);
  EXPECT_TRUE(BecomesFormat("wrong"));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (::pread(open, &byte, 1, 0) >= 0) ASSERT_LT(std::chrono::steady_clock::now(), deadline);  // the pages go right after the status
  EXPECT_EQ(errno, EIO);
  ::close(open);
  EXPECT_LT(::open(Path("1/d/first").c_str(), O_RDONLY | O_CLOEXEC), 0);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(Metrics::Get(daemon->metrics().layers_poisoned), 1);
  ASSERT_OK(Unmount("1"));
  registry.ClearFaults();
  ASSERT_OK(Mount(Ask("2", "", layer, manifest)));
  EXPECT_TRUE(Slurp(Path("2/d/first")) == big);
  EXPECT_TRUE(BecomesFormat("learned"));
}

// Goal: what cannot be walked, or is small, or compressed, is verified first, as ever.
TEST_F(DaemonDeferredTest, TheRestIsStrict) {
  const ForeignLayer gzip = Layer({File("f", big)}, InGzip);
  const ForeignLayer small = Layer({File("f", second)});
  TreeLayer many;
  for (int i = 0; i < 3000; ++i) many.push_back(File("f" + std::to_string(i), std::string(6000, 'x')));
  const ForeignLayer crowd = Layer(many);
  ASSERT_GT(crowd.blob.size(), 16u << 20);
  int id = 10;
  for (const ForeignLayer& strict : {gzip, small, crowd}) {
    ASSERT_OK(Mount(Ask(std::to_string(++id), "", strict, Image({strict}))));
    EXPECT_EQ(FormatOf(strict), "learned");
  }
  Stop();
  options.config.verify = "later";
  EXPECT_CODE(daemon::Daemon::Create(options, [] {}), StatusCode::kInvalidArgument);
}

// Goal: "leave" leaves such layers to containerd, and only those; requests that cannot be answered say why.
TEST_F(DaemonForeignLayersTest, LeftToContainerd) {
  Stop();
  options.config.without_table = "leave";
  Start();
  ForeignLayer layer = Layer({File("f", "x")});
  const std::string manifest = Image({layer});
  const Status left = Mount(Ask("1", "", layer, manifest));
  EXPECT_CODE(left, StatusCode::kUnimplemented);
  EXPECT_NE(left.message().find("without_table"), std::string::npos) << left.message();
  EXPECT_CODE(Mount(Ask("1", "", layer, "")), StatusCode::kUnimplemented);
  EXPECT_CODE(Mount(Ask("1", "", layer, "sha256:x")), StatusCode::kInvalidArgument);
  ForeignLayer stranger = Layer({File("f", "y")});
  EXPECT_CODE(Mount(Ask("1", "", stranger, manifest)), StatusCode::kInvalidArgument);
  EXPECT_CODE(Mount(Ask("1", "", layer, Digest::Of("no manifest").ToString())), StatusCode::kUnavailable);
  Stop();
  options.config.without_table = "maybe";
  auto refused = daemon::Daemon::Create(options, [] {});
  EXPECT_CODE(refused, StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace headrace::test
