// Files of others: looked up, merged, and changed in one place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/toml_document.h"
#include "test/support/matchers.h"

namespace headrace::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kConfig[] = R"(# Ünïcode before it
version = 2 # why
root = '/var/lib/containerd'

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "pause:1"   # kept
    [plugins."io.containerd.grpc.v1.cri".containerd]
      snapshotter = "overlayfs" # the default
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  snapshotter = "a"
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  snapshotter = "b")";

const TomlPath kSnapshotter{"plugins", "io.containerd.grpc.v1.cri", "containerd", "snapshotter"};

TomlDocument Parsed(const std::string& text) {
  auto document = TomlDocument::Parse(text, "test");
  EXPECT_OK(document);
  return std::move(*document);
}

// Goal: values are found by path, whatever the quotes, and a wrong type is none.
TEST(TomlDocumentTest, Lookup) {
  TomlDocument d = Parsed(kConfig);
  EXPECT_EQ(d.Number({"version"}), 2);
  EXPECT_EQ(d.Text(kSnapshotter), "overlayfs");
  EXPECT_EQ(d.Flag(kSnapshotter), std::nullopt);
  EXPECT_EQ(d.Text({"plugins"}), std::nullopt);
  EXPECT_TRUE(d.Has({"plugins"}));
  EXPECT_FALSE(d.Has({"version", "x"}));
  EXPECT_THAT(d.TextOfEach({"plugins", "io.containerd.transfer.v1.local", "unpack_config"}, "snapshotter"), ElementsAre("a", "b"));
  EXPECT_THAT(d.Keys({"plugins", "io.containerd.grpc.v1.cri", "containerd", "runtimes"}), ElementsAre("runc"));
  EXPECT_THAT(Parsed("a = ['x', 'y']").Texts({"a"}), ElementsAre("x", "y"));
  EXPECT_THAT(TomlDocument::Parse("a = \n", "f").status().message(), HasSubstr("f:1:"));
}

// Goal: tables are merged, other values replaced.
TEST(TomlDocumentTest, Merge) {
  TomlDocument d = Parsed("[a]\nx = 1\ny = [1]\n[a.b]\nz = 'old'\n");
  d.Merge(Parsed("[a]\ny = ['n']\n[a.b]\nz = 'new'\n[c]\nq = true\n"));
  EXPECT_EQ(d.Number({"a", "x"}), 1);
  EXPECT_THAT(d.Texts({"a", "y"}), ElementsAre("n"));
  EXPECT_EQ(d.Text({"a", "b", "z"}), "new");
  EXPECT_EQ(d.Flag({"c", "q"}), true);
  d.Replace(Parsed("[a.b]\nw = 'only'\n"), {"a", "b"});
  EXPECT_FALSE(d.Has({"a", "b", "z"}));
  EXPECT_EQ(d.Text({"a", "b", "w"}), "only");
}

std::string Set(const std::string& text, const TomlPath& path, const std::string& value) {
  auto changed = SetTomlValue(text, path, value);
  EXPECT_OK(changed);
  return changed.ok() ? *changed : "";
}

// Goal: a value is replaced where it stands, comments and all else stay.
TEST(TomlDocumentTest, SetsWhatIsThere) {
  std::string expected = kConfig;
  expected.replace(expected.find("\"overlayfs\""), 11, "\"headrace\"");
  EXPECT_EQ(Set(kConfig, kSnapshotter, "\"headrace\""), expected);
  EXPECT_EQ(Set("s = 'é' # é\nimports = [ # list\n  \"a\",\n  'é', ] # end\nx = 1\n", {"imports"}, "[\"b\"]"), "s = 'é' # é\nimports = [\"b\"] # end\nx = 1\n");
  EXPECT_EQ(Set("a = { b = 'é', c = 2 } # é\n", {"a", "c"}, "3"), "a = { b = 'é', c = 3 } # é\n");
}

// Goal: a missing value goes into its table, a missing table to the end, a value of the root below the version.
TEST(TomlDocumentTest, AddsWhatIsMissing) {
  const std::string flag = Set(kConfig, {"plugins", "io.containerd.grpc.v1.cri", "containerd", "disable_snapshot_annotations"}, "false");
  EXPECT_THAT(flag, HasSubstr("cri\".containerd]\n      disable_snapshot_annotations = false\n      snapshotter ="));
  EXPECT_THAT(Set(kConfig, {"imports"}, "[\"/x/*.toml\"]"), HasSubstr("version = 2 # why\nimports = [\"/x/*.toml\"]\nroot ="));
  EXPECT_EQ(Set("", {"imports"}, "[]"), "imports = []\n");
  EXPECT_THAT(Set(kConfig, {"proxy_plugins", "head.race", "type"}, "'s'"), testing::EndsWith("\"b\"\n\n[proxy_plugins.\"head.race\"]\n  type = 's'\n"));
  EXPECT_EQ(Set("[a]", {"a", "b"}, "1"), "[a]\n  b = 1\n");
}

// Goal: a string comes back as it was, whatever is in it.
TEST(TomlDocumentTest, StringsAreQuoted) {
  const std::string odd = std::string("a\"b\\c\n\t\x01 é") + '\x7f';
  EXPECT_EQ(Parsed("x = " + TomlString(odd)).Text({"x"}), odd);
  EXPECT_EQ(TomlString("/a"), "\"/a\"");
}

// Goal: the root's own keys stay above the tables; a "version" in a table is none of the root's.
TEST(TomlDocumentTest, RootKeysStayInTheRoot) {
  EXPECT_EQ(Set("[a]\nversion = 1\n", {"imports"}, "[]"), "imports = []\n[a]\nversion = 1\n");
  EXPECT_EQ(Set("version = 2 # end", {"imports"}, "[]"), "version = 2 # end\nimports = []\n");
}

// Goal: what cannot be done safely is refused and says what to do. An inline table cannot be given another key by a line.
TEST(TomlDocumentTest, RefusesWhatItCannotDo) {
  auto refused = SetTomlValue("plugins = { x = 1 }\n", {"plugins", "y"}, "2");
  EXPECT_CODE(refused, StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.status().message(), HasSubstr("plugins.y must be set to 2 by hand"));
  EXPECT_CODE(SetTomlValue("a =\n", {"a"}, "2"), StatusCode::kFailedPrecondition);
  EXPECT_CODE(SetTomlValue("[a]\nb = 1\n", {"a"}, "2"), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace headrace::config
