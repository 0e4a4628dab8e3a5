// doctor: kernel, daemons, and where they keep things.
#include <limits.h>
#include <unistd.h>

#include <algorithm>

#include "fusefs/base/text.h"
#include "snapshotter/cli/node/doctor.h"

namespace headrace::cli {
namespace {

constexpr uint64_t kDescriptorsMin = 65'536;
constexpr int kFreePercentMin = 10;
constexpr int64_t kBuiltAfter = 1'735'689'600;  // 2025-01-01: no clock that is right shows less
constexpr char kUnits[] = "/etc/systemd/system";

std::optional<uint64_t> Number(const std::string& text) {
  const auto number = ParseU64(text);
  return number.ok() ? std::optional<uint64_t>(*number) : std::nullopt;
}

struct MountLine {
  std::string device, type;
  bool shared = false;
};

// The last one there: it hides those below.
std::optional<MountLine> MountAt(std::string_view mountinfo, const std::string& target) {
  std::optional<MountLine> found;
  for (std::string_view line : Split(mountinfo, '\n')) {
    const std::vector<std::string_view> fields = Split(line, ' ');
    if (fields.size() < 10 || fields[4] != target) continue;
    found = MountLine{std::string(fields[2]), "", line.find(" shared:") != std::string_view::npos};
    for (size_t i = 6; i + 1 < fields.size(); ++i) {
      if (fields[i] == "-") found->type = std::string(fields[i + 1]);
    }
  }
  return found;
}

// The mount that a directory is in.
std::string TypeOfDisk(std::string_view mountinfo, const std::string& directory) {
  for (std::string at = directory;; at = DirectoryOf(at)) {
    if (auto mount = MountAt(mountinfo, at)) return mount->type;
    if (at == "/") return "";
  }
}

// A process of that name; "": none. Names in /proc have 15 bytes at most.
std::string ProcessOf(const NodeRoot& root, const std::string& program) {
  for (const std::string& pid : root.List("/proc")) {
    if (!Number(pid) || root.Line("/proc/" + pid + "/comm") != program.substr(0, 15)) continue;
    if (root.Line("/proc/" + pid + "/cmdline").find(program) != std::string::npos) return pid;
  }
  return "";
}

std::string ExeOf(const NodeRoot& root, const std::string& pid) {
  char target[PATH_MAX];
  const ssize_t n = ::readlink(root.At("/proc/" + pid + "/exe").c_str(), target, sizeof target);
  return n > 0 ? std::string(target, static_cast<size_t>(n)) : "";
}

uint64_t DescriptorLimit(const std::string& limits) {
  for (std::string_view line : Split(limits, '\n')) {
    if (!line.starts_with("Max open files")) continue;
    for (std::string_view word : Split(line.substr(14), ' ')) {
      if (auto number = Number(std::string(word))) return *number;
    }
  }
  return UINT64_MAX;  // unlimited, or not known
}

// What gives headrace-fused a mount namespace of its own (see its unit).
constexpr const char* kNamespaceSettings[] = {"PrivateMounts=", "ProtectSystem=", "ProtectHome=", "PrivateTmp=", "PrivateDevices=", "ProtectKernelTunables=",
                                              "ProtectKernelModules=", "ProtectKernelLogs=", "ProtectControlGroups=", "ReadWritePaths=", "ReadOnlyPaths=",
                                              "InaccessiblePaths=", "BindPaths=", "RootDirectory=", "ProtectProc=", "DynamicUser="};

std::string NamespaceSetting(const NodeRoot& root) {
  for (const std::string& path : root.Glob(std::string(kUnits) + "/headrace-fused.service.d/*.conf")) {
    const std::string text = root.Line(path);
    for (std::string_view line : Split(text, '\n')) {
      for (const char* setting : kNamespaceSettings) {
        if (line.starts_with(setting) && !line.ends_with("=no") && !line.ends_with("=false") && !line.ends_with('=')) return std::string(line) + " in " + path;
      }
    }
  }
  return "";
}

void CheckMount(Patient& p, const std::string& pid) {
  const config::FusedConfig& fused = p.headrace.fused;
  const auto mount = MountAt(p.root.Line("/proc/self/mountinfo"), fused.mountpoint);
  const bool elsewhere = !mount && !pid.empty() && MountAt(p.root.Line("/proc/" + pid + "/mountinfo"), fused.mountpoint);
  p.Check(!elsewhere, "mount-in-other-namespace", Severity::kError, "headrace-fused mounted " + fused.mountpoint + " in a mount namespace of its own: containerd does not see it",
          "take away what gives its unit one (" + (NamespaceSetting(p.root).empty() ? "systemctl cat headrace-fused" : NamespaceSetting(p.root)) + ") and restart it");
  if (elsewhere) return;
  p.Check(mount && mount->type.starts_with("fuse"), "mount-missing", Severity::kError,
            "nothing of Headrace is mounted at " + fused.mountpoint, "systemctl restart headrace-fused; journalctl -u headrace-fused");
  if (!mount) return;
  p.Check(mount->shared, "mount-not-shared", Severity::kWarning, fused.mountpoint + " is no shared mount: services with a mount namespace of their own do not see mounts that come later",
          "mount --make-rshared / (systemd does so at boot)");
  const auto kib = Number(p.root.Line("/sys/class/bdi/" + mount->device + "/read_ahead_kb"));
  p.Check(!kib || *kib >= fused.read_ahead >> 10, "read-ahead", Severity::kWarning,
          "the kernel reads " + std::to_string(kib.value_or(0)) + " KiB ahead in mapped files instead of " + std::to_string(fused.read_ahead >> 10) + ": they are read two to three times slower",
          "systemctl restart headrace-fused; if it comes back, a udev rule or a tuning daemon sets read_ahead_kb");
}

void CheckProcess(Patient& p, const std::string& program, const std::string& socket, const std::string& socket_id) {
  const std::string pid = ProcessOf(p.root, program);
  p.Check(!pid.empty(), program + "-down", Severity::kError, program + " does not run", "systemctl enable --now " + program + "; journalctl -u " + program);
  p.Check(p.root.IsSocket(socket), socket_id, Severity::kError, socket + " is no socket", "systemctl restart " + program + "; compare the path with headrace.toml");
  if (pid.empty()) return;
  const std::string exe = ExeOf(p.root, pid);
  p.Check(!exe.ends_with(" (deleted)"), program + "-old", Severity::kWarning, "the running " + program + " is not the one that is installed now", "systemctl restart " + program +
            " (readers wait a moment)");
  const uint64_t limit = DescriptorLimit(p.root.Line("/proc/" + pid + "/limits"));
  p.Check(limit >= kDescriptorsMin, program + "-limits", Severity::kWarning, program + " may have " + std::to_string(limit) + " open files: every open content takes two or three",
          "LimitNOFILE=1048576 in its unit (a drop-in of yours sets less?)");
}

}  // namespace

void CheckKernel(Patient& p) {
  p.Check(p.root.Exists("/dev/fuse"), "fuse-device", Severity::kError, "there is no /dev/fuse", "modprobe fuse; echo fuse > /etc/modules-load.d/fuse.conf");
  const std::string release = p.root.Line("/proc/sys/kernel/osrelease");
  const auto version = ContainerdVersion::Parse(release);  // two numbers, too
  p.Check(!version || version->AtLeast(6, 9), "kernel-version", Severity::kWarning,
          "Linux " + release + ": no passthrough (complete files are read through FUSE, slower), and readers lose their files when headrace-fused is restarted", "use Linux 6.9 or later");
  const std::string kernel_config = p.root.Line("/boot/config-" + release);
  p.Check(kernel_config.find("# CONFIG_FUSE_PASSTHROUGH is not set") == std::string::npos, "fuse-passthrough", Severity::kWarning,
          "this kernel was built without FUSE passthrough: complete files are read through FUSE, slower", "use a kernel with CONFIG_FUSE_PASSTHROUGH=y");
  for (const char* name : {"default_request_timeout", "max_request_timeout"}) {
    const std::string path = std::string("/proc/sys/fs/fuse/") + name;
    const uint64_t seconds = Number(p.root.Line(path)).value_or(0);
    const uint64_t needed = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(p.headrace.fused.read_deadline).count());
    p.Check(seconds == 0 || seconds > needed, "fuse-request-timeout", Severity::kError,
            "fs.fuse." + std::string(name) + " = " + std::to_string(seconds) + ": the kernel ends the whole file system when one read waits that long for the registry",
            "sysctl fs.fuse." + std::string(name) + "=0 (and in /etc/sysctl.d), or more than stream.read_deadline (" + std::to_string(needed) + " s)");
  }
  p.Check(p.root.Line("/sys/fs/selinux/enforce") != "1", "selinux", Severity::kWarning,
          "SELinux is enforcing: files of a FUSE file system have the label fusefs_t, which containers may not read",
          "setsebool -P container_use_fusefs on, or a policy that lets container_t read fusefs_t");
  const std::string profiles = p.root.Line("/sys/kernel/security/apparmor/profiles");
  bool confined = false;
  for (std::string_view line : Split(profiles, '\n')) confined = confined || (line.find("headrace") != std::string_view::npos && line.ends_with("(enforce)"));
  p.Check(!confined, "apparmor", Severity::kWarning, "an AppArmor profile confines Headrace's daemons; none is shipped with it, and mounting needs much",
            "aa-complain that profile and look at what it denies");
}

void CheckDaemons(Patient& p) {
  CheckProcess(p, "headrace-fused", p.headrace.fused.control_socket, "control-socket");
  CheckProcess(p, "headrace-snapshotter", p.headrace.snapshotter.socket, "snapshotter-socket");
  p.Check(p.headrace.fused.control_socket == p.headrace.snapshotter.control_socket, "control-socket-differs", Severity::kError,
          "[fused] control_socket is " + p.headrace.fused.control_socket + ", [snapshotter] control_socket " + p.headrace.snapshotter.control_socket + ": no layer is ever served",
          "make the two the same in " + p.options.headrace_config);
  const std::string setting = NamespaceSetting(p.root);
  p.Check(setting.empty(), "unit-namespace", Severity::kError,
            "a drop-in gives headrace-fused a mount namespace of its own: " + setting, "take that line away; systemctl daemon-reload; systemctl restart headrace-fused");
  const std::vector<std::string> enabled = p.root.List(std::string(kUnits) + "/multi-user.target.wants");
  for (const char* unit : {"headrace-fused.service", "headrace-snapshotter.service"}) {
    const bool installed = p.root.Exists(std::string("/usr/lib/systemd/system/") + unit);
    p.Check(!installed || std::find(enabled.begin(), enabled.end(), unit) != enabled.end(), "unit-not-enabled", Severity::kWarning,
            std::string(unit) + " is not enabled: after the next boot no pod starts on this node", "systemctl enable " + std::string(unit));
  }
  CheckMount(p, ProcessOf(p.root, "headrace-fused"));
}

void CheckPlace(Patient& p) {
  const std::string& cache = p.headrace.fused.root;
  const auto disk = p.questions.disk(p.root.At(cache));
  p.Check(disk.has_value(), "root-missing", Severity::kError, "there is no " + cache, "systemctl restart headrace-fused, which makes it");
  if (disk) {
    p.Check(disk->total == 0 || disk->free >= disk->total / 100 * kFreePercentMin, "disk-space", Severity::kWarning,
            "the disk of " + cache + " has " + HumanBytes(disk->free) + " left of " + HumanBytes(disk->total) + ": when it is full content is fetched again at each read",
            "make room, or move [fused] root to a larger disk");
    p.Check(disk->inodes == 0 || disk->inodes_free >= disk->inodes / 100 * kFreePercentMin / 2, "disk-inodes", Severity::kWarning,
            "the disk of " + cache + " has " + std::to_string(disk->inodes_free) + " inodes left", "make room, or use a file system with more inodes (XFS)");
    const std::string exported = p.containerd ? p.containerd->merged.Text({"proxy_plugins", "headrace", "exports", "root"}).value_or("") : "";
    const auto watched = exported.empty() ? disk : p.questions.disk(p.root.At(exported));
    p.Check(watched && watched->device == disk->device, "exports-root-other-disk", Severity::kWarning,
            "kubelet watches the disk of " + exported + " (exports.root), but the cache is on another one, in " + cache + ": image garbage collection does not see it fill",
            "move both to one file system, and export that");
  }
  const std::string type = TypeOfDisk(p.root.Line("/proc/self/mountinfo"), cache);
  p.Check(type != "overlay" && type != "tmpfs" && !type.starts_with("fuse"), "cache-file-system", Severity::kError,
          cache + " is on " + type + ": " + (type == "tmpfs" ? "the cache is in memory" : "a stack of file systems that the kernel does not allow below containers"),
          "put [fused] root on a disk of its own (ext4, XFS)");
  p.Check(p.questions.now() >= kBuiltAfter, "clock", Severity::kError, "the clock is wrong (before 2025): certificates and tokens of registries are not valid yet", "timedatectl set-ntp true");
}

}  // namespace headrace::cli
