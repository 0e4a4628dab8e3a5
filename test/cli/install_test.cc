// `headrace install` and `uninstall` on nodes made of files: what is written for each version and layout, that it is taken back to the byte, and what is refused.
// What containerd makes of the files is checked with the real programs by integration/tests/install-config.
#include <algorithm>

#include "config/toml_document.h"
#include "snapshotter/cli/node/install_plan.h"
#include "test/cli/node_fixture.h"

namespace headrace::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kConfig[] = "/etc/containerd/config.toml";
constexpr char kDropIn[] = "/etc/containerd/conf.d/headrace.toml";
constexpr char kRecord[] = "/var/lib/headrace/install.json";

// As Debian's package of containerd has it.
constexpr char kDebian[] = R"(version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
)";

class InstallTest : public NodeTest {
 protected:
  config::TomlDocument Document(const std::string& path) {
    auto document = config::TomlDocument::Parse(Get(path), path);
    EXPECT_OK(document);
    return std::move(*document);
  }
  // Everything in the node's directory: path, mode, content.
  std::vector<std::string> Picture(const std::string& below = "") {
    std::vector<std::string> all;
    const NodeRoot root(node_);
    for (const std::string& name : root.List(below + "/")) {
      const std::string path = below + "/" + name;
      struct stat st {};
      ::lstat(root.At(path).c_str(), &st);
      all.push_back(path + " " + std::to_string(st.st_mode) + " " + (root.IsDirectory(path) ? "" : Get(path)));
      for (std::string& deeper : root.IsDirectory(path) ? Picture(path) : std::vector<std::string>()) all.push_back(std::move(deeper));
    }
    return all;
  }
};

// Goal: a node whose containerd has no file: one that imports the drop-in, and the drop-in of version 3.
TEST_F(InstallTest, NoConfigurationOnTwo) {
  InstallContainerd("containerd github.com/containerd/containerd/v2 2.1.9+unknown ");
  ASSERT_EQ(Run({"install"}), 0) << err_;
  EXPECT_EQ(Get(kConfig), "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n");
  config::TomlDocument d = Document(kDropIn);
  EXPECT_EQ(d.Number({"version"}), 3);
  EXPECT_EQ(d.Text({"proxy_plugins", "headrace", "type"}), "snapshot");
  EXPECT_EQ(d.Text({"proxy_plugins", "headrace", "address"}), "/run/headrace/snapshotter.sock");
  EXPECT_EQ(d.Text({"proxy_plugins", "headrace", "exports", "root"}), "/var/lib/headrace");
  EXPECT_EQ(d.Text({"proxy_plugins", "headrace", "exports", "enable_remote_snapshot_annotations"}), "true");
  EXPECT_EQ(d.Text({"plugins", "io.containerd.cri.v1.images", "snapshotter"}), "headrace");
  EXPECT_EQ(d.Flag({"plugins", "io.containerd.cri.v1.images", "disable_snapshot_annotations"}), false);
  EXPECT_THAT(d.TextOfEach(kUnpackConfig, "snapshotter"), testing::ElementsAre("headrace", "overlayfs"));
  EXPECT_THAT(err_, HasSubstr("Restart containerd"));
  EXPECT_THAT(out_, HasSubstr("--- /dev/null\n+++ /etc/containerd/config.toml\n@@ -0,0 +1,2 @@\n+version = 3\n"));
}

// Goal: what is written is what config/containerd/ ships for people who do it by hand.
TEST_F(InstallTest, SameAsTheShippedDropIns) {
  for (const auto& [version, file, number] : {std::tuple{"2.1", "headrace-v3.toml", 3}, std::tuple{"1.7", "headrace-v2.toml", 2}}) {
    auto shipped = ReadFile(std::string(HEADRACE_SOURCE_DIR "/config/containerd/") + file, 1 << 20);
    ASSERT_OK(shipped);
    auto strip = [](const std::string& text) {
      std::istringstream in(text);
      std::string line, out;
      while (std::getline(in, line)) {
        const size_t begin = line.find_first_not_of(' ');
        if (begin == std::string::npos || line[begin] == '#') continue;
        std::replace(line.begin(), line.end(), '\'', '"');
        out += line.substr(begin) + "\n";
      }
      return out;
    };
    const InstallSettings settings{"/run/headrace/snapshotter.sock", "/var/lib/headrace", PullPath::kCri};
    EXPECT_EQ(strip(*shipped), strip(DropIn(*ContainerdVersion::Parse(version), number, settings, true))) << file;
  }
}

// Goal: on 2.x a file of version 2 gets a drop-in of version 2 with the names of version 3 (what containerd 2.1.9 reads), its own text stays but for one line.
TEST_F(InstallTest, DebianFileOnTwo) {
  InstallContainerd("containerd github.com/containerd/containerd/v2 2.1.9+unknown ");
  Put(kConfig, kDebian);
  ASSERT_EQ(Run({"install"}), 0) << err_;
  std::string expected = kDebian;
  expected.insert(expected.find('\n') + 1, "imports = [\"/etc/containerd/conf.d/*.toml\"]\n");
  EXPECT_EQ(Get(kConfig), expected);
  EXPECT_EQ(Document(kDropIn).Number({"version"}), 2);
  EXPECT_EQ(Document(kDropIn).Text({"plugins", "io.containerd.cri.v1.images", "snapshotter"}), "headrace");
}

// Goal: what such a file says of the snapshotter would win over the drop-in: it is changed in place.
TEST_F(InstallTest, SnapshotterOfAVersion2FileOnTwo) {
  InstallContainerd("containerd github.com/containerd/containerd/v2 v2.3.1 abc");
  Put(kConfig, "version = 2\nimports = ['/etc/containerd/conf.d/*.toml']\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\n  snapshotter = 'overlayfs' # why\n");
  ASSERT_EQ(Run({"install"}), 0) << err_;
  EXPECT_THAT(Get(kConfig), HasSubstr("\n  snapshotter = \"headrace\" # why\n"));
  EXPECT_THAT(Get(kConfig), Not(HasSubstr("disable_snapshot_annotations")));
}

// Goal: on 1.x a drop-in would replace the whole CRI section: its two keys go into the file, the proxy plugin into the drop-in.
TEST_F(InstallTest, DebianFileOnOne) {
  InstallContainerd("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+deb13u1");
  Put(kConfig, kDebian);
  ASSERT_EQ(Run({"install"}), 0) << err_;
  config::TomlDocument main = Document(kConfig), drop_in = Document(kDropIn);
  EXPECT_EQ(main.Text({"plugins", "io.containerd.grpc.v1.cri", "containerd", "snapshotter"}), "headrace");
  EXPECT_EQ(main.Flag({"plugins", "io.containerd.grpc.v1.cri", "containerd", "disable_snapshot_annotations"}), false);
  EXPECT_EQ(main.Text({"plugins", "io.containerd.grpc.v1.cri", "cni", "bin_dir"}), "/usr/lib/cni");
  EXPECT_FALSE(drop_in.Has({"plugins"}));
  EXPECT_FALSE(drop_in.Has({"proxy_plugins", "headrace", "exports", "enable_remote_snapshot_annotations"}));
}

// Goal: without such a section 1.x gets everything in the drop-in.
TEST_F(InstallTest, PlainFileOnOne) {
  InstallContainerd("containerd containerd.io 1.6.31 abc");
  Put(kConfig, "version = 2\n");
  ASSERT_EQ(Run({"install"}), 0) << err_;
  EXPECT_EQ(Document(kDropIn).Text({"plugins", "io.containerd.grpc.v1.cri", "containerd", "snapshotter"}), "headrace");
}

// Goal: uninstall puts every byte, mode and directory back, whatever the layout.
TEST_F(InstallTest, UninstallRestores) {
  const std::vector<std::pair<std::string, std::string>> nodes = {
      {"2.1", ""}, {"2.1", kDebian}, {"1.7", kDebian}, {"2.3", "version = 4\nimports = ['/x/y.toml']"}, {"1.6", "# é\nversion = 2 # no newline at the end"}};
  for (const auto& [version, text] : nodes) {
    node_ = dir_ / ("node-" + std::to_string(&text - &nodes[0].second));
    if (!text.empty()) Put(kConfig, text, 0600);
    Put("/var/lib/headrace/fused/x", "state");
    const auto before = Picture();
    ASSERT_EQ(Run({"install", "--containerd-version", version}), 0) << err_;
    EXPECT_NE(Picture(), before);
    EXPECT_TRUE(Exists(kRecord));
    ASSERT_EQ(Run({"uninstall", "--dry-run"}), 0) << err_;
    EXPECT_THAT(out_, HasSubstr("--- /etc/containerd/conf.d/headrace.toml\n+++ /dev/null\n"));
    EXPECT_TRUE(Exists(kDropIn));
    ASSERT_EQ(Run({"uninstall"}), 0) << err_;
    EXPECT_EQ(Picture(), before) << version << " " << text;
  }
  EXPECT_EQ(Run({"uninstall"}), 1);
  EXPECT_THAT(err_, HasSubstr("changed nothing on this node"));
}

// Goal: --dry-run shows all and changes nothing.
TEST_F(InstallTest, DryRun) {
  Put(kConfig, kDebian);
  const auto before = Picture();
  ASSERT_EQ(Run({"install", "--dry-run", "--containerd-version", "2.2"}), 0) << err_;
  EXPECT_EQ(Picture(), before);
  EXPECT_THAT(out_, HasSubstr("+imports = "));
  EXPECT_THAT(out_, HasSubstr("+  snapshotter = \"headrace\"\n"));
}

// Goal: again is the same as once; the originals are those before the first time.
TEST_F(InstallTest, AgainIsTheSame) {
  Put(kConfig, kDebian);
  const auto before = Picture();
  ASSERT_EQ(Run({"install", "--containerd-version", "2.1"}), 0) << err_;
  const auto once = Picture();
  for (const bool dry_run : {true, false}) {
    std::vector<std::string> again = {"install", "--containerd-version", "2.1"};
    if (dry_run) again.push_back("--dry-run");
    ASSERT_EQ(Run(again), 0) << err_;
    EXPECT_EQ(out_, "");
    EXPECT_THAT(err_, HasSubstr("set up already"));
    EXPECT_EQ(Picture(), once);
  }
  ASSERT_EQ(Run({"uninstall"}), 0) << err_;
  ::rmdir((node_ + "/var/lib/headrace").c_str());
  ::rmdir((node_ + "/var/lib").c_str());
  ::rmdir((node_ + "/var").c_str());
  EXPECT_EQ(Picture(), before);
}

// Goal: another choice, or a newer containerd: only what is different is shown, and what is there then is what a first installation makes.
TEST_F(InstallTest, AgainWithAnotherChoiceShowsTheDifference) {
  Put(kConfig, kDebian);
  ASSERT_EQ(Run({"install", "--containerd-version", "2.1", "--pull", "transfer"}), 0) << err_;
  const std::string wanted = Get(kDropIn), config = Get(kConfig);
  ASSERT_EQ(Run({"uninstall"}), 0) << err_;
  ASSERT_EQ(Run({"install", "--containerd-version", "2.1"}), 0) << err_;
  const auto before = Picture();
  ASSERT_EQ(Run({"install", "--containerd-version", "2.1", "--pull", "transfer", "--dry-run"}), 0) << err_;
  EXPECT_EQ(Picture(), before);
  const std::string shown = out_;
  EXPECT_THAT(shown, HasSubstr("-  disable_snapshot_annotations = false\n"));
  EXPECT_THAT(shown, Not(HasSubstr("imports")));
  ASSERT_EQ(Run({"install", "--containerd-version", "2.1", "--pull", "transfer"}), 0) << err_;
  EXPECT_EQ(out_, shown);
  EXPECT_EQ(Get(kDropIn), wanted);
  EXPECT_EQ(Get(kConfig), config);
  ASSERT_EQ(Run({"uninstall"}), 0) << err_;
  EXPECT_EQ(Get(kConfig), kDebian);
  EXPECT_FALSE(Exists(kDropIn));
}

// Goal: what somebody changed since is not overwritten: said, and left.
TEST_F(InstallTest, ChangedSince) {
  Put(kConfig, "version = 3\n");
  ASSERT_EQ(Run({"install", "--containerd-version", "2.1"}), 0) << err_;
  Put(kConfig, Get(kConfig) + "root = '/elsewhere'\n");
  EXPECT_EQ(Run({"uninstall"}), 1);
  EXPECT_THAT(err_, HasSubstr("/etc/containerd/config.toml was changed since"));
  EXPECT_THAT(Get(kConfig), HasSubstr("elsewhere"));
  EXPECT_FALSE(Exists(kDropIn));
  EXPECT_TRUE(Exists(kRecord));
  EXPECT_EQ(Run({"install", "--containerd-version", "2.1"}), 1);
}

// Goal: with the transfer service no annotations are asked for, and a config_path that it would ignore is said.
TEST_F(InstallTest, TransferService) {
  Put(kConfig, "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n");
  ASSERT_EQ(Run({"install", "--pull", "transfer", "--containerd-version", "2.1"}), 0) << err_;
  EXPECT_FALSE(Document(kDropIn).Has({"plugins", "io.containerd.cri.v1.images", "disable_snapshot_annotations"}));
  EXPECT_EQ(Document(kDropIn).Text({"plugins", "io.containerd.cri.v1.images", "snapshotter"}), "headrace");
  EXPECT_THAT(err_, HasSubstr("hosts.toml files are ignored"));
}

// Goal: an own socket and root of headrace.toml go to containerd, and existing imports are used.
TEST_F(InstallTest, OwnPlacesAndImports) {
  Put("/etc/headrace/headrace.toml", "[snapshotter]\nsocket = '/run/other/s.sock'\nroot = '/data/hr/snapshotter'\n");
  Put(kConfig, "version = 3\nimports = ['one.toml', 'extra/*.toml']\n");
  ASSERT_EQ(Run({"install", "--containerd-version", "2.0"}), 0) << err_;
  EXPECT_EQ(Get(kConfig), "version = 3\nimports = ['one.toml', 'extra/*.toml']\n");
  EXPECT_EQ(Document("/etc/containerd/extra/headrace.toml").Text({"proxy_plugins", "headrace", "address"}), "/run/other/s.sock");
  EXPECT_EQ(Document("/etc/containerd/extra/headrace.toml").Text({"proxy_plugins", "headrace", "exports", "root"}), "/data/hr");
}

// Goal: k3s: the generated file stays, the drop-in goes where it imports from; a k3s without such a directory is refused with what to do.
TEST_F(InstallTest, K3s) {
  const std::string base = "/var/lib/rancher/k3s/agent/etc/containerd";
  Put(base + "/config.toml", "version = 3\nimports = [\"" + base + "/config-v3.toml.d/*.toml\"]\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'overlayfs'\n");
  const std::string generated = Get(base + "/config.toml");
  ASSERT_EQ(Run({"install", "--containerd-version", "2.1"}), 0) << err_;
  EXPECT_EQ(Get(base + "/config.toml"), generated);
  EXPECT_EQ(Document(base + "/config-v3.toml.d/headrace.toml").Text({"plugins", "io.containerd.cri.v1.images", "snapshotter"}), "headrace");
  EXPECT_THAT(err_, HasSubstr("Restart k3s"));
  ASSERT_EQ(Run({"uninstall"}), 0);
  EXPECT_FALSE(Exists(base + "/config-v3.toml.d"));
  Put(base + "/config.toml", "version = 2\n");
  EXPECT_EQ(Run({"install", "--containerd-version", "1.7"}), 1);
  EXPECT_THAT(err_, HasSubstr("imports no directory"));
}

// Goal: Amazon EKS: what nodeadm would undo is said.
TEST_F(InstallTest, Nodeadm) {
  Put("/usr/bin/nodeadm", "");
  Put("/etc/eks/x", "");
  Put(kConfig, "version = 3\n[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\n");
  ASSERT_EQ(Run({"install", "--containerd-version", "2.1"}), 0) << err_;
  EXPECT_THAT(err_, HasSubstr("NodeConfig"));
}

// Goal: what cannot be done is refused before anything is changed, with the reason.
TEST_F(InstallTest, Refusals) {
  const std::vector<std::tuple<std::string, std::string, std::string>> cases = {
      {"2.1", "version = 3\n[broken\n", "config.toml:2"},
      {"1.5", "version = 2\n", "too old"},
      {"1.7", "root = '/x'\n", "configuration version 1"},
      {"1.7", "version = 3\n", "configuration version 3"},
      {"no", "version = 2\n", "no version of containerd"},
      {"1.7", "version = 2\nplugins = { 'io.containerd.grpc.v1.cri' = { containerd = { snapshotter = 'a' } } }\n", "by hand"},
      {"", "version = 3\n", "no containerd was found"},
  };
  for (const auto& [version, text, reason] : cases) {
    Put(kConfig, text);
    std::vector<std::string> arguments{"install"};
    if (!version.empty()) arguments.insert(arguments.end(), {"--containerd-version", version});
    EXPECT_EQ(Run(arguments), 1) << text;
    EXPECT_THAT(err_, HasSubstr(reason));
    EXPECT_FALSE(Exists(kRecord));
    EXPECT_EQ(Get(kConfig), text);
  }
}

// Goal: the CRI section of 1.x in an imported file cannot be added to.
TEST_F(InstallTest, CriSectionInAnImportOnOne) {
  Put(kConfig, "version = 2\nimports = ['/etc/containerd/conf.d/*.toml']\n");
  Put("/etc/containerd/conf.d/a.toml", "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'x'\n");
  EXPECT_EQ(Run({"install", "--containerd-version", "1.7"}), 1);
  EXPECT_THAT(err_, HasSubstr("move it into"));
}

// Goal: pods that use Headrace are found in the mount table and stand in the way; so does the configuration, for who removes the package.
TEST_F(InstallTest, UsersStandInTheWay) {
  Put(kConfig, "version = 3\n");
  EXPECT_EQ(Run({"uninstall", "--check"}), 0) << err_;
  ASSERT_EQ(Run({"install", "--containerd-version", "2.1"}), 0) << err_;
  EXPECT_EQ(Run({"uninstall", "--check"}), 1);
  EXPECT_THAT(err_, HasSubstr("containerd is configured to use it"));
  Put("/proc/self/mountinfo",
      "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "40 22 0:41 / /run/headrace/fs ro,nosuid shared:9 - fuse.headrace headrace ro\n"
      "41 22 0:42 / /run/containerd/task/rootfs rw - overlay overlay rw,lowerdir=/run/headrace/fs/7,upperdir=/var/lib/headrace/snapshotter/snapshots/9/fs\n"
      "42 22 0:41 /3 /run/containerd/image-volumes/x ro shared:9 - fuse.headrace headrace ro\n"
      "43 22 8:1 /var/lib/headrace/snapshotter/snapshots/4/fs /run/containerd/y rw - ext4 /dev/sda1 rw\n"
      "44 22 0:50 / /var/lib/docker/z rw - overlay overlay rw,lowerdir=/a,upperdir=/b\n");
  EXPECT_EQ(Run({"uninstall"}), 1);
  for (const char* user : {"/run/containerd/task/rootfs", "/run/containerd/image-volumes/x", "/run/containerd/y"}) EXPECT_THAT(err_, HasSubstr(user));
  EXPECT_THAT(err_, Not(HasSubstr("docker")));
  EXPECT_TRUE(Exists(kDropIn));
  EXPECT_EQ(Run({"uninstall", "--force"}), 0) << err_;
  EXPECT_FALSE(Exists(kDropIn));
}

}  // namespace
}  // namespace headrace::cli
