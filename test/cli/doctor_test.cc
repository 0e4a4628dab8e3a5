// `headrace doctor` on a node made of files: nothing is found on a healthy one, and each planted mistake is found, alone, with its fix. One test for each mistake.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "snapshotter/cli/node/doctor.h"
#include "test/cli/node_fixture.h"

namespace headrace::cli {
namespace {

using testing::HasSubstr;

constexpr char kConfig[] = "/etc/containerd/config.toml";
constexpr char kDropIn[] = "/etc/containerd/conf.d/headrace.toml";
constexpr char kHeadrace[] = "/etc/headrace/headrace.toml";
constexpr char kRoot[] = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n";
constexpr char kMounted[] = "40 22 0:41 / /run/headrace/fs ro,nosuid shared:9 - fuse.headrace headrace ro\n";

class DoctorTest : public NodeTest {
 protected:
  void SetUp() override {
    InstallContainerd("containerd github.com/containerd/containerd/v2 2.1.9 abc");
    ASSERT_EQ(NodeTest::Run({"install"}), 0) << err_;
    Put("/dev/fuse", "");
    Put("/proc/sys/kernel/osrelease", "6.12.4-amd64\n");
    Put("/boot/config-6.12.4-amd64", "CONFIG_FUSE_FS=m\nCONFIG_FUSE_PASSTHROUGH=y\n");
    Put("/proc/sys/fs/fuse/default_request_timeout", "0\n");
    Put("/proc/sys/fs/fuse/max_request_timeout", "0\n");
    Put("/sys/class/bdi/0:41/read_ahead_kb", "4096\n");
    Put("/proc/self/mountinfo", std::string(kRoot) + kMounted);
    AddProcess("900", "headrace-fused");
    AddProcess("901", "headrace-snapshotter");
    AddSocket("/run/headrace/control.sock");
    AddSocket("/run/headrace/snapshotter.sock");
    ASSERT_OK(MakeDirs(node_ + "/var/lib/headrace/fused"));
    for (const char* unit : {"headrace-fused.service", "headrace-snapshotter.service"}) {
      Put(std::string("/usr/lib/systemd/system/") + unit, "");
      Put(std::string("/etc/systemd/system/multi-user.target.wants/") + unit, "");
    }
    questions_.disk = [](const std::string&) { return DiskSpace{1000ull << 30, 500ull << 30, 1'000'000, 900'000, 7}; };
    questions_.now = [] { return int64_t{1'800'000'000}; };
    questions_.image_is_lazy = [](const std::string&, const config::FusedConfig&) { return Result<bool>(true); };
  }
  void TearDown() override {
    for (int fd : sockets_) ::close(fd);
  }

  void AddProcess(const std::string& pid, const std::string& program) {
    Put("/proc/" + pid + "/comm", program.substr(0, 15) + "\n");
    Put("/proc/" + pid + "/cmdline", std::string("/usr/bin/") + program + '\0');
    Put("/proc/" + pid + "/limits", "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1048576              1048576              files     \n");
    ASSERT_EQ(::symlink(("/usr/bin/" + program).c_str(), (node_ + "/proc/" + pid + "/exe").c_str()), 0);
  }
  void AddSocket(const std::string& path) {
    ASSERT_OK(MakeDirs(node_ + DirectoryOf(path)));
    const std::string real = node_ + path;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ASSERT_LT(real.size(), sizeof address.sun_path);
    std::memcpy(address.sun_path, real.data(), real.size());
    sockets_.push_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(sockets_.back(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  void Remove(const std::string& path) { ASSERT_OK(RemoveAll(node_ + path)); }
  // In a file of the node.
  void Change(const std::string& path, const std::string& from, const std::string& to) {
    std::string text = Get(path);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << path << " has no " << from;
    Put(path, text.replace(at, from.size(), to));
  }

  DoctorReport Examine(std::vector<std::string> images = {}) { return RunDoctor(NodeRoot(node_), {kHeadrace, {}, std::move(images)}, questions_); }
  // That is found and nothing else; its fix has these words.
  void ExpectOnly(const std::string& id, Severity severity, const std::string& fix, std::vector<std::string> images = {}) {
    const DoctorReport report = Examine(std::move(images));
    ASSERT_EQ(report.findings.size(), 1u) << DoctorText(report);
    EXPECT_EQ(report.findings[0].id, id);
    EXPECT_EQ(report.findings[0].severity, severity);
    EXPECT_THAT(report.findings[0].fix, HasSubstr(fix)) << DoctorText(report);
  }

  DoctorQuestions questions_;
  std::vector<int> sockets_;
};

// Goal: no false alarm, for each layout that `headrace install` makes.
TEST_F(DoctorTest, AHealthyNode) {
  const DoctorReport report = Examine({"registry.example.com/m:1"});
  EXPECT_TRUE(report.findings.empty()) << DoctorText(report);
  EXPECT_GT(report.checks, 30);
  for (const char* pull : {"cri", "transfer"}) {
    for (const char* text : {"version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'overlayfs'\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nx = 1\n",
                             "version = 3\n", "version = 2\n"}) {
      ASSERT_EQ(NodeTest::Run({"uninstall"}), 0) << err_;
      Put(kConfig, text);
      ASSERT_EQ(NodeTest::Run({"install", "--pull", pull}), 0) << err_;
      EXPECT_TRUE(Examine().findings.empty()) << pull << "\n" << text << DoctorText(Examine());
    }
  }
}

TEST_F(DoctorTest, HeadraceConfig) {
  Put(kHeadrace, "[fused]\nrooot = '/x'\n");
  ExpectOnly("headrace-config", Severity::kError, "correct /etc/headrace/headrace.toml");
}

TEST_F(DoctorTest, ContainerdConfig) {
  Put(kDropIn, "[broken\n");
  const DoctorReport report = Examine();
  ASSERT_FALSE(report.findings.empty());
  EXPECT_EQ(report.findings[0].id, "containerd-config");
  EXPECT_THAT(report.findings[0].what, HasSubstr("headrace.toml:1"));
}

TEST_F(DoctorTest, NoContainerd) {
  Remove("/usr/bin/containerd");
  ExpectOnly("containerd-missing", Severity::kError, "install containerd");
}

TEST_F(DoctorTest, ContainerdWithoutImageVolumes) {
  ASSERT_EQ(NodeTest::Run({"uninstall"}), 0);
  InstallContainerd("containerd containerd.io 1.7.24 abc");
  ASSERT_EQ(NodeTest::Run({"install"}), 0) << err_;
  ExpectOnly("containerd-version", Severity::kWarning, "2.1 or later");
}

TEST_F(DoctorTest, NoProxyPlugin) {
  Change(kDropIn, "[proxy_plugins.headrace]", "[proxy_plugins.other]");
  Change(kDropIn, "[proxy_plugins.headrace.exports]", "[proxy_plugins.other.exports]");
  ExpectOnly("proxy-plugin-missing", Severity::kError, "headrace install");
}

TEST_F(DoctorTest, WrongTypeOfPlugin) {
  Change(kDropIn, "\"snapshot\"", "\"content\"");
  ExpectOnly("proxy-plugin-type", Severity::kError, "type = \"snapshot\"");
}

TEST_F(DoctorTest, WrongAddress) {
  Change(kDropIn, "/run/headrace/snapshotter.sock", "/run/headrace/snap.sock");
  ExpectOnly("proxy-plugin-address", Severity::kError, "the same");
}

TEST_F(DoctorTest, NoExportsRoot) {
  Change(kDropIn, "root = \"/var/lib/headrace\"", "");
  ExpectOnly("exports-root-missing", Severity::kError, "headrace install");
}

TEST_F(DoctorTest, ExportsRootOnAnotherDisk) {
  questions_.disk = [](const std::string& path) { return DiskSpace{100, 90, 100, 90, path.ends_with("/fused") ? 7u : 8u}; };
  ExpectOnly("exports-root-other-disk", Severity::kWarning, "one file system");
}

TEST_F(DoctorTest, RebaseIsAnnounced) {
  Change(kDropIn, "type = \"snapshot\"", "type = \"snapshot\"\ncapabilities = ['rebase']");
  ExpectOnly("capability-rebase", Severity::kError, "\"rebase\"");
}

TEST_F(DoctorTest, SnapshotterIsNotTheDefault) {
  Change(kDropIn, "'io.containerd.cri.v1.images']\n  snapshotter = \"headrace\"", "'io.containerd.cri.v1.images']\n  snapshotter = \"overlayfs\"");
  ExpectOnly("snapshotter-not-default", Severity::kError, "headrace install");
}

// A drop-in of version 2 that containerd 2.x does not listen to: what our own documents once said.
TEST_F(DoctorTest, SnapshotterInWordsThatAreNotHeard) {
  Change(kDropIn, "[plugins.'io.containerd.cri.v1.images']", "[plugins.'io.containerd.grpc.v1.cri'.containerd]");
  const DoctorReport report = Examine();
  ASSERT_FALSE(report.findings.empty());
  EXPECT_EQ(report.findings[0].id, "snapshotter-not-default");
}

TEST_F(DoctorTest, LabelsDoNotArrive) {
  ASSERT_EQ(NodeTest::Run({"uninstall"}), 0);
  InstallContainerd("containerd github.com/containerd/containerd/v2 2.0.4 abc");
  ASSERT_EQ(NodeTest::Run({"install"}), 0) << err_;
  Change(kDropIn, "disable_snapshot_annotations = false", "");
  const DoctorReport report = Examine();
  ASSERT_EQ(report.findings.size(), 2u) << DoctorText(report);  // and the version
  EXPECT_EQ(report.findings[0].id, "annotations-disabled");
  EXPECT_THAT(report.findings[0].fix, HasSubstr("disable_snapshot_annotations = false"));
}

TEST_F(DoctorTest, LabelsOfTheTransferService) {
  Change(kDropIn, "disable_snapshot_annotations = false", "");
  Change(kDropIn, "enable_remote_snapshot_annotations = \"true\"", "");
  ExpectOnly("remote-annotations-missing", Severity::kError, "headrace install");
}

TEST_F(DoctorTest, UnpackConfigIsMissing) {
  Change(kDropIn, "disable_snapshot_annotations = false", "");
  Change(kDropIn, "platform = \"linux/amd64\"\n  snapshotter = \"headrace\"", "platform = \"linux/amd64\"\n  snapshotter = \"other\"");
  ExpectOnly("unpack-config-missing", Severity::kError, "unpack_config");
}

TEST_F(DoctorTest, ConfigPathIsIgnored) {
  Put("/etc/containerd/certs.d/registry.example.com/hosts.toml", "");
  Put(kHeadrace, "[registry]\nconfig_path = '/etc/containerd/certs.d'\n");
  EXPECT_TRUE(Examine().findings.empty()) << DoctorText(Examine());
  Change(kDropIn, "disable_snapshot_annotations = false", "");
  ExpectOnly("config-path-ignored", Severity::kError, "one directory");
}

TEST_F(DoctorTest, HostsTomlIsNotShared) {
  Put("/etc/containerd/certs.d/registry.example.com/hosts.toml", "");
  ExpectOnly("hosts-toml-not-shared", Severity::kWarning, "config_path");
}

TEST_F(DoctorTest, ARuntimeHasAnotherSnapshotter) {
  Put("/etc/containerd/conf.d/z.toml", "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata]\nsnapshotter = 'devmapper'\n");
  ExpectOnly("runtime-snapshotter", Severity::kWarning, "runtimes");
}

TEST_F(DoctorTest, CriIsDisabled) {
  Change(kConfig, "version = 3", "version = 3\ndisabled_plugins = ['io.containerd.grpc.v1.cri']");
  ExpectOnly("plugin-disabled", Severity::kError, "disabled_plugins");
}

TEST_F(DoctorTest, NoFuse) {
  Remove("/dev/fuse");
  ExpectOnly("fuse-device", Severity::kError, "modprobe fuse");
}

TEST_F(DoctorTest, OldKernel) {
  Put("/proc/sys/kernel/osrelease", "5.15.0-91-generic\n");
  ExpectOnly("kernel-version", Severity::kWarning, "6.9");
}

TEST_F(DoctorTest, KernelWithoutPassthrough) {
  Put("/boot/config-6.12.4-amd64", "# CONFIG_FUSE_PASSTHROUGH is not set\n");
  ExpectOnly("fuse-passthrough", Severity::kWarning, "CONFIG_FUSE_PASSTHROUGH=y");
}

TEST_F(DoctorTest, KernelEndsRequests) {
  Put("/proc/sys/fs/fuse/default_request_timeout", "60\n");
  ExpectOnly("fuse-request-timeout", Severity::kError, "sysctl fs.fuse.default_request_timeout=0");
}

TEST_F(DoctorTest, ReadAhead) {
  Put("/sys/class/bdi/0:41/read_ahead_kb", "128\n");
  ExpectOnly("read-ahead", Severity::kWarning, "restart headrace-fused");
}

TEST_F(DoctorTest, SelinuxEnforces) {
  Put("/sys/fs/selinux/enforce", "1");
  ExpectOnly("selinux", Severity::kWarning, "fusefs");
}

TEST_F(DoctorTest, AppArmorConfines) {
  Put("/sys/kernel/security/apparmor/profiles", "man_groff (enforce)\n/usr/bin/headrace-fused (enforce)\n");
  ExpectOnly("apparmor", Severity::kWarning, "aa-complain");
}

TEST_F(DoctorTest, ADaemonIsDown) {
  Remove("/proc/901");
  ExpectOnly("headrace-snapshotter-down", Severity::kError, "systemctl enable --now headrace-snapshotter");
}

TEST_F(DoctorTest, ADaemonIsOld) {
  Remove("/proc/900/exe");
  ASSERT_EQ(::symlink("/usr/bin/headrace-fused (deleted)", (node_ + "/proc/900/exe").c_str()), 0);
  ExpectOnly("headrace-fused-old", Severity::kWarning, "systemctl restart headrace-fused");
}

TEST_F(DoctorTest, FewDescriptors) {
  Change("/proc/900/limits", "1048576              1048576", "1024                 4096   ");
  ExpectOnly("headrace-fused-limits", Severity::kWarning, "LimitNOFILE");
}

TEST_F(DoctorTest, NoSocket) {
  Remove("/run/headrace/snapshotter.sock");
  ExpectOnly("snapshotter-socket", Severity::kError, "restart headrace-snapshotter");
}

TEST_F(DoctorTest, TwoControlSockets) {
  AddSocket("/run/headrace/other.sock");
  Put(kHeadrace, "[snapshotter]\ncontrol_socket = '/run/headrace/other.sock'\n");
  ExpectOnly("control-socket-differs", Severity::kError, "the same");
}

TEST_F(DoctorTest, NotMounted) {
  Put("/proc/self/mountinfo", kRoot);
  ExpectOnly("mount-missing", Severity::kError, "restart headrace-fused");
}

TEST_F(DoctorTest, MountedInItsOwnNamespace) {
  Put("/proc/self/mountinfo", kRoot);
  Put("/proc/900/mountinfo", std::string(kRoot) + kMounted);
  ExpectOnly("mount-in-other-namespace", Severity::kError, "systemctl cat headrace-fused");
}

TEST_F(DoctorTest, ADropInMakesANamespace) {
  Put("/etc/systemd/system/headrace-fused.service.d/hardening.conf", "[Service]\nProtectSystem=strict\nProtectHome=no\n");
  ExpectOnly("unit-namespace", Severity::kError, "daemon-reload");
}

TEST_F(DoctorTest, NotShared) {
  Change("/proc/self/mountinfo", " shared:9", "");
  ExpectOnly("mount-not-shared", Severity::kWarning, "make-rshared");
}

TEST_F(DoctorTest, NotEnabled) {
  Remove("/etc/systemd/system/multi-user.target.wants/headrace-fused.service");
  ExpectOnly("unit-not-enabled", Severity::kWarning, "systemctl enable headrace-fused.service");
}

TEST_F(DoctorTest, FullDisk) {
  questions_.disk = [](const std::string&) { return DiskSpace{1000ull << 30, 50ull << 30, 1'000'000, 900'000, 7}; };
  ExpectOnly("disk-space", Severity::kWarning, "make room");
}

TEST_F(DoctorTest, FewInodes) {
  questions_.disk = [](const std::string&) { return DiskSpace{1000ull << 30, 500ull << 30, 1'000'000, 4'000, 7}; };
  ExpectOnly("disk-inodes", Severity::kWarning, "inodes");
}

TEST_F(DoctorTest, CacheInMemory) {
  Put("/proc/self/mountinfo", std::string(kRoot) + kMounted + "41 22 0:50 / /var/lib/headrace rw - tmpfs tmpfs rw\n");
  ExpectOnly("cache-file-system", Severity::kError, "disk of its own");
}

TEST_F(DoctorTest, WrongClock) {
  questions_.now = [] { return int64_t{86400}; };
  ExpectOnly("clock", Severity::kError, "set-ntp");
}

TEST_F(DoctorTest, CredentialsThatAreNotThere) {
  Put(kHeadrace, "[registry]\ndocker_config = '/root/.docker/config.json'\n");
  ExpectOnly("credentials-missing", Severity::kError, "registry.docker_config");
}

TEST_F(DoctorTest, HalfACredentialProvider) {
  Put("/etc/kubernetes/providers.yaml", "");
  Put(kHeadrace, "[keychain]\ncredential_provider_config = '/etc/kubernetes/providers.yaml'\n");
  ExpectOnly("credential-provider-half", Severity::kError, "image-credential-provider-bin-dir");
}

TEST_F(DoctorTest, OpenCredentials) {
  Put("/etc/headrace/credentials.json", "{}", 0644);
  Put(kHeadrace, "[keychain]\ncredentials_file = '/etc/headrace/credentials.json'\n");
  ExpectOnly("credentials-open", Severity::kError, "chmod 600");
}

TEST_F(DoctorTest, KubeletDoesNotAskTheProxy) {
  Put(kHeadrace, "[keychain]\ncri_socket = '/run/headrace/cri.sock'\n");
  ExpectOnly("cri-proxy-not-asked", Severity::kWarning, "imageServiceEndpoint");
  Put("/var/lib/kubelet/config.yaml", "imageServiceEndpoint: unix:///run/headrace/cri.sock\n");
  EXPECT_TRUE(Examine().findings.empty());
}

TEST_F(DoctorTest, RegistryOfAnImage) {
  const std::vector<std::pair<Status, std::string>> failures = {{UnavailableError("no such host"), "firewall"}, {UnauthenticatedError("401"), "credentials"}, {NotFoundError("404"), "name and tag"}};
  for (const auto& [status, fix] : failures) {
    questions_.image_is_lazy = [status = status](const std::string&, const config::FusedConfig&) { return Result<bool>(status); };
    ExpectOnly("registry", Severity::kError, fix, {"registry.example.com/m:1"});
  }
  questions_.image_is_lazy = [](const std::string&, const config::FusedConfig&) { return Result<bool>(false); };
  ExpectOnly("image-not-lazy", Severity::kWarning, "headrace convert registry.example.com/m:1", {"registry.example.com/m:1"});
}

// Goal: the command's exit codes and forms. Method: the real questions; this node's disk is that of the machine.
TEST_F(DoctorTest, ExitCodesAndJson) {
  Remove("/dev/fuse");
  Put("/sys/fs/selinux/enforce", "1");
  EXPECT_EQ(NodeTest::Run({"doctor"}), 1);
  EXPECT_THAT(out_, HasSubstr("error [fuse-device] there is no /dev/fuse\n  fix: modprobe fuse"));
  EXPECT_THAT(out_, HasSubstr("warning [selinux]"));
  EXPECT_LT(out_.find("error ["), out_.find("warning ["));
  EXPECT_EQ(NodeTest::Run({"doctor", "--json"}), 1);
  EXPECT_THAT(out_, HasSubstr("\"id\": \"fuse-device\""));
  Put("/dev/fuse", "");
  EXPECT_EQ(NodeTest::Run({"doctor"}), 0) << out_;
  EXPECT_EQ(NodeTest::Run({"doctor", "--strict"}), 1);
  EXPECT_EQ(NodeTest::Run({"doctor", "--no-such-flag"}), 2);
}

}  // namespace
}  // namespace headrace::cli
