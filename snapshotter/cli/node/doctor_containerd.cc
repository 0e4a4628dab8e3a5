// doctor: containerd's configuration. Every check follows from config/containerd/README.md.
#include "snapshotter/cli/node/doctor.h"
#include "snapshotter/cli/node/install_plan.h"

namespace headrace::cli {
namespace {

using config::TomlPath;

constexpr char kInstall[] = "headrace install, then restart containerd";

TomlPath Plugin(const std::vector<std::string>& more) {
  TomlPath path{"proxy_plugins", kPluginName};
  path.insert(path.end(), more.begin(), more.end());
  return path;
}

std::string Or(const std::optional<std::string>& text, const char* otherwise) { return text && !text->empty() ? *text : otherwise; }

void CheckPlugin(Patient& p, const ContainerdSetup& c) {
  const bool there = c.merged.Has(Plugin({}));
  p.Check(there, "proxy-plugin-missing", Severity::kError, "containerd's configuration has no [proxy_plugins.headrace]: it does not know the snapshotter", kInstall);
  if (!there) return;
  const std::string type = Or(c.merged.Text(Plugin({"type"})), "none");
  p.Check(type == "snapshot" || type == "io.containerd.snapshotter.v1", "proxy-plugin-type", Severity::kError, "[proxy_plugins.headrace] has the type \"" + type + "\"",
          "set type = \"snapshot\" (" + std::string(kInstall) + ")");
  const std::string address = Or(c.merged.Text(Plugin({"address"})), "nothing");
  p.Check(address == p.headrace.snapshotter.socket, "proxy-plugin-address", Severity::kError,
          "containerd dials " + address + ", but the snapshotter listens at " + p.headrace.snapshotter.socket,
          "make address in [proxy_plugins.headrace] and socket in [snapshotter] of headrace.toml the same (" + std::string(kInstall) + ")");
  const std::optional<std::string> exports = c.merged.Text(Plugin({"exports", "root"}));
  p.Check(exports.has_value(), "exports-root-missing", Severity::kError,
          "[proxy_plugins.headrace.exports] has no root: kubelet watches the space of another directory and never collects Headrace's images", kInstall);
  const std::vector<std::string> capabilities = c.merged.Texts(Plugin({"capabilities"}));
  bool rebase = false;
  for (const std::string& one : capabilities) rebase = rebase || one == "rebase";
  p.Check(!rebase, "capability-rebase", Severity::kError, "[proxy_plugins.headrace] announces \"rebase\": containerd unpacks layers in parallel and loses the parents of lazy ones",
          "take \"rebase\" out of its capabilities");
}

// The CRI plugin pulls by itself, or the transfer service does (2.1 and later, if nothing says otherwise).
bool TransferPulls(const ContainerdSetup& c) {
  if (!c.version || !c.version->AtLeast(2, 1)) return false;
  if (c.merged.Flag(c.CriImages({"use_local_image_pull"})).value_or(false)) return false;
  if (c.merged.Flag(c.CriImages({"discard_unpacked_layers"})).value_or(false)) return false;
  return c.merged.Flag(c.CriImages({"disable_snapshot_annotations"})).value_or(true);
}

bool AnyHostsToml(const NodeRoot& root, const std::string& directories) {
  size_t begin = 0;
  while (begin <= directories.size()) {
    const size_t end = std::min(directories.find(':', begin), directories.size());
    const std::string directory = directories.substr(begin, end - begin);
    for (const std::string& host : directory.empty() ? std::vector<std::string>() : root.List(directory)) {
      if (root.Exists(directory + "/" + host + "/hosts.toml")) return true;
    }
    begin = end + 1;
  }
  return false;
}

void CheckPulls(Patient& p, const ContainerdSetup& c) {
  const std::string snapshotter = Or(c.merged.Text(c.CriImages({"snapshotter"})), "overlayfs");
  p.Check(snapshotter == kPluginName, "snapshotter-not-default", Severity::kError,
          "the CRI plugin's snapshotter is " + snapshotter + ": images are unpacked by that one, and an image volume is mounted with it", kInstall);
  const bool transfer = TransferPulls(c);
  const bool annotations = !c.merged.Flag(c.CriImages({"disable_snapshot_annotations"})).value_or(true);
  const bool exported = c.merged.Text(Plugin({"exports", "enable_remote_snapshot_annotations"})) == "true";
  if (!transfer) {
    p.Check(annotations, "annotations-disabled", Severity::kError,
            "disable_snapshot_annotations is not false: the snapshotter is not told which image a layer is of, and every layer is downloaded whole",
            "set disable_snapshot_annotations = false (" + std::string(kInstall) + ")");
  } else {
    p.Check(exported, "remote-annotations-missing", Severity::kError,
            "the transfer service pulls, and enable_remote_snapshot_annotations is not \"true\" in [proxy_plugins.headrace.exports]: every layer is downloaded whole", kInstall);
  }
  if (c.version && c.version->AtLeast(2, 1)) {
    bool unpacks = false;
    for (const std::string& one : c.merged.TextOfEach(kUnpackConfig, "snapshotter")) unpacks = unpacks || one == kPluginName;
    p.Check(unpacks, "unpack-config-missing", transfer ? Severity::kError : Severity::kWarning,
            "the transfer service has no unpack_config for headrace: " + std::string(transfer ? "pulls" : "`ctr images pull --snapshotter headrace`") + " fail with \"no unpack platforms defined\"",
            "add [[plugins.'io.containerd.transfer.v1.local'.unpack_config]] with snapshotter = \"headrace\" (" + std::string(kInstall) + ")");
  }
  const std::string fallback = c.IsTwo() ? "/etc/containerd/certs.d:/etc/docker/certs.d" : "";
  const std::string hosts = c.merged.Text(c.CriImages({"registry", "config_path"})).value_or(fallback);
  const bool used = AnyHostsToml(p.root, hosts);
  p.Check(!(transfer && used && hosts.find(':') != std::string::npos), "config-path-ignored", Severity::kError,
          "the transfer service takes config_path = \"" + hosts + "\" for one directory and ignores the hosts.toml files there: mirrors and certificates are not used",
          "set config_path to one directory, or disable_snapshot_annotations = false, so that the CRI plugin pulls");
  p.Check(!used || !p.headrace.fused.config_path.empty(), "hosts-toml-not-shared", Severity::kWarning,
          "containerd has hosts.toml files in " + hosts + ", but [registry] config_path of headrace.toml is empty: Headrace asks the registries themselves",
          "set config_path = \"" + hosts + "\" in [registry] of " + p.options.headrace_config + " and restart headrace-fused");
}

void CheckRuntimes(Patient& p, const ContainerdSetup& c) {
  TomlPath runtimes = c.IsTwo() ? TomlPath{"plugins", "io.containerd.cri.v1.runtime"} : kCriOfVersion2;
  runtimes.insert(runtimes.end(), {"containerd", "runtimes"});
  std::string others;
  for (const std::string& name : c.merged.Keys(runtimes)) {
    TomlPath path = runtimes;
    path.insert(path.end(), {name, "snapshotter"});
    const std::string own = c.merged.Text(path).value_or("");
    if (!own.empty() && own != kPluginName) others += (others.empty() ? "" : ", ") + name + " (" + own + ")";
  }
  p.Check(others.empty(), "runtime-snapshotter", Severity::kWarning, "runtime handlers have snapshotters of their own: " + others + "; images that Headrace pulled cannot be used with them",
          "take snapshotter out of these runtimes, or never use lazy images with them");
  std::string disabled;
  for (const std::string& one : c.merged.Texts({"disabled_plugins"})) {
    if (one.ends_with("cri") || one.find("transfer") != std::string::npos) disabled = one;
  }
  p.Check(disabled.empty(), "plugin-disabled", Severity::kError, "containerd's disabled_plugins has \"" + disabled + "\": Kubernetes cannot use it", "take \"" + disabled +
            "\" out of disabled_plugins");
}

}  // namespace

void CheckContainerd(Patient& p) {
  Result<ContainerdSetup> read = ReadContainerdSetup(p.root, p.options.containerd);
  p.Check(read.ok(), "containerd-config", Severity::kError, "containerd's configuration cannot be read: " + read.status().message(), "correct that file; containerd does not start with it");
  if (!read.ok()) return;
  p.containerd = std::move(*read);
  const ContainerdSetup& c = *p.containerd;
  p.Check(c.version.has_value(), "containerd-missing", Severity::kError, "no containerd was found on this node", "install containerd 2.1 or later, or name its version with --containerd-version");
  if (!c.version) return;
  p.Check(c.version->AtLeast(2, 1), "containerd-version", c.version->AtLeast(1, 6) ? Severity::kWarning : Severity::kError,
          "containerd " + c.version->text + (c.version->AtLeast(1, 6) ? " has no image volumes; ModelCars work" : " is too old"), "use containerd 2.1 or later");
  CheckPlugin(p, c);
  CheckPulls(p, c);
  CheckRuntimes(p, c);
}

}  // namespace headrace::cli
