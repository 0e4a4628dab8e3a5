// Goal: `headrace verify` finds one wrong bit wherever it is, says where, and finds nothing in what is right.
#include "snapshotter/cli/verify.h"

#include <gtest/gtest.h>

#include <random>

#include "fusefs/format/toc.h"
#include "snapshotter/cli/blob_check.h"
#include "snapshotter/cli/command_line.h"
#include "snapshotter/cli/lazy_layer.h"
#include "test/cli/cli_fixture.h"
#include "test/support/matchers.h"

namespace headrace::cli {
namespace {

class VerifyTest : public CliTest {
 protected:
  void SetUp() override {
    Write("m/config.json", "{}");
    Write("m/weights", Weights(600'000, 7));
    BuildOptions options;
    options.dir = Path("m");
    options.target = At("oci:img:v1");
    options.layer.chunk_size = 64 << 10;
    options.platform = {"linux", "amd64", ""};
    Result<BuildReport> report = Build(options, Context());
    ASSERT_OK(report);
    report_ = *report;
    layer_ = RootManifest("img", "v1").layers[0];
  }

  VerifyReport Check(const std::string& image = "oci:img:v1") {
    VerifyOptions options;
    options.image = At(image);
    Result<VerifyReport> report = Verify(options, Context());
    EXPECT_OK(report);
    return report.ok() ? *report : VerifyReport{};
  }

  // Flips a bit of a blob, runs `body`, and puts it right again.
  template <typename Body>
  void WithFlippedBit(const Digest& digest, size_t offset, Body body) {
    const std::string good = Read(BlobFile("img", digest));
    std::string bad = good;
    bad[offset] ^= 0x10;
    Write(BlobFile("img", digest), bad);
    body();
    Write(BlobFile("img", digest), good);
  }

  BuildReport report_;
  Descriptor layer_;
};

TEST_F(VerifyTest, NothingWrong) {
  const VerifyReport report = Check();
  EXPECT_TRUE(report.findings.empty()) << report.findings[0].where << ": " << report.findings[0].what;
  EXPECT_EQ(report.layers, 1u);
  EXPECT_EQ(report.lazy_layers, 1u);
  EXPECT_EQ(report.chunks, 11u);  // 10 of the weights, 1 of the small file
  EXPECT_EQ(Run({"verify", "-q", "oci:" + Path("img")}), kExitOk);
  EXPECT_EQ(out(), "");
}

// A flipped bit in every region of the layer and in every document is found; the exit code is 1.
TEST_F(VerifyTest, FlippedBitAnywhere) {
  const unsigned long seed = test::TestSeed();
  std::mt19937_64 random(seed);
  std::vector<size_t> offsets = {0, 5, layer_.size - 1, layer_.size - 5, layer_.size - 20, layer_.size - 60};
  for (int i = 0; i < 30; ++i) offsets.push_back(random() % layer_.size);
  for (size_t offset : offsets) {
    WithFlippedBit(layer_.digest, offset, [&] {
      const VerifyReport report = Check();
      ASSERT_FALSE(report.findings.empty()) << "offset " << offset << " seed " << seed;
      EXPECT_NE(report.findings[0].where.find(layer_.digest.ToString()), std::string::npos);
    });
  }
  for (const Digest& digest : {report_.digest, report_.config_digest}) {
    WithFlippedBit(digest, 20, [&] {
      EXPECT_EQ(Run({"verify", "oci:" + Path("img")}), kExitFailed);
      EXPECT_NE((out() + err()).find(digest.ToString()), std::string::npos) << out() << err();
    });
  }
}

// The finding about a chunk names the file and the bytes.
TEST_F(VerifyTest, DamagedChunkIsNamed) {
  Result<std::unique_ptr<ImageReader>> reader = OpenReader(At("oci:img:v1"), {});
  ASSERT_OK(reader);
  Result<LazyLayer> lazy = ReadLazyLayer(**reader, layer_);
  ASSERT_OK(lazy);
  const format::Chunk& chunk = lazy->index.chunks.back();
  WithFlippedBit(layer_.digest, chunk.blob_offset + chunk.blob_size / 2, [&] {
    ASSERT_EQ(Run({"verify", "-q", "oci:" + Path("img")}), kExitFailed);
    EXPECT_NE(out().find("models/weights"), std::string::npos) << out();
    EXPECT_NE(out().find("blob offset " + std::to_string(chunk.blob_offset)), std::string::npos) << out();
  });
}

// A config that says another DiffID; a manifest that says another TOC.
TEST_F(VerifyTest, WrongStatements) {
  const Document root = Root("img", "v1");
  ASSERT_FALSE(root.body.empty());
  std::string body = root.body;
  const std::string toc = layer_.annotations.at(std::string(format::kTocLabel));
  std::string other = toc;
  other[other.find("sha256:") + 8] = other[other.find("sha256:") + 8] == '0' ? '1' : '0';
  body.replace(body.find(toc), toc.size(), other);
  Tag("img", PutBlob("img", body, kOciManifest), "v1");
  VerifyReport report = Check();
  ASSERT_FALSE(report.findings.empty());
  EXPECT_NE(report.findings[0].what.find("table of contents"), std::string::npos) << report.findings[0].what;

  std::string config = Read(BlobFile("img", report_.config_digest));
  const std::string diff_id = report_.layers[0].diff_id.ToString();
  config.replace(config.find(diff_id), diff_id.size(), Digest::Of("other").ToString());
  Manifest manifest = *ParseManifest(root.body);
  manifest.config = PutBlob("img", config, kOciConfig);
  Tag("img", PutBlob("img", PrintManifest(manifest), kOciManifest), "v1");
  report = Check();
  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_NE(report.findings[0].what.find(diff_id), std::string::npos) << report.findings[0].what;
}

// A table of contents that is right by its digest but tells another story than the tar is found out.
TEST_F(VerifyTest, TocThatLies) {
  Result<std::unique_ptr<ImageReader>> reader = OpenReader(At("oci:img:v1"), {});
  ASSERT_OK(reader);
  Result<LazyLayer> lazy = ReadLazyLayer(**reader, layer_);
  ASSERT_OK(lazy);
  auto findings = [&](const format::LayerIndex& index) {
    BlobCheck check(report_.layers[0].diff_id, &index);
    EXPECT_OK((*reader)->Blob(layer_, ImageReader::Verified::kHere, [&](std::span<const uint8_t> data) {
      check.Write(data);
      return OkStatus();
    }));
    const std::vector<std::string> all = check.Finish();
    return all.empty() ? std::string() : all[0];
  };
  EXPECT_EQ(findings(lazy->index), "");
  format::LayerIndex mode = lazy->index;
  mode.entries[1].mode = 04755;
  EXPECT_NE(findings(mode).find("another mode"), std::string::npos) << findings(mode);
  format::LayerIndex owner = lazy->index;
  owner.entries[1].uid = 7;
  EXPECT_NE(findings(owner).find("another owner"), std::string::npos);
  format::LayerIndex renamed = lazy->index;
  renamed.entries[1].name = "models/other";
  EXPECT_NE(findings(renamed), "");
  format::LayerIndex digest = lazy->index;
  digest.entries[1].file_digest = Digest::Of("x");
  EXPECT_NE(findings(digest).find("another content"), std::string::npos);
}

// A missing blob is a finding of its layer; a missing image is a failure.
TEST_F(VerifyTest, MissingThings) {
  Shell("mv " + BlobFile("img", layer_.digest) + " away");
  const VerifyReport report = Check();
  ASSERT_FALSE(report.findings.empty());
  EXPECT_NE(report.findings[0].where.find(layer_.digest.ToString()), std::string::npos);
  EXPECT_EQ(Run({"verify", "oci:" + Path("nowhere")}), kExitFailed);
  EXPECT_NE(err().find("nowhere"), std::string::npos);
}

}  // namespace
}  // namespace headrace::cli
