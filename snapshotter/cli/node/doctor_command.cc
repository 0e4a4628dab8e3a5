// `headrace doctor`: what goes wrong on nodes in practice, each with its fix.
#include <ostream>

#include "snapshotter/cli/arguments.h"
#include "snapshotter/cli/node/doctor.h"
#include "snapshotter/cli/node/node_arguments.h"

namespace headrace::cli {
namespace {

struct DoctorArguments {
  NodeArguments node;
  std::vector<std::string> images;
  bool json = false;
  bool strict = false;
};

Result<int> Run(const DoctorArguments& arguments, const CommandIo& io) {
  const DoctorReport report =
      RunDoctor(NodeRoot(arguments.node.root), {arguments.node.config, arguments.node.containerd, arguments.images}, RealQuestions());
  io.out << (arguments.json ? DoctorJson(report) + "\n" : DoctorText(report));
  return report.errors() > 0 || (arguments.strict && report.warnings() > 0) ? kExitFailed : kExitOk;
}

}  // namespace

void AddDoctor(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<DoctorArguments>();
  CLI::App* doctor = app.add_subcommand("doctor", "Find what is wrong on this node, and how to fix it");
  doctor->add_option("IMAGE", arguments->images, "Images that must be reachable with the daemon's credentials");
  doctor->add_flag("--json", arguments->json, "Print the findings as JSON");
  doctor->add_flag("--strict", arguments->strict, "Exit code 1 for warnings, too");
  AddNode(*doctor, arguments->node);
  doctor->callback([arguments, &invocation] { invocation.run = [arguments](const CommandIo& io) { return Run(*arguments, io); }; });
}

}  // namespace headrace::cli
