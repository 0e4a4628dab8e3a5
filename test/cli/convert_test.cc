// Goal: `headrace convert` changes the compression and nothing else: same tars, same config blob, whatever the source was.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fusefs/base/file.h"
#include "fusefs/format/toc.h"
#include "snapshotter/cli/command_line.h"
#include "snapshotter/cli/convert.h"
#include "snapshotter/cli/verify.h"
#include "test/cli/cli_fixture.h"
#include "test/support/matchers.h"

namespace headrace::cli {
namespace {

constexpr const char* kDockerLayer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
constexpr const char* kOciTar = "application/vnd.oci.image.layer.v1.tar";
constexpr const char* kOciGzip = "application/vnd.oci.image.layer.v1.tar+gzip";
const Platform kAmd64{"linux", "amd64", ""};
const Platform kArm64{"linux", "arm64", "v8"};

class ConvertTest : public CliTest {
 protected:
  Result<ConvertReport> ConvertTo(const std::string& source, const std::string& target,
                                  std::optional<Platform> platform = std::nullopt) {
    ConvertOptions options;
    options.source = At(source);
    options.target = At(target);
    options.layer.chunk_size = 64 << 10;
    options.platform = std::move(platform);
    return Convert(options, Context());
  }

  std::vector<HandLayer> ThreeLayers() {
    const std::string a = SmallTar("a", Weights(300'000, 1));
    const std::string b = SmallTar("b", "small");
    const std::string c = SmallTar("c", Weights(100'000, 3));
    return {{Gzip(a), kOciGzip, a, {{"keep", "me"}, {"io.containers.estargz.uncompressed-size", "1"}}},
            {b, kOciTar, b, {}},
            {Zstd(c), std::string(kOciLayerZstd), c, {}}};
  }

  void ExpectVerifies(const std::string& image) {
    VerifyOptions options;
    options.image = At(image);
    Result<VerifyReport> report = Verify(options, Context());
    ASSERT_OK(report);
    for (const Finding& f : report->findings) ADD_FAILURE() << f.where << ": " << f.what;
  }

  std::string DecodeLayer(const std::string& layout, const Descriptor& layer) {
    return Shell("zstd -dqc < " + BlobFile(layout, layer.digest));
  }
};

// gzip, plain and zstd layers: the tars stay to the byte, the config blob too, our annotations come, stale ones go.
TEST_F(ConvertTest, TarsAndConfigStay) {
  const std::vector<HandLayer> layers = ThreeLayers();
  Tag("src", PutImage("src", layers, kAmd64), "v1");
  Result<ConvertReport> report = ConvertTo("oci:src:v1", "oci:dst:v1");
  ASSERT_OK(report);
  const Manifest before = RootManifest("src", "v1");
  const Manifest after = RootManifest("dst", "v1");
  EXPECT_EQ(after.config.digest, before.config.digest);
  EXPECT_EQ(Read(BlobFile("dst", after.config.digest)), Read(BlobFile("src", before.config.digest)));
  ASSERT_EQ(after.layers.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(after.layers[i].media_type, kOciLayerZstd);
    EXPECT_TRUE(after.layers[i].annotations.contains(std::string(format::kTocLabel)));
    EXPECT_EQ(DecodeLayer("dst", after.layers[i]), layers[i].tar);
  }
  EXPECT_EQ(after.layers[0].annotations.at("keep"), "me");
  EXPECT_FALSE(after.layers[0].annotations.contains("io.containers.estargz.uncompressed-size"));
  ExpectVerifies("oci:dst:v1");
}

// Goal: building and converting make the same bytes of the same tar, whatever its compression was.
TEST_F(ConvertTest, SameLayerAsBuild) {
  Write("m/weights", Weights(700'000, 1));
  for (int i = 0; i < 200; ++i) Write("m/s" + std::to_string(i), std::string(static_cast<size_t>(i * 37), 'x'));
  BuildOptions build;
  build.dir = Path("m");
  build.target = At("oci:built:v1");
  build.plan.large_file = 400'000;
  build.layer.chunk_size = 64 << 10;
  ASSERT_OK(Build(build, Context()));
  const std::vector<Descriptor> built = RootManifest("built", "v1").layers;
  ASSERT_EQ(built.size(), 2u);
  std::vector<HandLayer> layers;
  for (const Descriptor& layer : built) {
    const std::string tar = DecodeLayer("built", layer);
    layers.push_back({tar, kOciTar, tar, {}});
    layers.push_back({Gzip(tar), kOciGzip, tar, {}});
    layers.push_back({Zstd(tar), std::string(kOciLayerZstd), tar, {}});
  }
  Tag("src", PutImage("src", layers, kAmd64), "v1");
  ASSERT_OK(ConvertTo("oci:src:v1", "oci:dst:v1"));
  const std::vector<Descriptor> converted = RootManifest("dst", "v1").layers;
  ASSERT_EQ(converted.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(converted[i].digest, built[i / 3].digest) << i;
}

// A second conversion changes nothing: same digest, nothing compressed again.
TEST_F(ConvertTest, Idempotent) {
  Tag("src", PutImage("src", ThreeLayers(), kAmd64), "v1");
  ASSERT_OK(ConvertTo("oci:src:v1", "oci:dst:v1"));
  Result<ConvertReport> again = ConvertTo("oci:dst:v1", "oci:again:v1");
  ASSERT_OK(again);
  EXPECT_EQ(again->digest, Root("dst", "v1").digest);
  for (const ConvertedLayer& layer : again->images[0].layers) EXPECT_EQ(layer.action, LayerAction::kKept);
  EXPECT_EQ(Root("again", "v1").body, Root("dst", "v1").body);
  ExpectVerifies("oci:again:v1");
}

// Ours and others mixed: ours keep their digest.
TEST_F(ConvertTest, KeepsOurLayers) {
  Tag("src", PutImage("src", ThreeLayers(), kAmd64), "v1");
  ASSERT_OK(ConvertTo("oci:src:v1", "oci:dst:v1"));
  const Descriptor ours = RootManifest("dst", "v1").layers[0];
  std::vector<HandLayer> layers = ThreeLayers();
  layers[0] = {Read(BlobFile("dst", ours.digest)), ours.media_type, layers[0].tar, ours.annotations};
  Tag("mixed", PutImage("mixed", layers, kAmd64), "v1");
  Result<ConvertReport> report = ConvertTo("oci:mixed:v1", "oci:out:v1");
  ASSERT_OK(report);
  EXPECT_EQ(report->images[0].layers[0].action, LayerAction::kKept);
  EXPECT_EQ(report->images[0].layers[1].action, LayerAction::kConverted);
  EXPECT_EQ(RootManifest("out", "v1").layers[0].digest, ours.digest);
  ExpectVerifies("oci:out:v1");

  // An annotation that is wrong does not make a layer ours.
  layers[0].annotations[std::string(format::kTocLabel)].replace(10, 8, "00000000");
  Tag("lies", PutImage("lies", layers, kAmd64), "v1");
  report = ConvertTo("oci:lies:v1", "oci:out2:v1");
  ASSERT_OK(report);
  EXPECT_EQ(report->images[0].layers[0].action, LayerAction::kConverted);
  ExpectVerifies("oci:out2:v1");
}

// Docker's media types become OCI's; the config blob stays to the byte.
TEST_F(ConvertTest, DockerMediaTypes) {
  const std::string tar = SmallTar("a", "hello");
  Tag("src", PutImage("src", {{Gzip(tar), kDockerLayer, tar, {}}}, kAmd64, /*docker=*/true), "v1");
  ASSERT_OK(ConvertTo("oci:src:v1", "oci:dst:v1"));
  const Manifest after = RootManifest("dst", "v1");
  EXPECT_EQ(after.media_type, kOciManifest);
  EXPECT_EQ(after.config.media_type, kOciConfig);
  EXPECT_EQ(after.config.digest, RootManifest("src", "v1").config.digest);
  ExpectVerifies("oci:dst:v1");
}

// An index of two platforms with an attestation: every image converted, a layer that both have converted once, the attestation
// copied and pointing to the new manifest.
TEST_F(ConvertTest, IndexOfTwoPlatforms) {
  const std::vector<HandLayer> layers = ThreeLayers();
  Descriptor amd64 = PutImage("src", layers, kAmd64);
  Descriptor arm64 = PutImage("src", {layers[0], layers[1]}, kArm64);
  Manifest statement;
  statement.media_type = kOciManifest;
  statement.config = PutBlob("src", "{}", kOciConfig);
  statement.layers = {PutBlob("src", R"({"_type":"statement"})", "application/vnd.in-toto+json")};
  Descriptor attestation = PutBlob("src", PrintManifest(statement), kOciManifest);
  attestation.platform = Platform{"unknown", "unknown", ""};
  auto entry = [](const Descriptor& d) {
    return nlohmann::json{{"mediaType", d.media_type},
                          {"digest", d.digest.ToString()},
                          {"size", d.size},
                          {"platform", {{"os", d.platform->os}, {"architecture", d.platform->architecture}}}};
  };
  nlohmann::json index = {{"schemaVersion", 2}, {"mediaType", kOciIndex}, {"custom", "kept"}};
  index["manifests"] = {entry(amd64), entry(arm64), entry(attestation)};
  index["manifests"][2]["annotations"] = {{"vnd.docker.reference.type", "attestation-manifest"},
                                          {"vnd.docker.reference.digest", amd64.digest.ToString()}};
  Tag("src", PutBlob("src", index.dump(), kOciIndex), "v1");

  Result<ConvertReport> report = ConvertTo("oci:src:v1", "oci:dst:v1");
  ASSERT_OK(report);
  EXPECT_EQ(report->images.size(), 2u);
  EXPECT_EQ(report->copied_manifests, 1u);
  const auto after = nlohmann::json::parse(Root("dst", "v1").body);
  EXPECT_EQ(after["custom"], "kept");
  ASSERT_EQ(after["manifests"].size(), 3u);
  EXPECT_EQ(after["manifests"][2]["digest"], attestation.digest.ToString());
  EXPECT_EQ(after["manifests"][2]["annotations"]["vnd.docker.reference.digest"], after["manifests"][0]["digest"]);
  EXPECT_EQ(report->images[0].layers[0].descriptor.digest, report->images[1].layers[0].descriptor.digest);
  ExpectVerifies("oci:dst:v1");

  report = ConvertTo("oci:src:v1", "oci:one:v1", Platform{"linux", "arm64", ""});
  ASSERT_OK(report);
  EXPECT_EQ(RootManifest("one", "v1").layers.size(), 2u);
  EXPECT_CODE(ConvertTo("oci:src:v1", "oci:none:v1", Platform{"plan9", "mips", ""}), StatusCode::kNotFound);
  ASSERT_OK(ConvertTo("oci:dst:v1", "oci:again:v1"));
  EXPECT_EQ(Root("again", "v1").digest, Root("dst", "v1").digest);
}

// What is wrong with a source is said with the layer's name, and nothing is tagged.
TEST_F(ConvertTest, DamagedSources) {
  std::vector<HandLayer> layers = ThreeLayers();
  layers[1].tar = layers[0].tar;  // the config says another DiffID than the layer has
  Tag("src", PutImage("src", layers, kAmd64), "v1");
  Status status = ConvertTo("oci:src:v1", "oci:dst:v1").status();
  EXPECT_CODE(status, StatusCode::kDataLoss);
  EXPECT_NE(status.message().find(Digest::Of(layers[1].blob).ToString()), std::string::npos) << status.message();
  EXPECT_EQ(Shell("ls dst; find dst/blobs -type f"), "blobs\noci-layout\n" + Shell("find dst/blobs -type f"));
  EXPECT_EQ(Shell("ls dst/index.json 2>/dev/null || echo none"), "none\n");

  layers = ThreeLayers();
  layers[0].blob.resize(layers[0].blob.size() / 2);  // a gzip stream cut off
  Tag("cut", PutImage("cut", layers, kAmd64), "v1");
  EXPECT_CODE(ConvertTo("oci:cut:v1", "oci:dst2:v1"), StatusCode::kDataLoss);

  // One wrong bit in the content of any layer, gzip, plain or zstd: the blob's digest is not computed, the tar's says it.
  layers = ThreeLayers();
  layers.push_back({layers[2].tar, kOciTar, layers[2].tar, {}});
  for (size_t i : {0, 1, 2, 3}) {
    const std::string flip = "flip" + std::to_string(i);
    SCOPED_TRACE(flip);
    Tag(flip, PutImage(flip, layers, kAmd64), "v1");
    const std::string file = BlobFile(flip, Digest::Of(layers[i].blob));
    std::string blob = Read(file);
    blob[i == 1 ? 512 : blob.size() / 2] ^= 1;  // content, not padding that tar would not miss
    Write(file, blob);
    EXPECT_CODE(ConvertTo("oci:" + flip + ":v1", "oci:out" + flip + ":v1"), StatusCode::kDataLoss);
    EXPECT_EQ(Run({"convert", "-q", "oci:" + Path(flip), "oci:" + Path("out2" + flip)}), kExitFailed);
    EXPECT_NE(err().find(Digest::Of(layers[i].blob).ToString()), std::string::npos) << err();
    EXPECT_EQ(Shell("ls out" + flip + "/index.json out2" + flip + "/index.json 2>/dev/null || echo none"), "none\n");
  }
}

TEST_F(ConvertTest, Inspect) {
  Tag("src", PutImage("src", ThreeLayers(), kAmd64), "v1");
  ASSERT_OK(ConvertTo("oci:src:v1", "oci:dst:v1"));
  ASSERT_EQ(Run({"inspect", "--json", "--files", "oci:" + Path("dst")}), kExitOk) << err();
  const auto report = nlohmann::json::parse(out());
  const auto& layer = report["images"][0]["layers"][0];
  EXPECT_EQ(layer["lazy"], true);
  EXPECT_EQ(layer["file_bytes"], 300'000);
  EXPECT_EQ(layer["chunks"], 5);  // of 64 KiB
  EXPECT_EQ(layer["file_list"][0]["name"], "a");
  EXPECT_EQ(layer["file_list"][0]["digest"], Digest::Of(Weights(300'000, 1)).ToString());
  ASSERT_EQ(Run({"inspect", "--json", "--layer", "1", "oci:" + Path("src")}), kExitOk);
  const auto one = nlohmann::json::parse(out())["images"][0]["layers"];
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0]["lazy"], false);
  EXPECT_EQ(Run({"inspect", "--layer", "3", "oci:" + Path("src")}), kExitFailed);
  EXPECT_EQ(Run({"inspect", "oci:" + Path("dst") + ":nope"}), kExitFailed);
  EXPECT_NE(err().find("it has the tags: v1"), std::string::npos) << err();
  EXPECT_EQ(Run({"inspect", "--files", "oci:" + Path("dst")}), kExitOk);
  EXPECT_NE(out().find("/a\n"), std::string::npos);
}

}  // namespace
}  // namespace headrace::cli
