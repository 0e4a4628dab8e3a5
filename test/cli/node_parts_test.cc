// The parts of the commands for nodes: differences of texts, versions, patterns, containerd's way of putting files together.
#include "snapshotter/cli/node/containerd_setup.h"
#include "snapshotter/cli/node/text_diff.h"
#include "test/cli/node_fixture.h"

namespace headrace::cli {
namespace {

using testing::ElementsAre;

// Goal: the difference is what diff -u prints, names aside.
TEST(TextDiffTest, UnifiedForm) {
  EXPECT_EQ(TextDiff("a", "x\n", "b", "x\n"), "");
  EXPECT_EQ(TextDiff("/dev/null", "", "b", "1\n2\n"), "--- /dev/null\n+++ b\n@@ -0,0 +1,2 @@\n+1\n+2\n");
  EXPECT_EQ(TextDiff("a", "1\n2\n3\n4\n5\n6\n7\n8\n", "b", "1\n2\n3\n4\nfive\n6\n7\n8\n"),
            "--- a\n+++ b\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
  EXPECT_EQ(TextDiff("a", "x", "b", "x\n"), "--- a\n+++ b\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+x\n");
}

// Goal: changes far from each other are hunks of their own, with right numbers.
TEST(TextDiffTest, TwoHunks) {
  std::string before, after;
  for (int i = 1; i <= 30; ++i) {
    before += std::to_string(i) + "\n";
    if (i == 20) continue;
    after += std::to_string(i) + "\n" + (i == 2 ? "new\n" : "");
  }
  EXPECT_EQ(TextDiff("a", before, "b", after),
            "--- a\n+++ b\n@@ -1,5 +1,6 @@\n 1\n 2\n+new\n 3\n 4\n 5\n@@ -17,7 +18,6 @@\n 17\n 18\n 19\n-20\n 21\n 22\n 23\n");
}

TEST(ContainerdVersionTest, Words) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"containerd github.com/containerd/containerd/v2 2.1.9+unknown \n", "2.1.9"}, {"containerd containerd.io v1.7.24 0123abcd", "1.7.24"},
      {"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3\n", "1.6.20"}, {"v2.4.0-beta.0", "2.4.0"}, {"2.2", "2.2"}};
  for (const auto& [words, expected] : cases) {
    auto version = ContainerdVersion::Parse(words);
    ASSERT_TRUE(version) << words;
    EXPECT_EQ(version->text, expected);
  }
  for (const char* words : {"", "containerd", "2", "v", "x.y", "999.1"}) EXPECT_FALSE(ContainerdVersion::Parse(words)) << words;
  EXPECT_TRUE((ContainerdVersion{2, 1, ""}).AtLeast(2, 0));
  EXPECT_TRUE((ContainerdVersion{2, 1, ""}).AtLeast(1, 7));
  EXPECT_FALSE((ContainerdVersion{1, 7, ""}).AtLeast(2, 0));
}

TEST_F(NodeTest, Patterns) {
  Put("/etc/a/1.toml", "");
  Put("/etc/a/0.toml", "");
  Put("/etc/a/x.conf", "");
  Put("/etc/a/.hidden.toml", "");
  const NodeRoot root(node_ + "/");
  EXPECT_THAT(root.Glob("/etc/a/*.toml"), ElementsAre("/etc/a/0.toml", "/etc/a/1.toml"));
  EXPECT_THAT(root.Glob("/etc/a/x.conf"), ElementsAre("/etc/a/x.conf"));
  EXPECT_THAT(root.Glob("/none/*"), ElementsAre());
}

// Goal: settings are found where containerd finds them. Each case was seen with `containerd config dump` of 1.6, 1.7 and 2.1.9.
TEST_F(NodeTest, WhatCountsOfTwoFiles) {
  const std::string older = "[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'old'\n";
  const std::string runtimes = "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'x'\n";
  const std::string newer = "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'new'\n";
  const std::vector<std::tuple<std::string, std::string, std::string, std::string>> cases = {
      {"2.1", "version = 2\n", "version = 3\n" + newer, "new"},
      {"2.1", "version = 2\n" + older, "version = 3\n" + newer, "new"},
      {"2.1", "version = 2\n" + older + runtimes, "version = 3\n" + newer, "new"},
      {"2.1", "version = 2\n" + older, "version = 2\n" + newer, "new"},
      {"2.1", "version = 2\n" + older + runtimes, "version = 2\n" + newer, "old"},
      {"2.1", "version = 2\n" + older, "version = 2\n", ""},
      {"1.7", "version = 2\n" + older, "version = 2\n", "old"},
      {"1.7", "version = 2\n" + older, "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'y'\n", ""},
  };
  for (const auto& [version, main, drop_in, expected] : cases) {
    Put("/etc/containerd/config.toml", main.substr(0, 12) + "imports = ['conf.d/*.toml']\n" + main.substr(12));
    Put("/etc/containerd/conf.d/x.toml", drop_in);
    auto setup = ReadContainerdSetup(NodeRoot(node_), {.config_path = "", .version = version});
    ASSERT_OK(setup);
    EXPECT_EQ(setup->merged.Text(setup->CriImages({"snapshotter"})).value_or(""), expected) << version << "\n" << main << "+\n" << drop_in;
  }
}

}  // namespace
}  // namespace headrace::cli
