// The parts of command_line.cc: one function for each command, which declares its arguments and, if the user chose it, leaves what is to
// be done in `Invocation::run`. Includes CLI11, so only the translation units of the command line include this.
#ifndef HEADRACE_SNAPSHOTTER_CLI_ARGUMENTS_H_
#define HEADRACE_SNAPSHOTTER_CLI_ARGUMENTS_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "fusefs/base/status.h"
#include "snapshotter/cli/build.h"
#include "snapshotter/cli/command_line.h"

namespace headrace::cli {

// Options that all commands share, as written.
struct CommonArguments {
  std::string docker_config;
  std::string tmp_dir;
  bool plain_http = false;
  std::string hosts_dir;
  bool quiet = false;
  bool json = false;
  unsigned jobs = 0;  // 0: as many as there are cores
};

struct Invocation {
  std::function<Result<int>(const CommandIo&)> run;
};

// Says what is wrong with the arguments; the exit code for it.
int UsageFailure(const CommandIo& io, const Status& status);

void AddCommon(CLI::App& command, CommonArguments& arguments);
CommandContext MakeContext(const CommonArguments& arguments, const CommandIo& io);

// --level and --chunk-size.
struct LayerArguments {
  std::string chunk_size = "4MiB";
  int level = 3;
};
void AddLayer(CLI::App& command, LayerArguments& arguments);
Result<LayerParameters> ParseLayer(const LayerArguments& arguments);

// "" is no platform.
Result<std::optional<Platform>> ParsePlatform(const std::string& text);

void AddBuild(CLI::App& app, Invocation& invocation);
void AddConvert(CLI::App& app, Invocation& invocation);
void AddInspect(CLI::App& app, Invocation& invocation);
void AddVerify(CLI::App& app, Invocation& invocation);
void AddInstall(CLI::App& app, Invocation& invocation);
void AddUninstall(CLI::App& app, Invocation& invocation);
void AddDoctor(CLI::App& app, Invocation& invocation);
// node_commands.cc; AddStatus: status and top
void AddStatus(CLI::App& app, Invocation& invocation);
void AddBake(CLI::App& app, Invocation& invocation);
void AddCache(CLI::App& app, Invocation& invocation);
void AddPrefetch(CLI::App& app, Invocation& invocation);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_ARGUMENTS_H_
