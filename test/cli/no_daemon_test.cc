// Goal: a command that asks a daemon which is not there says so and names the socket; what cannot be parsed is refused before anything is asked.
// A program of its own: it uses gRPC's channels, which tsan cannot follow.
#include <sstream>
#include <string>
#include <vector>

#include "snapshotter/cli/command_line.h"
#include "test/support/matchers.h"

namespace headrace::cli {
namespace {

TEST(NoDaemonTest, IsSaidSo) {
  std::ostringstream out, err;
  const std::string socket = "/nonexistent/control.sock";
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{{"status"}, {"cache", "ls"}, {"cache", "pin", "x"}, {"prefetch", "x", "-q"}, {"top", "--count", "1"}}) {
    err.str("");
    std::vector<std::string> all = arguments;
    all.insert(all.end(), {"--control-socket", socket});
    EXPECT_EQ(RunCommandLine(all, {out, err}), kExitFailed) << arguments[0];
    EXPECT_NE(err.str().find("does not answer at " + socket), std::string::npos) << err.str();
  }
  EXPECT_EQ(RunCommandLine({"cache"}, {out, err}), kExitUsage);
  EXPECT_EQ(RunCommandLine({"cache", "prune", "--older", "soon"}, {out, err}), kExitUsage);
  EXPECT_EQ(RunCommandLine({"cache", "prune", "--to", "much"}, {out, err}), kExitUsage);
}

}  // namespace
}  // namespace headrace::cli
