#include "snapshotter/cli/node/install_plan.h"

#include <algorithm>
#include <utility>

namespace headrace::cli {
namespace {

using config::SetTomlValue;
using config::TomlPath;
using config::TomlString;

constexpr char kStandardDropIns[] = "/etc/containerd/conf.d";
constexpr char kFileName[] = "headrace.toml";

TomlPath Below(TomlPath path, const std::vector<std::string>& more) {
  path.insert(path.end(), more.begin(), more.end());
  return path;
}

std::string ProxyPlugin(const ContainerdVersion& version, const InstallSettings& settings) {
  std::string out = "[proxy_plugins.headrace]\n  type = \"snapshot\"\n  address = " + TomlString(settings.socket) +
                    "\n  [proxy_plugins.headrace.exports]\n    # kubelet watches the space of this file system for image garbage collection.\n    root = " +
                    TomlString(settings.export_root) + "\n";
  if (version.AtLeast(2, 1)) out += "    # The transfer service says which image a layer is of.\n    enable_remote_snapshot_annotations = \"true\"\n";
  return out;
}

// The array replaces containerd's default, hence overlayfs is in it, too.
std::string UnpackConfig() {
  std::string out = "\n# Who unpacks what the transfer service pulls (`ctr images pull --snapshotter headrace`).\n";
  for (const char* snapshotter : {kPluginName, "overlayfs"}) {
    out += std::string("[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\n  platform = \"linux/amd64\"\n  snapshotter = \"") + snapshotter + "\"\n";
  }
  return out;
}

std::string CriSection(const ContainerdVersion& version, PullPath pull) {
  const bool two = version.major >= 2;
  std::string out = std::string("\n[plugins.") + (two ? "'io.containerd.cri.v1.images']" : "'io.containerd.grpc.v1.cri'.containerd]") + "\n  snapshotter = \"headrace\"\n";
  if (pull == PullPath::kCri || !version.AtLeast(2, 1)) {
    out += "  # Says which image a layer is of; without it every layer is downloaded whole.\n  disable_snapshot_annotations = false\n";
  }
  return out;
}

bool HoldsDropIns(const std::string& pattern) { return pattern.ends_with("/*.toml"); }

// The main file with what must stand in it.
Result<std::string> EditMain(const ContainerdSetup& setup, const InstallSettings& settings, bool edit_cri, bool add_import) {
  const std::string fresh = setup.IsTwo() ? "version = 3\n" : "version = 2\n";
  std::string text = setup.text.value_or(fresh);
  if (add_import) {
    std::string imports;
    for (const std::string& pattern : setup.main.Texts({"imports"})) imports += TomlString(pattern) + ", ";
    HR_ASSIGN_OR_RETURN(text, SetTomlValue(text, {"imports"}, "[" + imports + TomlString(std::string(kStandardDropIns) + "/*.toml") + "]"));
  }
  if (!edit_cri) return text;
  const TomlPath section = Below(kCriOfVersion2, {"containerd"});
  const bool two = setup.IsTwo();
  // 2.x: only what would win over the drop-in. 1.x: both, since a drop-in cannot add to the section.
  if (!two || setup.main.Has(Below(section, {"snapshotter"}))) {
    HR_ASSIGN_OR_RETURN(text, SetTomlValue(text, Below(section, {"snapshotter"}), TomlString(kPluginName)));
  }
  const bool annotations = settings.pull == PullPath::kCri || !setup.version->AtLeast(2, 1);
  if (annotations && (!two || setup.main.Has(Below(section, {"disable_snapshot_annotations"})))) {
    HR_ASSIGN_OR_RETURN(text, SetTomlValue(text, Below(section, {"disable_snapshot_annotations"}), "false"));
  }
  return text;
}

Status CheckSetup(const ContainerdSetup& setup) {
  if (!setup.version) return FailedPreconditionError("no containerd was found (say which one with --containerd-version, e.g. 2.1)");
  if (!setup.version->AtLeast(1, 6)) return FailedPreconditionError("containerd " + setup.version->text + " is too old: 1.6 is needed");
  const int64_t newest = setup.IsTwo() ? 4 : 2;
  if (setup.text && (setup.config_version < 2 || setup.config_version > newest)) {
    return FailedPreconditionError(setup.config_path + " is of configuration version " + std::to_string(setup.config_version ? setup.config_version : 1) +
                                   ", which is not changed here: bring it to one that containerd " + setup.version->text + " reads (`containerd config migrate`)");
  }
  if (!setup.IsTwo() && !setup.HasCriOfVersion2() && setup.merged.Has(kCriOfVersion2)) {
    return FailedPreconditionError("the section [plugins.\"io.containerd.grpc.v1.cri\"] is in a file that " + setup.config_path +
                                   " imports; containerd 1.x takes it whole from one file: move it into " + setup.config_path);
  }
  return OkStatus();
}

void AddNotes(const ContainerdSetup& setup, const InstallSettings& settings, InstallPlan* plan) {
  const bool k3s = setup.layout == ContainerdLayout::kGenerated;
  plan->notes.push_back(k3s ? "Restart k3s or rke2-agent/rke2-server: it writes containerd's configuration anew and starts containerd with it."
                            : "Restart containerd (systemctl restart containerd) and then kubelet; running containers go on.");
  plan->notes.push_back("Images that are on the node already are pulled once more: an image that another snapshotter unpacked cannot be used with this one.");
  for (const std::string& plugin : setup.merged.Texts({"disabled_plugins"})) {
    if (plugin.ends_with("cri")) plan->notes.push_back("disabled_plugins has \"" + plugin + "\": Kubernetes cannot use this containerd until it is taken out there.");
  }
  if (setup.nodeadm) {
    plan->notes.push_back("nodeadm writes " + setup.config_path + " anew at each boot: put the drop-in's text into the NodeConfig as well (spec.containerd.config).");
  }
  const std::string hosts = setup.merged.Text(setup.CriImages({"registry", "config_path"})).value_or("");
  if (setup.version->AtLeast(2, 1) && settings.pull == PullPath::kTransfer && (hosts.empty() || hosts.find(':') != std::string::npos)) {
    plan->notes.push_back("The transfer service takes config_path for one directory: with more than one in it, or by default, hosts.toml files are ignored.");
  }
}

}  // namespace

std::string DropIn(const ContainerdVersion& version, int64_t config_version, const InstallSettings& settings, bool with_cri) {
  std::string out = "# Written by `headrace install`, taken away by `headrace uninstall`. What each key is for: config/containerd/ of Headrace.\nversion = " +
                    std::to_string(config_version) + "\n\n" + ProxyPlugin(version, settings);
  if (with_cri) out += CriSection(version, settings.pull);
  if (version.AtLeast(2, 1)) out += UnpackConfig();
  return out;
}

Result<std::string> DropInPath(const ContainerdSetup& setup) {
  for (const std::string& pattern : setup.imports) {
    if (HoldsDropIns(pattern)) return DirectoryOf(pattern) + "/" + kFileName;
  }
  if (setup.layout == ContainerdLayout::kGenerated) {
    return FailedPreconditionError(setup.config_path +
                                   " is written by k3s or RKE2 and imports no directory (their releases before 2025): see config/containerd/README.md for the template to write");
  }
  return std::string(kStandardDropIns) + "/" + kFileName;
}

Result<InstallPlan> PlanInstall(const ContainerdSetup& setup, const InstallSettings& settings, const std::optional<std::string>& drop_in_before) {
  HR_RETURN_IF_ERROR(CheckSetup(setup));
  HR_ASSIGN_OR_RETURN(const std::string drop_in_path, DropInPath(setup));
  InstallPlan plan;
  const bool generated = setup.layout == ContainerdLayout::kGenerated;
  const bool imported = std::any_of(setup.imports.begin(), setup.imports.end(), HoldsDropIns);
  const bool edit_cri = !generated && setup.HasCriOfVersion2();
  std::string main = setup.text.value_or("");
  if (!generated) {
    HR_ASSIGN_OR_RETURN(main, EditMain(setup, settings, edit_cri, !imported));
  }
  // The same version as the main file: 2.x forgets what a version 2 file says of CRI when another file is of version 3.
  const int64_t config_version = setup.text ? std::min<int64_t>(setup.config_version, 3) : (setup.IsTwo() ? 3 : 2);
  const std::string drop_in = DropIn(*setup.version, config_version, settings, setup.IsTwo() || !setup.HasCriOfVersion2());
  if (!generated && main != setup.text) plan.changes.push_back({setup.config_path, setup.text, std::move(main)});
  if (drop_in != drop_in_before) plan.changes.push_back({drop_in_path, drop_in_before, drop_in});
  AddNotes(setup, settings, &plan);
  return plan;
}

}  // namespace headrace::cli
