// `headrace install` and `headrace uninstall`: the node's containerd uses Headrace, and no longer.
#include <algorithm>
#include <map>
#include <ostream>

#include "config/config.h"
#include "snapshotter/cli/arguments.h"
#include "snapshotter/cli/node/install_plan.h"
#include "snapshotter/cli/node/install_record.h"
#include "snapshotter/cli/node/mount_users.h"
#include "snapshotter/cli/node/node_arguments.h"
#include "snapshotter/cli/node/text_diff.h"

namespace headrace::cli {
namespace {

constexpr size_t kUsersShown = 5;

struct InstallArguments {
  NodeArguments node;
  std::string pull = "cri";
  bool dry_run = false;
};

struct UninstallArguments {
  NodeArguments node;
  bool dry_run = false;
  bool check = false;
  bool force = false;
};

void ShowChanges(const std::vector<FileChange>& changes, std::ostream& out) {
  for (const FileChange& change : changes) {
    out << TextDiff(change.before ? change.path : "/dev/null", change.before.value_or(""), change.after ? change.path : "/dev/null", change.after.value_or(""));
  }
}

// The earlier installation as it would be taken back; nothing if there is none.
Result<std::vector<FileChange>> EarlierTakenBack(const NodeRoot& root) {
  if (!root.Exists(kInstallRecord)) return std::vector<FileChange>();
  HR_ASSIGN_OR_RETURN(RestoreReport report, RestoreInstall(root, /*only_look=*/true));
  if (report.kept.empty()) return std::move(report.done);
  return FailedPreconditionError(report.kept.front() + " was changed since the last installation: bring it back to what it was before, then remove " + kInstallRecord);
}

// For the node as it was before an earlier installation.
Result<InstallPlan> PlanFor(const NodeRoot& root, const InstallArguments& arguments, const config::Config& headrace, const ContainerdSetup& setup) {
  InstallSettings settings{headrace.snapshotter.socket, DirectoryOf(headrace.snapshotter.root), arguments.pull == "cri" ? PullPath::kCri : PullPath::kTransfer};
  std::optional<std::string> drop_in_before;
  if (Result<std::string> path = DropInPath(setup); path.ok()) {
    HR_ASSIGN_OR_RETURN(drop_in_before, root.Read(*path));
  }
  return PlanInstall(setup, settings, drop_in_before);
}

// What is different afterwards from what is there now.
std::vector<FileChange> Together(const std::vector<FileChange>& taken_back, const std::vector<FileChange>& planned) {
  std::vector<FileChange> together = planned;
  for (const FileChange& back : taken_back) {
    const auto same = std::find_if(together.begin(), together.end(), [&](const FileChange& change) { return change.path == back.path; });
    if (same == together.end()) {
      together.push_back(back);
    } else {
      same->before = back.before;
    }
  }
  std::erase_if(together, [](const FileChange& change) { return change.before == change.after; });
  return together;
}

Result<int> RunInstall(const InstallArguments& arguments, const CommandIo& io) {
  const NodeRoot root(arguments.node.root);
  HR_ASSIGN_OR_RETURN(const config::Config headrace, LoadHeadraceConfig(root, arguments.node.config));
  HR_ASSIGN_OR_RETURN(const std::vector<FileChange> taken_back, EarlierTakenBack(root));
  std::map<std::string, std::optional<std::string>> originals;
  for (const FileChange& change : taken_back) originals[change.path] = change.after;
  const NodeRoot before = root.With(std::move(originals));
  HR_ASSIGN_OR_RETURN(const ContainerdSetup setup, ReadContainerdSetup(before, arguments.node.containerd));
  HR_ASSIGN_OR_RETURN(const InstallPlan plan, PlanFor(before, arguments, headrace, setup));
  const std::vector<FileChange> changes = Together(taken_back, plan.changes);
  if (changes.empty()) {
    io.err << "headrace: containerd " << setup.version->text << " is set up already: nothing to change\n";
    return kExitOk;
  }
  ShowChanges(changes, io.out);
  if (arguments.dry_run) return kExitOk;
  if (root.Exists(kInstallRecord)) HR_RETURN_IF_ERROR(RestoreInstall(root, /*only_look=*/false).status());
  HR_RETURN_IF_ERROR(ApplyInstall(root, plan));
  io.err << "headrace: containerd " << setup.version->text << " is set up: " << changes.size() << " files changed. `headrace uninstall` takes it back.\n";
  for (const std::string& note : plan.notes) io.err << "  * " << note << "\n";
  return kExitOk;
}

// What stands in the way of taking Headrace off the node.
Result<std::vector<std::string>> UsersOf(const NodeRoot& root, const config::Config& headrace) {
  std::vector<std::string> users;
  for (const std::string& target : FindMountUsers(root.Line("/proc/self/mountinfo"), {headrace.fused.mountpoint, headrace.snapshotter.root})) {
    users.push_back("a pod uses it: " + target);
  }
  return users;
}

void ShowUsers(const std::vector<std::string>& users, std::ostream& err) {
  for (size_t i = 0; i < std::min(users.size(), kUsersShown); ++i) err << "headrace: " << users[i] << "\n";
  if (users.size() > kUsersShown) err << "headrace: and " << users.size() - kUsersShown << " more\n";
}

Result<int> RunUninstall(const UninstallArguments& arguments, const CommandIo& io) {
  const NodeRoot root(arguments.node.root);
  HR_ASSIGN_OR_RETURN(const config::Config headrace, LoadHeadraceConfig(root, arguments.node.config));
  HR_ASSIGN_OR_RETURN(std::vector<std::string> users, UsersOf(root, headrace));
  if (arguments.check) {
    if (root.Exists(kInstallRecord)) users.insert(users.begin(), "containerd is configured to use it: headrace uninstall");
    ShowUsers(users, io.err);
    return users.empty() ? kExitOk : kExitFailed;
  }
  if (!users.empty() && !arguments.force && !arguments.dry_run) {
    ShowUsers(users, io.err);
    return FailedPreconditionError("pods use Headrace: drain the node first (--force changes the configuration all the same; containerd cannot handle these pods then)");
  }
  HR_ASSIGN_OR_RETURN(const RestoreReport report, RestoreInstall(root, arguments.dry_run));
  ShowChanges(report.done, io.out);
  for (const std::string& path : report.kept) {
    io.err << "headrace: " << path << " was changed since `headrace install`: take out by hand what it added, then remove " << kInstallRecord << "\n";
  }
  if (!report.kept.empty()) return kExitFailed;
  if (!arguments.dry_run) io.err << "headrace: containerd's configuration is what it was. Restart containerd.\n";
  return kExitOk;
}

}  // namespace

void AddInstall(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<InstallArguments>();
  CLI::App* install = app.add_subcommand("install", "Make the node's containerd use Headrace; prints what it changes");
  install->add_flag("--dry-run", arguments->dry_run, "Only print what would be changed");
  install->add_option("--pull", arguments->pull, "Who pulls on containerd 2.1 and later: the CRI plugin (hosts.toml as configured) or the transfer service")
      ->type_name("cri|transfer")
      ->check(CLI::IsMember({"cri", "transfer"}))
      ->capture_default_str();
  AddNode(*install, arguments->node);
  install->callback([arguments, &invocation] { invocation.run = [arguments](const CommandIo& io) { return RunInstall(*arguments, io); }; });
}

void AddUninstall(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<UninstallArguments>();
  CLI::App* uninstall = app.add_subcommand("uninstall", "Put containerd's configuration back, byte for byte");
  uninstall->add_flag("--dry-run", arguments->dry_run, "Only print what would be changed");
  uninstall->add_flag("--check", arguments->check, "Only say who uses Headrace; exit code 0 if nobody does");
  uninstall->add_flag("--force", arguments->force, "Although pods use it");
  AddNode(*uninstall, arguments->node);
  uninstall->callback([arguments, &invocation] { invocation.run = [arguments](const CommandIo& io) { return RunUninstall(*arguments, io); }; });
}

}  // namespace headrace::cli
