#include <ostream>

#include "snapshotter/cli/arguments.h"
#include "snapshotter/cli/inspect.h"
#include "snapshotter/cli/report.h"

namespace headrace::cli {
namespace {

struct InspectArguments {
  CommonArguments common;
  std::string image, platform;
  int64_t layer = -1;
  bool files = false;
};

Result<InspectOptions> ToOptions(const InspectArguments& a) {
  InspectOptions o;
  HR_ASSIGN_OR_RETURN(o.image, Location::Parse(a.image));
  HR_ASSIGN_OR_RETURN(o.platform, ParsePlatform(a.platform));
  if (a.layer >= 0) o.layer = static_cast<size_t>(a.layer);
  o.files = a.files;
  return o;
}

Result<int> RunInspect(const InspectArguments& arguments, const CommandIo& io) {
  const Result<InspectOptions> options = ToOptions(arguments);
  if (!options.ok()) return UsageFailure(io, options.status());
  HR_ASSIGN_OR_RETURN(const InspectReport report, Inspect(*options, MakeContext(arguments.common, io)));
  if (arguments.common.json) {
    io.out << InspectReportJson(report, arguments.files) << "\n";
  } else if (arguments.common.quiet) {
    io.out << report.digest.ToString() << "\n";
  } else {
    io.out << InspectReportText(report, arguments.files);
  }
  return kExitOk;
}

}  // namespace

void AddInspect(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* inspect = app.add_subcommand("inspect", "Show layers, files, chunks and ratios; downloads no layer");
  inspect->add_option("IMAGE", arguments->image, "The image: a reference or oci:PATH[:TAG]")->required();
  inspect->add_flag("--files", arguments->files, "List the files of lazy layers too");
  inspect->add_option("--layer", arguments->layer, "Only this layer, from 0")->type_name("N")->check(CLI::Range(0, 100000));
  inspect->add_option("--platform", arguments->platform, "Only this one of an image for several")->type_name("OS/ARCH[/VARIANT]");
  AddCommon(*inspect, arguments->common);
  inspect->callback([arguments, &invocation] {
    invocation.run = [arguments](const CommandIo& io) { return RunInspect(*arguments, io); };
  });
}

}  // namespace headrace::cli
