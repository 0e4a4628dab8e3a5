#include <cstdlib>
#include <nlohmann/json.hpp>
#include <ostream>

#include "fusefs/base/text.h"
#include "snapshotter/cli/arguments.h"
#include "snapshotter/cli/report.h"

namespace headrace::cli {
namespace {

struct BuildArguments {
  CommonArguments common;
  LayerArguments layer;
  std::string dir, target, base;
  std::string path_prefix = "/models";
  std::vector<std::string> entrypoint, cmd, env, labels, annotations;
  std::string workdir, user, platform, created;
  std::string owner = "0:0";
  std::string large_file = "64MiB";
  size_t layers_max = 100;
  bool keep_mtime = false;
  bool no_fill = false;
};

// Each use of the option is one argument; a single use may also be a JSON list, as in a Dockerfile.
Result<std::vector<std::string>> ParseArgv(const std::vector<std::string>& values, std::string_view option) {
  if (values.size() != 1 || !values[0].starts_with('[')) return values;
  const nlohmann::json list = nlohmann::json::parse(values[0], nullptr, false);
  std::vector<std::string> out;
  if (list.is_array()) {
    for (const auto& item : list) {
      if (!item.is_string()) return InvalidArgumentError(std::string(option) + ": a JSON list of strings is needed");
      out.push_back(item.get<std::string>());
    }
    return out;
  }
  return values;
}

Result<std::map<std::string, std::string>> ParsePairs(const std::vector<std::string>& values, std::string_view option) {
  std::map<std::string, std::string> out;
  for (const std::string& value : values) {
    const size_t equals = value.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return InvalidArgumentError(std::string(option) + " " + value + ": write KEY=VALUE");
    }
    out[value.substr(0, equals)] = value.substr(equals + 1);
  }
  return out;
}

Result<int64_t> ParseCreated(const std::string& text) {
  if (!text.empty()) return ParseTime(text);
  const char* epoch = std::getenv("SOURCE_DATE_EPOCH");
  if (epoch == nullptr || *epoch == '\0') return int64_t{0};
  Result<int64_t> time = ParseTime(epoch);
  if (!time.ok()) return time.status().Annotate("SOURCE_DATE_EPOCH");
  return time;
}

Status ParseOwner(const std::string& text, BuildOptions& options) {
  const std::vector<std::string_view> parts = Split(text, ':');
  const Result<uint64_t> uid = ParseU64(parts[0]);
  const Result<uint64_t> gid = parts.size() == 2 ? ParseU64(parts[1]) : uid;
  if (parts.size() > 2 || !uid.ok() || !gid.ok() || *uid >= UINT32_MAX || *gid >= UINT32_MAX) {
    return InvalidArgumentError("--owner " + text + ": write UID:GID as numbers");
  }
  options.uid = static_cast<uint32_t>(*uid);
  options.gid = static_cast<uint32_t>(*gid);
  return {};
}

Result<BuildOptions> ToOptions(const BuildArguments& a) {
  BuildOptions o;
  o.dir = a.dir;
  o.base = a.base;
  HR_ASSIGN_OR_RETURN(o.target, Location::Parse(a.target));
  o.path_prefix = a.path_prefix;
  HR_ASSIGN_OR_RETURN(o.layer, ParseLayer(a.layer));
  Result<uint64_t> large_file = ParseSize(a.large_file);
  if (!large_file.ok()) return large_file.status().Annotate("--large-file");
  o.plan.large_file = std::max<uint64_t>(*large_file, 1);
  o.plan.layers_max = a.layers_max;
  o.platform = Platform::Host();
  if (!a.platform.empty()) {
    HR_ASSIGN_OR_RETURN(o.platform, Platform::Parse(a.platform));
  }
  HR_RETURN_IF_ERROR(ParseOwner(a.owner, o));
  HR_ASSIGN_OR_RETURN(o.created, ParseCreated(a.created));
  o.keep_mtime = a.keep_mtime;
  o.no_fill = a.no_fill;
  HR_ASSIGN_OR_RETURN(o.entrypoint, ParseArgv(a.entrypoint, "--entrypoint"));
  HR_ASSIGN_OR_RETURN(o.cmd, ParseArgv(a.cmd, "--cmd"));
  HR_RETURN_IF_ERROR(ParsePairs(a.env, "--env").status());
  o.env = a.env;
  o.workdir = a.workdir;
  o.user = a.user;
  HR_ASSIGN_OR_RETURN(o.labels, ParsePairs(a.labels, "--label"));
  HR_ASSIGN_OR_RETURN(o.annotations, ParsePairs(a.annotations, "--annotation"));
  return o;
}

Result<int> RunBuild(const BuildArguments& arguments, const CommandIo& io) {
  const Result<BuildOptions> options = ToOptions(arguments);
  if (!options.ok()) return UsageFailure(io, options.status());
  HR_ASSIGN_OR_RETURN(const BuildReport report, Build(*options, MakeContext(arguments.common, io)));
  for (const std::string& warning : report.warnings) io.err << "headrace: warning: " << warning << "\n";
  if (arguments.common.json) {
    io.out << BuildReportJson(report) << "\n";
  } else if (arguments.common.quiet) {
    io.out << report.digest.ToString() << "\n";
  } else {
    io.out << BuildReportText(report);
  }
  return kExitOk;
}

void AddContents(CLI::App& build, BuildArguments& a) {
  build.add_option("DIR", a.dir, "Directory whose files go into the image")->required();
  build.add_option("TARGET", a.target, "Where the image goes: a reference or oci:PATH[:TAG]")->required();
  build.add_option("--path-prefix", a.path_prefix, "Where the files of DIR stand in the image")->type_name("PATH")->capture_default_str();
  build.add_option("--base", a.base, "Directory whose tree becomes the lowest layers, as it is (programs)")->type_name("DIR");
  build.add_option("--owner", a.owner, "Owner of all files")->type_name("UID:GID")->capture_default_str();
  build.add_option("--created", a.created, "Time of the image and latest time of its files (default: $SOURCE_DATE_EPOCH or 1970)")
      ->type_name("TIME");
  build.add_flag("--keep-mtime", a.keep_mtime, "Keep the files' own times (whole seconds)");
  build.add_flag("--no-fill", a.no_fill, "Nodes fetch what is read and what comes next in the file, and never the rest of the image in the background");
  build.add_option("--large-file", a.large_file, "Files of this size or more get a layer each")->type_name("SIZE")->capture_default_str();
  build.add_option("--max-layers", a.layers_max, "Large files share layers rather than exceed this")
      ->type_name("N")->check(CLI::Range(4, 500))->capture_default_str();
}

void AddConfig(CLI::App& build, BuildArguments& a) {
  build.add_option("--entrypoint", a.entrypoint, "Program to run; repeat for its arguments, or a JSON list")->type_name("ARG")->expected(1)->take_all();
  build.add_option("--cmd", a.cmd, "Default arguments; repeat, or a JSON list")->type_name("ARG")->expected(1)->take_all();
  build.add_option("--env", a.env, "Environment variable")->type_name("KEY=VALUE")->expected(1)->take_all();
  build.add_option("--workdir", a.workdir, "Working directory")->type_name("PATH");
  build.add_option("--user", a.user, "User to run as")->type_name("USER[:GROUP]");
  build.add_option("--label", a.labels, "Label of the image config")->type_name("KEY=VALUE")->expected(1)->take_all();
  build.add_option("--annotation", a.annotations, "Annotation of the manifest")->type_name("KEY=VALUE")->expected(1)->take_all();
  build.add_option("--platform", a.platform, "Platform of the image (default: this machine's)")->type_name("OS/ARCH[/VARIANT]");
}

}  // namespace

void AddBuild(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<BuildArguments>();
  CLI::App* build = app.add_subcommand("build", "Make an image of a directory");
  AddContents(*build, *arguments);
  AddConfig(*build, *arguments);
  AddLayer(*build, arguments->layer);
  AddCommon(*build, arguments->common);
  build->callback([arguments, &invocation] {
    invocation.run = [arguments](const CommandIo& io) { return RunBuild(*arguments, io); };
  });
}

}  // namespace headrace::cli
