// What `headrace install` changed, remembered so that `headrace uninstall` puts every byte back: <root>/var/lib/headrace/install.json, written durably before the first file is
// changed. Blocks on the disk. One caller at a time.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_INSTALL_RECORD_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_INSTALL_RECORD_H_

#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/cli/node/install_plan.h"
#include "snapshotter/cli/node/node_root.h"

namespace headrace::cli {

inline constexpr char kInstallRecord[] = "/var/lib/headrace/install.json";

// Writes the record, then the files (atomically, with the mode they had). After an error the record is there, and RestoreInstall takes back what was done.
Status ApplyInstall(const NodeRoot& root, const InstallPlan& plan);

struct RestoreReport {
  std::vector<FileChange> done;    // for the diff
  std::vector<std::string> kept;   // files that somebody changed since: left as they are
};

// NotFound: nothing was installed. `only_look`: says what it would do. The record goes when all is back.
Result<RestoreReport> RestoreInstall(const NodeRoot& root, bool only_look);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_INSTALL_RECORD_H_
