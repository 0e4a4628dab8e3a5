// What `headrace install` changes on a node so that containerd uses Headrace: pure, from what was read (containerd_setup.h) to files before and after.
// Drop-ins are written rather than files edited; what must be edited all the same is edited in place (config/toml_document.h), everything else stays to the byte.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_INSTALL_PLAN_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_INSTALL_PLAN_H_

#include <optional>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/cli/node/containerd_setup.h"

namespace headrace::cli {

// Who pulls on containerd 2.1 and later. kCri: the CRI plugin itself (disable_snapshot_annotations = false makes it so; hosts.toml works as configured).
// kTransfer: the transfer service, containerd's default. 1.x and 2.0 know the first alone.
enum class PullPath { kCri, kTransfer };

struct InstallSettings {
  std::string socket;       // of the snapshotter
  std::string export_root;  // whose file system kubelet watches
  PullPath pull = PullPath::kCri;
};

struct FileChange {
  std::string path;
  std::optional<std::string> before;  // none: there is no such file
  std::optional<std::string> after;   // none: it goes
};

struct InstallPlan {
  std::vector<FileChange> changes;  // only those that change something
  std::vector<std::string> notes;   // what the administrator must know or do, a sentence each
};

inline constexpr char kPluginName[] = "headrace";

// The drop-in alone, for containerd of that version and a file of that configuration version; in 1.x with the CRI section or without it.
std::string DropIn(const ContainerdVersion& version, int64_t config_version, const InstallSettings& settings, bool with_cri);

// FailedPrecondition: this node cannot be set up by itself, and what to do instead.
Result<InstallPlan> PlanInstall(const ContainerdSetup& setup, const InstallSettings& settings, const std::optional<std::string>& drop_in_before = {});
// Where the drop-in goes.
Result<std::string> DropInPath(const ContainerdSetup& setup);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_INSTALL_PLAN_H_
