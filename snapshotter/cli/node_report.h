// What the commands that speak to a running node print: the daemon's answers as text for people and as JSON for machines. Pure. The JSON keys are documented in README.md and only ever added to.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_REPORT_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_REPORT_H_

#include <cstdint>
#include <string>

#include "headrace/control.pb.h"

namespace headrace::cli {

std::string StatusText(const control::v1::StatusResponse& status, bool files);
std::string StatusJson(const control::v1::StatusResponse& status);
// `now`: seconds since 1970, for "used 3 h ago".
std::string CacheText(const control::v1::CacheResponse& cache, int64_t now);
std::string CacheJson(const control::v1::CacheResponse& cache);

// One screen of `top`: what changed between two answers, `seconds` apart. `rows`, `columns`: of the terminal; 0: no limit.
struct TopScreen {
  const control::v1::StatusResponse& before;
  const control::v1::StatusResponse& now;
  double seconds = 1;
  unsigned rows = 0;
  unsigned columns = 0;
};
std::string TopText(const TopScreen& screen);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_REPORT_H_
