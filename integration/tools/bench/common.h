// What the tools of the benchmark share: failing, clocks, sizes on the command line, the frame of a main function.
// Failures are exceptions up to RunTool, which says them once and ends with 1; a wrong command line ends with 2.
// Any thread.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_COMMON_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_COMMON_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fusefs/base/status.h"

namespace headrace::bench {

using Json = nlohmann::ordered_json;

inline constexpr uint64_t kKib = uint64_t{1} << 10;
inline constexpr uint64_t kMib = uint64_t{1} << 20;
inline constexpr uint64_t kGib = uint64_t{1} << 30;

[[noreturn]] void Fail(const std::string& what);
[[noreturn]] void FailErrno(const std::string& what);  // with the text of errno

inline void CheckOk(const Status& status) {
  if (!status.ok()) Fail(status.ToString());
}

template <typename T>
T Get(Result<T> result) {
  CheckOk(result.status());
  return std::move(result).value();
}

// Monotonic seconds.
double Now();
// User and system seconds of this process; with its children that were waited for.
double OwnCpu();
double ChildrenCpu();

// An option that takes bytes: "4096", "16MiB", "1GB".
CLI::Option* AddBytes(CLI::App& app, const std::string& name, uint64_t& value, const std::string& help);
CLI::Option* AddBytesList(CLI::App& app, const std::string& name, std::vector<uint64_t>& values, const std::string& help);

// Parses the command line and runs `body`; answers the exit code. `body` throws when it fails.
int RunTool(CLI::App& app, int argc, char** argv, const std::function<int()>& body);

// One line on stdout, at once: those who wait for it read from a pipe.
void PrintLine(const Json& json);

// Runs `work(number)` on `threads` threads, waits for all and throws the first failure.
void Parallel(unsigned threads, const std::function<void(unsigned)>& work);

// Blocks SIGTERM and SIGINT; to be called before any thread is made. WaitForStop returns when one of them came.
void BlockStopSignals();
void WaitForStop();

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_COMMON_H_
