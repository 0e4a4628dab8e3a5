#include "fusefs/daemon/command_line.h"

#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "fusefs/base/text.h"

namespace headrace::daemon {
namespace {

struct Flags {
  std::string config;
  std::string root;
  std::string mountpoint;
  std::string control_socket;
  std::string keeper_socket;
  std::string docker_config;
  std::vector<std::string> plain_http;
  std::string log_level;
  std::string read_deadline;
  UnmountOnExit unmount_on_exit = UnmountOnExit::kAuto;
};

void Override(std::string& setting, const std::string& flag) {
  if (!flag.empty()) setting = flag;
}

// Where docker keeps credentials, if it does.
std::string DefaultDockerConfig() {
  std::string path;
  if (const char* dir = std::getenv("DOCKER_CONFIG"); dir != nullptr && *dir != '\0') {
    path = std::string(dir) + "/config.json";
  } else if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    path = std::string(home) + "/.docker/config.json";
  }
  struct stat st;
  return !path.empty() && ::stat(path.c_str(), &st) == 0 ? path : "";
}

Result<DaemonOptions> Merge(const Flags& flags) {
  DaemonOptions options;
  if (!flags.config.empty()) {
    HR_ASSIGN_OR_RETURN(config::Config config, config::LoadConfig(flags.config));
    options.config = config.fused;
  }
  config::FusedConfig& config = options.config;
  Override(config.root, flags.root);
  Override(config.mountpoint, flags.mountpoint);
  Override(config.control_socket, flags.control_socket);
  Override(config.keeper_socket, flags.keeper_socket);
  Override(config.docker_config, flags.docker_config);
  Override(config.log_level, flags.log_level);
  config.plain_http.insert(config.plain_http.end(), flags.plain_http.begin(), flags.plain_http.end());
  if (!flags.read_deadline.empty()) {
    auto deadline = ParseDuration(flags.read_deadline);
    if (!deadline.ok()) return deadline.status().Annotate("--read-deadline");
    config.read_deadline = *deadline;
  }
  if (config.docker_config.empty()) config.docker_config = DefaultDockerConfig();
  for (const std::string* path : {&config.root, &config.mountpoint, &config.control_socket}) {
    if (path->empty() || (*path)[0] != '/') return InvalidArgumentError("\"" + *path + "\" is not an absolute path");
  }
  while (config.mountpoint.size() > 1 && config.mountpoint.back() == '/') config.mountpoint.pop_back();
  options.unmount_on_exit = flags.unmount_on_exit;
  return options;
}

}  // namespace

Result<CommandLine> ParseCommandLine(int argc, const char* const* argv) {
  Flags flags;
  CLI::App app{"headrace-fused: the FUSE file system of Headrace and its control API"};
  app.set_version_flag("--version", std::string("headrace-fused ") + HEADRACE_VERSION);
  app.add_option("--config", flags.config, "headrace.toml; flags override it");
  app.add_option("--root", flags.root, "directory of the layer state and of the chunk cache");
  app.add_option("--mountpoint", flags.mountpoint, "where the file system is mounted");
  app.add_option("--control-socket", flags.control_socket, "unix socket of the control API");
  app.add_option("--docker-config", flags.docker_config, "docker's config.json with credentials");
  app.add_option("--plain-http", flags.plain_http, "registry (host[:port]) to be spoken to without TLS; may be repeated");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warn, error or off");
  app.add_option("--read-deadline", flags.read_deadline, "how long a read waits for a failing registry before EIO (5m)");
  const std::map<std::string, UnmountOnExit> when{{"auto", UnmountOnExit::kAuto}, {"true", UnmountOnExit::kYes}, {"false", UnmountOnExit::kNo}};
  app.add_option("--unmount-on-exit", flags.unmount_on_exit, "true, false, or auto: the mount stays for a successor if it is used and the session is kept")
      ->transform(CLI::CheckedTransformer(when).description(""));
  app.add_option("--keeper-socket", flags.keeper_socket, "unix socket of the snapshotter that keeps the session (beside the control socket)");
  CommandLine out;
  app.add_flag("--unmount", out.unmount, "take away the mount that a dead process left, and what is kept of its session, then end");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    out.exit_code = app.exit(e);
    return out;
  }
  HR_ASSIGN_OR_RETURN(out.options, Merge(flags));
  return out;
}

}  // namespace headrace::daemon
