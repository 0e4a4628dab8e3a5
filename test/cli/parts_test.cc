// Goal: the parts of the command one by one: locations, documents (also hostile ones), plans, progress lines, jobs.
#include <gtest/gtest.h>

#include "snapshotter/cli/image_model.h"
#include "snapshotter/cli/layer_maker.h"
#include "snapshotter/cli/layer_plan.h"
#include "snapshotter/cli/location.h"
#include "snapshotter/cli/progress.h"
#include "snapshotter/cli/report.h"
#include "snapshotter/cli/tree_scan.h"
#include "test/support/matchers.h"

namespace headrace::cli {
namespace {

TEST(LocationTest, Layouts) {
  Result<Location> l = Location::Parse("oci:a/b:v1.0-x");
  ASSERT_OK(l);
  EXPECT_EQ(l->layout()->path, "a/b");
  EXPECT_EQ(l->layout()->tag, "v1.0-x");
  l = Location::Parse("oci:/a:b/c");  // a colon before the last slash belongs to the path
  ASSERT_OK(l);
  EXPECT_EQ(l->layout()->path, "/a:b/c");
  EXPECT_EQ(l->layout()->tag, "");
  const std::string digest = Digest::Of("x").ToString();
  l = Location::Parse("oci:p:t@" + digest);
  ASSERT_OK(l);
  EXPECT_EQ(l->layout()->digest->ToString(), digest);
  EXPECT_EQ(l->ToString(), "oci:p:t@" + digest);
  for (const char* bad : {"oci:", "oci::t", "oci:a:", "oci:a:b c", "oci:a@sha256:12"}) {
    EXPECT_EQ(Location::Parse(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
}

// What is printed is read as the same place. A tag behind a path that ends in "@sha256" was read as a digest (found by the fuzzer).
TEST(LocationTest, APathThatEndsLikeTheStartOfADigestKeepsItsTag) {
  for (const char* text : {"oci:@sha256/:t", "oci:a/b@sha256/:12", "oci:@sha256/"}) {
    Result<Location> l = Location::Parse(text);
    ASSERT_OK(l);
    Result<Location> again = Location::Parse(l->ToString());
    ASSERT_OK(again);
    EXPECT_EQ(again->layout()->path, l->layout()->path) << text;
    EXPECT_EQ(again->layout()->tag, l->layout()->tag) << text;
    EXPECT_FALSE(again->layout()->digest) << text;
  }
}

TEST(LocationTest, References) {
  Result<Location> l = Location::Parse("127.0.0.1:5000/models/m:v1");
  ASSERT_OK(l);
  EXPECT_EQ(l->reference()->host, "127.0.0.1:5000");
  EXPECT_FALSE(Location::Parse("UPPER/case:::").ok());
}

TEST(ImageModelTest, PlatformsMatch) {
  EXPECT_TRUE((Platform{"linux", "arm64", "v8"}.Satisfies({"linux", "arm64", ""})));
  EXPECT_TRUE((Platform{"linux", "arm64", ""}.Satisfies({"linux", "arm64", "v8"})));
  EXPECT_FALSE((Platform{"linux", "arm", "v6"}.Satisfies({"linux", "arm", "v7"})));
  EXPECT_EQ(Platform::Parse("linux/arm64/v8")->ToString(), "linux/arm64/v8");
  for (const char* bad : {"linux", "linux/", "/amd64", "a/b/c/d", ""}) EXPECT_FALSE(Platform::Parse(bad).ok()) << bad;
}

TEST(ImageModelTest, Times) {
  EXPECT_EQ(FormatTime(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(*ParseTime("2020-09-13T12:26:40Z"), 1'600'000'000);
  EXPECT_EQ(*ParseTime("1600000000"), 1'600'000'000);
  for (const char* bad : {"", "yesterday", "2020-09-13", "99999999999999"}) EXPECT_FALSE(ParseTime(bad).ok()) << bad;
}

// Documents from a hostile registry: refused with a Status, never an exception or a crash.
TEST(ImageModelTest, HostileDocuments) {
  const std::string digest = Digest::Of("x").ToString();
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  const std::string descriptor = R"({"mediaType":"m","digest":")" + digest + R"(","size":1})";
  std::string many = R"({"config":)" + descriptor + R"(,"layers":[)";
  for (size_t i = 0; i <= kLayersMax; ++i) many += (i == 0 ? "" : ",") + descriptor;
  many += "]}";
  EXPECT_CODE(ParseManifest(many), StatusCode::kResourceExhausted);
  const std::vector<std::string> manifests =
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("{}"), R"({"config":)" + deep + "}",
        std::string(R"({"config":1,"layers":[]})"), std::string(R"({"config":{"digest":"sha256:1","size":1},"layers":[]})"),
        R"({"config":{"digest":")" + digest + R"(","size":-1},"layers":[]})",
        R"({"config":{"digest":")" + digest + R"(","size":1e300},"layers":[]})",
        R"({"config":{"digest":")" + digest + R"(","size":"1"},"layers":[]})",
        R"({"config":{"digest":1,"size":1},"layers":[]})", R"({"config":)" + descriptor + R"(,"layers":[3]})",
        R"({"config":)" + descriptor + R"(,"layers":[{"digest":")" + digest + R"(","size":1,"annotations":{"a":1}}]})",
        std::string(kDocumentBytesMax + 1, ' ')};
  for (const std::string& bad : manifests) {
    EXPECT_FALSE(ParseManifest(bad).ok()) << bad.substr(0, 100);
    EXPECT_FALSE(ParseIndex(bad).ok()) << bad.substr(0, 100);
  }
  for (const char* bad : {"", "{}", R"({"rootfs":1})", R"({"rootfs":{"diff_ids":["x"]}})", R"({"rootfs":{"diff_ids":[1]}})", R"({"os":1})"}) {
    EXPECT_FALSE(ParseConfig(bad).ok()) << bad;
  }
  EXPECT_CODE(KindOf(R"({"schemaVersion":1,"fsLayers":[]})", ""), StatusCode::kUnimplemented);
  EXPECT_FALSE(KindOf(R"({"mediaType":7})", "").ok());
  EXPECT_EQ(*KindOf(R"({"schemaVersion":1e300})", ""), DocumentKind::kOther);  // no int can hold it
}

TEST(ImageModelTest, LayoutEntryReplacesItsTagOnly) {
  Descriptor d{std::string(kOciManifest), Digest::Of("1"), 1, {}, {}, false};
  const std::string one = *PutLayoutEntry("", d, "a");
  d.digest = Digest::Of("2");
  const std::string two = *PutLayoutEntry(one, d, "b");
  d.digest = Digest::Of("3");
  Result<Index> index = ParseIndex(*PutLayoutEntry(two, d, "a"));
  ASSERT_OK(index);
  ASSERT_EQ(index->manifests.size(), 2u);
  EXPECT_EQ(index->manifests[0].digest, Digest::Of("2"));
  EXPECT_EQ(index->manifests[1].digest, Digest::Of("3"));
  EXPECT_FALSE(PutLayoutEntry("nonsense", d, "a").ok());
}

TEST(CleanImagePathTest, Paths) {
  EXPECT_EQ(*CleanImagePath("/models/"), "models");
  EXPECT_EQ(*CleanImagePath("a//./b"), "a/b");
  EXPECT_EQ(*CleanImagePath("/"), "");
  for (const char* bad : {"..", "a/../b", "a/.wh.b"}) EXPECT_FALSE(CleanImagePath(bad).ok()) << bad;
}

TEST(ProgressLineTest, FitsTheTerminal) {
  ProgressState state{"building", 1ull << 30, 4ull << 30, 0, 512.0 * (1 << 20), 100};
  const std::string line = ProgressLine(state);
  EXPECT_NE(line.find("25%"), std::string::npos) << line;
  EXPECT_NE(line.find("6s left"), std::string::npos) << line;
  EXPECT_NE(line.find('['), std::string::npos) << line;
  for (unsigned columns : {1u, 20u, 40u, 60u, 80u, 200u}) {
    state.columns = columns;
    EXPECT_LT(ProgressLine(state).size(), columns + (columns == 1 ? 1 : 0));
  }
  state = {"verifying", 0, 0, 0, 0, 0};
  EXPECT_EQ(ProgressLine(state), "verifying 0 B of 0 B, 0%");
}

// Goal: every core has work and the buffers stay bounded, whatever the machine.
TEST(LanesTest, CoresAndMemory) {
  for (unsigned jobs : {1u, 2u, 3u, 16u, 64u, 1024u}) {
    for (size_t layers : {0, 1, 2, 7, 1000}) {
      for (uint64_t chunk : {64u << 10, 4u << 20, 16u << 20}) {
        const Lanes lanes = LanesFor(jobs, layers, chunk);
        const std::string where = std::to_string(jobs) + " jobs, " + std::to_string(layers) + " layers, " + std::to_string(chunk);
        EXPECT_GE(lanes.parallel, 1u) << where;
        EXPECT_GE(lanes.threads, 1u) << where;
        EXPECT_LE(lanes.parallel, std::max<size_t>(layers, 1)) << where;
        EXPECT_LE(lanes.parallel * format::LayerWriterBuffers(lanes.threads, chunk), kBufferBytesMax) << where;
        if (jobs <= 16 || (jobs == 64 && layers >= 7 && chunk <= 4u << 20)) {
          EXPECT_GE(lanes.parallel * lanes.threads, std::min(jobs, 32u)) << where;
        }
      }
    }
  }
}

// The first failure in order is told; jobs that were stopped by it are not the reason.
TEST(RunJobsTest, FailureStopsAndIsTold) {
  std::atomic<int> ran{0};
  Status status = RunJobs(50, 1, [&](size_t i, const std::atomic<bool>&) -> Status {
    ++ran;
    return i == 3 ? DataLossError("three") : OkStatus();
  });
  EXPECT_CODE(status, StatusCode::kDataLoss);
  EXPECT_EQ(ran, 4);
  status = RunJobs(2, 2, [&](size_t i, const std::atomic<bool>& stop) -> Status {
    if (i == 1) return DataLossError("one");
    while (!stop) std::this_thread::yield();
    return CancelledError("stopped");
  });
  EXPECT_CODE(status, StatusCode::kDataLoss);
  EXPECT_OK(RunJobs(0, 4, [](size_t, const std::atomic<bool>&) { return OkStatus(); }));
}

TEST(ReportTest, TerminalSafeNames) {
  EXPECT_EQ(Printable("a\x1b[31mb\n"), "a\\x1b[31mb\\x0a");
  EXPECT_EQ(FormatTable({{"A", "B"}, {"10", "x"}}, "rl"), " A  B\n10  x\n");
}

}  // namespace
}  // namespace headrace::cli
