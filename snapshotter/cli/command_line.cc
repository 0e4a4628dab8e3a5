#include "snapshotter/cli/command_line.h"

#include <ostream>

#include "fusefs/base/executor.h"
#include "fusefs/base/text.h"
#include "snapshotter/cli/arguments.h"

namespace headrace::cli {
namespace {

constexpr const char* kDescription =
    "Builds, converts and checks container images that start before they are downloaded,\n"
    "and sets nodes up for them.\n"
    "\n"
    "An IMAGE or TARGET is a registry reference (registry.example.com/models/m:v1) or\n"
    "a directory in OCI layout (oci:PATH[:TAG]). status, top, cache and prefetch\n"
    "speak to a node that runs headrace-fused.\n";

constexpr const char* kFooter =
    "Examples:\n"
    "  headrace build ./llama-8b registry.example.com/models/llama-8b:v1\n"
    "  headrace convert registry.example.com/app:v1 registry.example.com/app:v1-lazy\n"
    "  headrace inspect --files oci:./layout:v1\n"
    "  headrace verify registry.example.com/models/llama-8b:v1\n"
    "  headrace install --dry-run\n"
    "  headrace doctor registry.example.com/models/llama-8b:v1\n"
    "  headrace status --files registry.example.com/models/llama-8b:v1\n"
    "  headrace cache prune --older 168h --to 200GiB\n"
    "\n"
    "Exit codes: 0 done, 1 failed (verify: the image is damaged; doctor: errors), 2 wrong command line, 130 interrupted.";

std::string_view Hint(StatusCode code) {
  switch (code) {
    case StatusCode::kUnauthenticated:
    case StatusCode::kPermissionDenied:
      return "  Credentials come from docker's configuration (docker login, or --docker-config FILE).\n";
    case StatusCode::kUnavailable:
      return "  Is the registry's name right and the registry up? One without TLS needs --plain-http.\n";
    default:
      return "";
  }
}

}  // namespace

int UsageFailure(const CommandIo& io, const Status& status) {
  io.err << "headrace: " << status.message() << "\nRun headrace with --help for how it is written.\n";
  return kExitUsage;
}

void AddCommon(CLI::App& command, CommonArguments& arguments) {
  command.add_option("--docker-config", arguments.docker_config,
                     "Credentials (default: $DOCKER_CONFIG/config.json or ~/.docker/config.json)")
      ->type_name("FILE");
  command.add_flag("--plain-http", arguments.plain_http, "Speak to the registry without TLS (localhost always may)");
  command.add_option("--hosts-dir", arguments.hosts_dir, "Mirrors and certificates: containerd's config_path, directories with hosts.toml files")
      ->type_name("DIR[:DIR]");
  command.add_option("--tmp-dir", arguments.tmp_dir,
                     "Where layers stand until they are pushed (default: the layout, or $TMPDIR, or /var/tmp)")
      ->type_name("DIR");
  command.add_option("--jobs", arguments.jobs, "Compressing and checking threads (default: all cores)")
      ->type_name("N")
      ->check(CLI::Range(1u, 1024u));
  command.add_flag("--json", arguments.json, "Print the result as JSON");
  command.add_flag("--quiet,-q", arguments.quiet, "No progress, and only the digest as result");
}

CommandContext MakeContext(const CommonArguments& arguments, const CommandIo& io) {
  CommandContext context;
  if (!arguments.docker_config.empty()) context.store.docker_config = arguments.docker_config;
  context.store.plain_http = arguments.plain_http;
  context.store.hosts_dir = arguments.hosts_dir;
  context.store.tmp_dir = arguments.tmp_dir;
  context.store.interrupt = io.interrupt;
  context.jobs = arguments.jobs != 0 ? arguments.jobs : CoreCount();
  context.quiet = arguments.quiet;
  return context;
}

void AddLayer(CLI::App& command, LayerArguments& arguments) {
  command.add_option("--level", arguments.level, "zstd compression level")->type_name("1..19")->check(CLI::Range(1, 19))->capture_default_str();
  command.add_option("--chunk-size", arguments.chunk_size, "What is fetched and checked as one piece (64KiB .. 16MiB)")
      ->type_name("SIZE")
      ->capture_default_str();
}

Result<LayerParameters> ParseLayer(const LayerArguments& arguments) {
  LayerParameters out;
  out.level = arguments.level;
  Result<uint64_t> size = ParseSize(arguments.chunk_size);
  if (!size.ok()) return size.status().Annotate("--chunk-size");
  if (*size < (64u << 10) || *size > (16u << 20)) {
    return InvalidArgumentError("--chunk-size " + arguments.chunk_size + ": must be 64KiB .. 16MiB");
  }
  out.chunk_size = *size;
  return out;
}

Result<std::optional<Platform>> ParsePlatform(const std::string& text) {
  if (text.empty()) return std::optional<Platform>();
  HR_ASSIGN_OR_RETURN(Platform platform, Platform::Parse(text));
  return std::optional<Platform>(std::move(platform));
}

namespace {

void AddAll(CLI::App& app, Invocation& invocation) {
  AddBuild(app, invocation);
  AddConvert(app, invocation);
  AddInspect(app, invocation);
  AddVerify(app, invocation);
  AddStatus(app, invocation);
  AddCache(app, invocation);
  AddPrefetch(app, invocation);
  AddBake(app, invocation);
  AddInstall(app, invocation);
  AddUninstall(app, invocation);
  AddDoctor(app, invocation);
}

void List(const CLI::App& app, const std::string& name, std::map<std::string, std::vector<std::string>>& out) {
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string full = name.empty() ? command->get_name() : name + " " + command->get_name();
    std::vector<std::string>& words = out[full];
    for (const CLI::Option* option : command->get_options()) {
      if (option->get_lnames().empty()) words.push_back(option->get_name());
      for (const std::string& word : option->get_lnames()) words.push_back("--" + word);
    }
    List(*command, full, out);
  }
}

}  // namespace

std::map<std::string, std::vector<std::string>> ListCommands() {
  CLI::App app("", "headrace");
  Invocation invocation;
  AddAll(app, invocation);
  std::map<std::string, std::vector<std::string>> commands;
  List(app, "", commands);
  return commands;
}

int RunCommandLine(const std::vector<std::string>& arguments, const CommandIo& io) {
  CLI::App app(kDescription, "headrace");
  app.set_version_flag("--version", "headrace " HEADRACE_VERSION);
  app.footer(kFooter);
  app.require_subcommand(0, 1);
  Invocation invocation;
  AddAll(app, invocation);
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants it
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& e) {
    return app.exit(e, io.out, io.err) == 0 ? kExitOk : kExitUsage;
  }
  if (!invocation.run) {
    io.out << app.help();
    return kExitOk;
  }
  const Result<int> code = invocation.run(io);
  if (code.ok()) return *code;
  io.err << "headrace: " << code.status().message() << "\n" << Hint(code.status().code());
  return kExitFailed;
}

}  // namespace headrace::cli
