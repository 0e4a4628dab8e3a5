// The command line of `headrace`: arguments in, exit code out. Results go to standard output, everything else to standard error.
// Exit codes: 0 done; 1 failed (verify: something is wrong with the image); 2 the command line is wrong; 130 interrupted.
// Called once, from main's thread; `interrupt` may be null (tests).
#ifndef HEADRACE_SNAPSHOTTER_CLI_COMMAND_LINE_H_
#define HEADRACE_SNAPSHOTTER_CLI_COMMAND_LINE_H_

#include <iosfwd>
#include <map>
#include <string>
#include <vector>

#include "snapshotter/cli/interrupt.h"

namespace headrace::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

struct CommandIo {
  std::ostream& out;
  std::ostream& err;
  Interrupt* interrupt = nullptr;
};

// Every command ("cache prune") with its own options ("--older") and arguments' names, as they are declared: for the test that compares them with README.md.
std::map<std::string, std::vector<std::string>> ListCommands();

// `arguments` without the program's name.
int RunCommandLine(const std::vector<std::string>& arguments, const CommandIo& io);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_COMMAND_LINE_H_
