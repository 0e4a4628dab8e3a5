#include "snapshotter/cli/node/node_arguments.h"

namespace headrace::cli {

void AddNode(CLI::App& command, NodeArguments& arguments) {
  command.add_option("--root", arguments.root, "The node's root directory, for images that are being built")->type_name("DIR")->capture_default_str();
  command.add_option("--config", arguments.config, "Headrace's configuration")->type_name("FILE")->capture_default_str();
  command.add_option("--containerd-config", arguments.containerd.config_path, "containerd's configuration (default: found, also that of k3s and RKE2)")->type_name("FILE");
  command.add_option("--containerd-version", arguments.containerd.version, "containerd's version (default: the program is asked)")->type_name("X.Y");
}

Result<config::Config> LoadHeadraceConfig(const NodeRoot& root, const std::string& path) {
  HR_ASSIGN_OR_RETURN(const std::optional<std::string> text, root.Read(path));
  return text ? config::ParseConfig(*text, path) : config::Config();
}

}  // namespace headrace::cli
