// The command line of headrace-fused: flags override the configuration file, which overrides the defaults (config/params.h).
// Pure but for reading the configuration file. One thread.
#ifndef HEADRACE_FUSEFS_DAEMON_COMMAND_LINE_H_
#define HEADRACE_FUSEFS_DAEMON_COMMAND_LINE_H_

#include <optional>

#include "fusefs/base/status.h"
#include "fusefs/daemon/daemon.h"

namespace headrace::daemon {

struct CommandLine {
  DaemonOptions options;
  bool unmount = false;          // --unmount
  std::optional<int> exit_code;  // --help, --version or a mistake: all is said, exit with this
};

Result<CommandLine> ParseCommandLine(int argc, const char* const* argv);

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_COMMAND_LINE_H_
