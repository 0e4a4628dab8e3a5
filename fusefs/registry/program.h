// Programs that are asked for credentials: run with a time limit, bounded output and a small environment, killed with all that they started.
//
// RunProgram blocks its caller until the program has ended, `timeout` has passed, or `stop` was called; then the whole process group is killed
// (SIGKILL) and the program is waited for. The program gets `input` as its standard input and nothing of ours: no descriptors, no signal mask,
// no environment but CleanEnvironment() and `environment`. What it writes to standard error is thrown away: it may hold secrets.
// Errors never hold anything that the program wrote. NotFound / PermissionDenied: it cannot be run; DeadlineExceeded; Cancelled;
// ResourceExhausted: more output than `output_max`. An exit code that is not 0 is no error here.
// Not done: a child that has left the process group (setsid) lives on, and a program whose parent (this process) is killed with SIGKILL lives until its own end.
#ifndef HEADRACE_FUSEFS_REGISTRY_PROGRAM_H_
#define HEADRACE_FUSEFS_REGISTRY_PROGRAM_H_

#include <chrono>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/base/status.h"

namespace headrace::registry {

// Says once and for ever "stop" to many waiting threads. Any thread.
class StopSignal {
 public:
  StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
  void Stop();
  bool stopped() const;
  int fd() const { return fd_.get(); }  // readable once stopped

 private:
  UniqueFd fd_;
};

struct Program {
  std::string path;                      // absolute
  std::vector<std::string> arguments;    // without its own name; never a secret
  std::vector<std::string> environment;  // "NAME=value", beside (and before) the clean one
  std::string input;
  std::chrono::milliseconds timeout{30'000};
  size_t output_max = 1 << 20;
};

struct ProgramResult {
  int exit_code = 0;  // 128 + signal if a signal ended it
  std::string output;
};

Result<ProgramResult> RunProgram(const Program& program, const StopSignal& stop);

// PATH, HOME, proxies, certificate and session variables of this process; the rest of our environment is nobody's business.
std::vector<std::string> CleanEnvironment();

// The first executable file of that name in $PATH, or NotFound. `name` has no '/'.
Result<std::string> FindProgram(const std::string& name);

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_PROGRAM_H_
