#include <ostream>

#include "snapshotter/cli/arguments.h"
#include "snapshotter/cli/convert.h"
#include "snapshotter/cli/report.h"

namespace headrace::cli {
namespace {

struct ConvertArguments {
  CommonArguments common;
  LayerArguments layer;
  std::string source, target, platform;
};

Result<ConvertOptions> ToOptions(const ConvertArguments& a) {
  ConvertOptions o;
  HR_ASSIGN_OR_RETURN(o.source, Location::Parse(a.source));
  HR_ASSIGN_OR_RETURN(o.target, Location::Parse(a.target));
  HR_ASSIGN_OR_RETURN(o.layer, ParseLayer(a.layer));
  HR_ASSIGN_OR_RETURN(o.platform, ParsePlatform(a.platform));
  return o;
}

Result<int> RunConvert(const ConvertArguments& arguments, const CommandIo& io) {
  const Result<ConvertOptions> options = ToOptions(arguments);
  if (!options.ok()) return UsageFailure(io, options.status());
  HR_ASSIGN_OR_RETURN(const ConvertReport report, Convert(*options, MakeContext(arguments.common, io)));
  if (arguments.common.json) {
    io.out << ConvertReportJson(report) << "\n";
  } else if (arguments.common.quiet) {
    io.out << report.digest.ToString() << "\n";
  } else {
    io.out << ConvertReportText(report);
  }
  return kExitOk;
}

}  // namespace

void AddConvert(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<ConvertArguments>();
  CLI::App* convert = app.add_subcommand("convert", "Make the layers of an existing image ours; its config and image ID stay");
  convert->add_option("SOURCE", arguments->source, "The image: a reference or oci:PATH[:TAG]")->required();
  convert->add_option("TARGET", arguments->target, "Where the converted image goes")->required();
  convert->add_option("--platform", arguments->platform, "Only this one of an image for several (default: all)")
      ->type_name("OS/ARCH[/VARIANT]");
  AddLayer(*convert, arguments->layer);
  AddCommon(*convert, arguments->common);
  convert->callback([arguments, &invocation] {
    invocation.run = [arguments](const CommandIo& io) { return RunConvert(*arguments, io); };
  });
}

}  // namespace headrace::cli
