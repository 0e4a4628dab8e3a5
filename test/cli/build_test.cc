// Goal: `headrace build` makes valid, reproducible images whose layers other tools read, and says what is wrong when it cannot.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zstd.h>

#include <nlohmann/json.hpp>

#include "fusefs/base/file.h"
#include "fusefs/format/toc.h"
#include "snapshotter/cli/command_line.h"
#include "snapshotter/cli/tree_scan.h"
#include "test/cli/cli_fixture.h"
#include "test/support/matchers.h"

namespace headrace::cli {
namespace {

class BuildTest : public CliTest {
 protected:
  void SetUp() override {
    Write("m/config.json", "{}");
    Write("m/model-00001.safetensors", Weights(700'000, 1));
    Write("m/model-00002.safetensors", Weights(500'000, 2));
    Write("m/sub/run.sh", "#!/bin/sh\n", 0755);
    Write("m/sub/empty", "");
    ASSERT_EQ(::symlink("../config.json", Path("m/sub/link").c_str()), 0);
    ASSERT_EQ(::link(Path("m/model-00001.safetensors").c_str(), Path("m/sub/z-hard").c_str()), 0);
    ASSERT_EQ(::link(Path("m/config.json").c_str(), Path("m/zconfig").c_str()), 0);
  }

  BuildOptions Options(const std::string& target) {
    BuildOptions o;
    o.dir = Path("m");
    o.target = At(target);
    o.plan.large_file = 400'000;
    o.layer.chunk_size = 128 << 10;
    o.platform = {"linux", "amd64", ""};
    return o;
  }

  // Unpacks all layers with zstd and GNU tar, lowest first, into `into`.
  void Unpack(const std::string& layout, const std::string& tag, const std::string& into) {
    for (const Descriptor& layer : RootManifest(layout, tag).layers) {
      Shell("mkdir -p " + into + " && zstd -dqc < " + BlobFile(layout, layer.digest) + " | tar -x --xattrs -C " + into);
    }
  }
};

// The rule of the layers: small files first, then one layer for each large file; the tree that comes out is the one that went in.
TEST_F(BuildTest, LayersAndTree) {
  Result<BuildReport> report = Build(Options("oci:out:v1"), Context());
  ASSERT_OK(report);
  const Manifest manifest = RootManifest("out", "v1");
  ASSERT_EQ(manifest.layers.size(), 3u);
  EXPECT_EQ(report->layers[1].title, "models/model-00001.safetensors");
  EXPECT_EQ(report->layers[2].title, "models/model-00002.safetensors");
  for (const Descriptor& layer : manifest.layers) {
    EXPECT_EQ(layer.media_type, kOciLayerZstd);
    EXPECT_TRUE(layer.annotations.contains(std::string(format::kTocLabel)));
    EXPECT_EQ(Digest::Of(Read(BlobFile("out", layer.digest))), layer.digest);
  }
  Unpack("out", "v1", "x");
  EXPECT_EQ(Shell("diff -r --no-dereference m x/models && echo same"), "same\n");
  EXPECT_EQ(Shell("stat -c '%h %a %Y' x/models/sub/z-hard x/models/sub/run.sh"), "2 644 0\n1 755 0\n");
}

// Same input, same digest: whatever the number of threads, the place, the times and the order on disk.
TEST_F(BuildTest, Reproducible) {
  Result<BuildReport> one = Build(Options("oci:a:v1"), Context(1));
  ASSERT_OK(one);
  Shell("cp -a m n && touch -d @1700000000 n/config.json n/sub n && chmod 700 n");
  for (unsigned jobs : {2u, 5u}) {
    BuildOptions options = Options("oci:b:v" + std::to_string(jobs));
    options.dir = Path("n");
    Result<BuildReport> other = Build(options, Context(jobs));
    ASSERT_OK(other);
    EXPECT_EQ(other->digest, one->digest);
  }
  // And another input gives another one.
  Write("m/config.json", "{ }");
  Result<BuildReport> changed = Build(Options("oci:c:v1"), Context());
  ASSERT_OK(changed);
  EXPECT_NE(changed->digest, one->digest);
  EXPECT_EQ(changed->layers[1].digest, one->layers[1].digest);  // the weights' layers are shared
}

// The bytes that users have in their registries do not change unnoticed: this digest changes when the way files are cut changes,
// and for no other reason. Other versions of libzstd compress otherwise.
TEST_F(BuildTest, PinnedDigest) {
  if (std::string_view(ZSTD_versionString()) != "1.5.4") GTEST_SKIP() << "libzstd " << ZSTD_versionString();
  for (int i = 0; i < 500; ++i) {  // several to a frame, to a job of the pipeline, and more than a job
    Write("m/small/" + std::to_string(i), Weights(static_cast<size_t>(i * i % 9000), static_cast<uint64_t>(i)));
  }
  Result<BuildReport> report = Build(Options("oci:a:v1"), Context());
  ASSERT_OK(report);
  EXPECT_EQ(report->digest.ToString(), "sha256:2bf3f17a2f296283e3a1ecb1f971dd9d788053acd7d5df8edf08fab760da8f9a");
}

// GNU tar reads of the layer what our plan put there: names, types, modes, links, in this order.
TEST_F(BuildTest, TarAsGnuTarSeesIt) {
  ASSERT_OK(Build(Options("oci:out:v1"), Context()));
  const Manifest manifest = RootManifest("out", "v1");
  EXPECT_EQ(Shell("zstd -dqc < " + BlobFile("out", manifest.layers[0].digest) + " | tar --numeric-owner --full-time -tvf -"),
            "drwxr-xr-x 0/0               0 1970-01-01 00:00:00 models/\n"
            "-rw-r--r-- 0/0               2 1970-01-01 00:00:00 models/config.json\n"
            "drwxr-xr-x 0/0               0 1970-01-01 00:00:00 models/sub/\n"
            "-rw-r--r-- 0/0               0 1970-01-01 00:00:00 models/sub/empty\n"
            "lrwxrwxrwx 0/0               0 1970-01-01 00:00:00 models/sub/link -> ../config.json\n"
            "-rwxr-xr-x 0/0              10 1970-01-01 00:00:00 models/sub/run.sh\n"
            "hrw-r--r-- 0/0               0 1970-01-01 00:00:00 models/zconfig link to models/config.json\n");
  EXPECT_EQ(Shell("zstd -dqc < " + BlobFile("out", manifest.layers[1].digest) + " | tar -tf -"),
            "models/\nmodels/model-00001.safetensors\nmodels/sub/\nmodels/sub/z-hard\n");
}

// --no-fill is an annotation of every layer, which containerd hands on as a label; the blobs are the same.
TEST_F(BuildTest, NoFillIsAnAnnotation) {
  Result<BuildReport> with = Build(Options("oci:with:v1"), Context());
  ASSERT_OK(with);
  BuildOptions options = Options("oci:without:v1");
  options.no_fill = true;
  Result<BuildReport> without = Build(options, Context());
  ASSERT_OK(without);
  const Manifest manifest = RootManifest("without", "v1");
  ASSERT_EQ(manifest.layers.size(), with->layers.size());
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    EXPECT_EQ(manifest.layers[i].digest, with->layers[i].digest);
    EXPECT_EQ(manifest.layers[i].annotations.at("containerd.io/snapshot/headrace.fill"), "off");
  }
  for (const Descriptor& layer : RootManifest("with", "v1").layers) {
    EXPECT_FALSE(layer.annotations.contains("containerd.io/snapshot/headrace.fill"));
  }
}

TEST_F(BuildTest, ConfigAndBase) {
  Write("base/pause", "program", 0755);
  Write("base/models/README", "of the base");
  BuildOptions options = Options("oci:out:v1");
  options.base = Path("base");
  options.entrypoint = {"/pause"};
  options.env = {"A=b"};
  options.labels = {{"k", "v"}};
  options.annotations = {{"org.opencontainers.image.title", "t"}};
  options.uid = 1000;
  options.gid = 3'000'000;
  options.created = 1'600'000'000;
  Result<BuildReport> report = Build(options, Context());
  ASSERT_OK(report);
  ASSERT_EQ(report->layers.size(), 4u);
  const auto config = nlohmann::json::parse(Read(BlobFile("out", report->config_digest)));
  EXPECT_EQ(config["config"]["Entrypoint"][0], "/pause");
  EXPECT_EQ(config["config"]["Env"][0], "A=b");
  EXPECT_EQ(config["created"], "2020-09-13T12:26:40Z");
  EXPECT_EQ(config["rootfs"]["diff_ids"].size(), 4u);
  EXPECT_EQ(config["history"].size(), 4u);
  EXPECT_EQ(RootManifest("out", "v1").annotations.at("org.opencontainers.image.title"), "t");
  Unpack("out", "v1", "x");
  EXPECT_EQ(Shell("stat -c '%u %g' x/models/config.json x/pause"), "1000 3000000\n1000 3000000\n");
  EXPECT_EQ(Read("x/models/README"), "of the base");
}

// More large files than layers allowed: neighbours share.
TEST_F(BuildTest, MaxLayers) {
  for (int i = 0; i < 10; ++i) Write("m/big-" + std::to_string(i), Weights(1000, static_cast<uint64_t>(i)));
  BuildOptions options = Options("oci:out:v1");
  options.plan.large_file = 500;
  options.plan.layers_max = 4;
  Result<BuildReport> report = Build(options, Context());
  ASSERT_OK(report);
  EXPECT_EQ(report->layers.size(), 4u);
  Unpack("out", "v1", "x");
  EXPECT_EQ(Shell("diff -r --no-dereference m x/models && echo same"), "same\n");
}

// Everything in one large file: no layer without content. An empty directory: one layer with the prefix.
TEST_F(BuildTest, NoEmptyLayer) {
  Write("one/w", Weights(500'000, 1));
  BuildOptions options = Options("oci:out:v1");
  options.dir = Path("one");
  Result<BuildReport> report = Build(options, Context());
  ASSERT_OK(report);
  EXPECT_EQ(report->layers.size(), 1u);
  ASSERT_OK(MakeDirs(Path("nothing")));
  options.dir = Path("nothing");
  report = Build(options, Context());
  ASSERT_OK(report);
  EXPECT_EQ(report->layers.size(), 1u);
}

TEST_F(BuildTest, SocketsAreLeftOutWithAWarning) {
  // Bound by a path relative to a directory descriptor: the names of sockets are short (108 bytes).
  UniqueFd dir(::open(Path("m").c_str(), O_PATH | O_DIRECTORY));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = "/proc/self/fd/" + std::to_string(dir.get()) + "/s";
  name.copy(address.sun_path, sizeof address.sun_path - 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  Result<BuildReport> report = Build(Options("oci:out:v1"), Context());
  ASSERT_OK(report);
  ASSERT_EQ(report->warnings.size(), 1u);
  EXPECT_NE(report->warnings[0].find("m/s"), std::string::npos);
}

TEST_F(BuildTest, Refusals) {
  BuildOptions options = Options("oci:m/out:v1");
  ASSERT_OK(MakeDirs(Path("m/out")));
  EXPECT_CODE(Build(options, Context()), StatusCode::kInvalidArgument);  // the target is inside
  Shell("rmdir m/out");

  Write("m/.wh.config.json", "");
  Status status = Build(Options("oci:out:v1"), Context()).status();
  EXPECT_CODE(status, StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(".wh.config.json"), std::string::npos) << status.message();
  Shell("rm m/.wh.config.json");

  Write("full/file", "");
  EXPECT_CODE(Build(Options("oci:full:v1"), Context()), StatusCode::kAlreadyExists);  // not a layout
  options = Options("oci:out:v1");
  options.dir = Path("nowhere");
  EXPECT_CODE(Build(options, Context()), StatusCode::kNotFound);
}

// A file that changes between the scan and the reading is an error that names it.
TEST_F(BuildTest, ChangedFileIsNamed) {
  ScanOptions scan;
  Result<Tree> tree = ScanTree(Path("m"), scan);
  ASSERT_OK(tree);
  Write("m/config.json", "changed");
  for (const ScannedFile& file : tree->files) {
    if (file.entry.name != "config.json") continue;
    Status status = ReadScannedFile(file, [](std::span<const uint8_t>) { return OkStatus(); });
    EXPECT_CODE(status, StatusCode::kAborted);
    EXPECT_NE(status.message().find("m/config.json"), std::string::npos);
  }
}

// Nothing temporary stays, whether it worked or not.
TEST_F(BuildTest, NoTemporaryFilesStay) {
  ASSERT_OK(Build(Options("oci:out:v1"), Context()));
  EXPECT_EQ(Shell("find out -name '.headrace*'; ls -A out"), "blobs\nindex.json\noci-layout\n");
}

// Two tags in one layout; a tag that is built again moves.
TEST_F(BuildTest, TagsOfALayout) {
  ASSERT_OK(Build(Options("oci:out:v1"), Context()));
  const Digest first = Root("out", "v1").digest;
  Write("m/config.json", "other");
  ASSERT_OK(Build(Options("oci:out:v2"), Context()));
  EXPECT_EQ(Root("out", "v1").digest, first);
  EXPECT_NE(Root("out", "v2").digest, first);
  ASSERT_OK(Build(Options("oci:out:v1"), Context()));
  EXPECT_EQ(Root("out", "v1").digest, Root("out", "v2").digest);
}

// The command line: results, exit codes, and what a user sees of mistakes.
TEST_F(BuildTest, CommandLine) {
  EXPECT_EQ(Run({}), kExitOk);
  EXPECT_NE(out().find("build"), std::string::npos);
  EXPECT_EQ(Run({"--version"}), kExitOk);
  EXPECT_EQ(out(), "headrace " HEADRACE_VERSION "\n");
  EXPECT_EQ(Run({"build", "--quiet", "--json", Path("m"), "oci:" + Path("out") + ":v1", "--large-file", "400KiB"}), kExitOk);
  const auto report = nlohmann::json::parse(out());
  EXPECT_EQ(report["layers"].size(), 3u);
  EXPECT_EQ(report["digest"], Root("out", "v1").digest.ToString());
  EXPECT_EQ(Run({"build", Path("m")}), kExitUsage);
  EXPECT_EQ(Run({"build", Path("m"), "oci:" + Path("out"), "--chunk-size", "1GiB"}), kExitUsage);
  EXPECT_NE(err().find("64KiB .. 16MiB"), std::string::npos);
  EXPECT_EQ(Run({"build", Path("m"), "oci:" + Path("out"), "--owner", "root"}), kExitUsage);
  EXPECT_EQ(Run({"build", Path("nowhere"), "oci:" + Path("out")}), kExitFailed);
  EXPECT_NE(err().find("nowhere"), std::string::npos);
}

}  // namespace
}  // namespace headrace::cli
