#include <ostream>

#include "snapshotter/cli/arguments.h"
#include "snapshotter/cli/report.h"
#include "snapshotter/cli/verify.h"

namespace headrace::cli {
namespace {

struct VerifyArguments {
  CommonArguments common;
  std::string image, platform;
};

Result<VerifyOptions> ToOptions(const VerifyArguments& a) {
  VerifyOptions o;
  HR_ASSIGN_OR_RETURN(o.image, Location::Parse(a.image));
  HR_ASSIGN_OR_RETURN(o.platform, ParsePlatform(a.platform));
  return o;
}

Result<int> RunVerify(const VerifyArguments& arguments, const CommandIo& io) {
  const Result<VerifyOptions> options = ToOptions(arguments);
  if (!options.ok()) return UsageFailure(io, options.status());
  HR_ASSIGN_OR_RETURN(const VerifyReport report, Verify(*options, MakeContext(arguments.common, io)));
  if (arguments.common.json) {
    io.out << VerifyReportJson(report) << "\n";
  } else if (!arguments.common.quiet || !report.findings.empty()) {
    io.out << VerifyReportText(report);
  }
  return report.findings.empty() ? kExitOk : kExitFailed;
}

}  // namespace

void AddVerify(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* verify = app.add_subcommand("verify", "Fetch everything and check every digest; exit code 1 if something is wrong");
  verify->add_option("IMAGE", arguments->image, "The image: a reference or oci:PATH[:TAG]")->required();
  verify->add_option("--platform", arguments->platform, "Only this one of an image for several")->type_name("OS/ARCH[/VARIANT]");
  AddCommon(*verify, arguments->common);
  verify->callback([arguments, &invocation] {
    invocation.run = [arguments](const CommandIo& io) { return RunVerify(*arguments, io); };
  });
}

}  // namespace headrace::cli
