// What the commands that look at a node share: its root directory, its containerd, Headrace's own configuration. Only the command line includes this.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_NODE_ARGUMENTS_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_NODE_ARGUMENTS_H_

#include <CLI/CLI.hpp>
#include <string>

#include "config/config.h"
#include "snapshotter/cli/node/containerd_setup.h"
#include "snapshotter/cli/node/node_root.h"

namespace headrace::cli {

struct NodeArguments {
  std::string root = "/";
  std::string config = "/etc/headrace/headrace.toml";
  ContainerdQuestion containerd;
};

void AddNode(CLI::App& command, NodeArguments& arguments);

// The defaults if there is no file.
Result<config::Config> LoadHeadraceConfig(const NodeRoot& root, const std::string& path);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_NODE_ARGUMENTS_H_
