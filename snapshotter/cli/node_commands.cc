// The commands that speak to a running node: status, top, cache, prefetch.
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ostream>
#include <thread>
#include <utility>

#include "config/config.h"
#include "fusefs/base/text.h"
#include "snapshotter/cli/arguments.h"
#include "snapshotter/cli/node_client.h"
#include "snapshotter/cli/node_report.h"
#include "snapshotter/cli/progress.h"

namespace headrace::cli {
namespace {

namespace pb = headrace::control::v1;

struct NodeArguments {
  std::string control_socket = config::FusedConfig().control_socket;
  bool json = false;
};

void AddNode(CLI::App& command, NodeArguments& arguments, bool json = true) {
  command.add_option("--control-socket", arguments.control_socket, "Control socket of headrace-fused")->type_name("PATH")->capture_default_str();
  if (json) command.add_flag("--json", arguments.json, "Print the result as JSON");
}

// -- status

struct StatusArguments {
  NodeArguments node;
  std::string what;
  bool files = false;
};

Result<int> RunStatus(const StatusArguments& arguments, const CommandIo& io) {
  NodeClient node(arguments.node.control_socket);
  pb::StatusRequest request;
  request.set_what(arguments.what);
  request.set_files(arguments.files ? pb::StatusRequest::FILES_ALL : pb::StatusRequest::FILES_NONE);
  HR_ASSIGN_OR_RETURN(const pb::StatusResponse status, node.GetStatus(request));
  io.out << (arguments.node.json ? StatusJson(status) + "\n" : StatusText(status, arguments.files));
  return kExitOk;
}

// -- top

struct TopArguments {
  NodeArguments node;
  double delay = 2;
  unsigned count = 0;
};

Result<int> RunTop(const TopArguments& arguments, const CommandIo& io) {
  NodeClient node(arguments.node.control_socket);
  pb::StatusRequest request;
  request.set_files(pb::StatusRequest::FILES_OPEN);
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  HR_ASSIGN_OR_RETURN(pb::StatusResponse before, node.GetStatus(request));
  for (unsigned shown = 0; arguments.count == 0 || shown < arguments.count; ++shown) {
    const auto start = std::chrono::steady_clock::now();
    std::this_thread::sleep_for(std::chrono::duration<double>(arguments.delay));
    HR_ASSIGN_OR_RETURN(pb::StatusResponse now, node.GetStatus(request));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    winsize size{};
    if (terminal) ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    if (terminal) io.out << "\033[H\033[2J";
    io.out << TopText({.before = before, .now = now, .seconds = seconds, .rows = size.ws_row, .columns = size.ws_col}) << (terminal ? "" : "\n") << std::flush;
    if (!io.out) return kExitFailed;
    before = std::move(now);
  }
  return kExitOk;
}

// -- cache

struct CacheArguments {
  NodeArguments node;
  std::string what;
  bool contents = false;
  std::string older = "0s", to = "0";
  bool mounted = false, dry_run = false;
};

Result<int> RunCacheLs(const CacheArguments& arguments, const CommandIo& io) {
  NodeClient node(arguments.node.control_socket);
  pb::CacheRequest request;
  request.set_contents(arguments.contents);
  HR_ASSIGN_OR_RETURN(const pb::CacheResponse cache, node.GetCache(request));
  io.out << (arguments.node.json ? CacheJson(cache) + "\n" : CacheText(cache, cache.now()));
  return kExitOk;
}

Result<pb::PruneRequest> ToPrune(const CacheArguments& arguments) {
  const Result<std::chrono::nanoseconds> older = ParseDuration(arguments.older);
  if (!older.ok()) return older.status().Annotate("--older");
  const Result<uint64_t> keep = ParseSize(arguments.to);
  if (!keep.ok()) return keep.status().Annotate("--to");
  pb::PruneRequest request;
  request.set_min_age_seconds(std::chrono::duration_cast<std::chrono::seconds>(*older).count());
  request.set_keep_bytes(static_cast<int64_t>(*keep));
  request.set_mounted(arguments.mounted);
  request.set_dry_run(arguments.dry_run);
  return request;
}

Result<int> RunCachePrune(const CacheArguments& arguments, const CommandIo& io) {
  const Result<pb::PruneRequest> request = ToPrune(arguments);
  if (!request.ok()) return UsageFailure(io, request.status());
  NodeClient node(arguments.node.control_socket);
  HR_ASSIGN_OR_RETURN(const pb::PruneResponse pruned, node.Prune(*request));
  if (arguments.node.json) {
    io.out << "{\"contents\": " << pruned.contents() << ", \"bytes\": " << pruned.bytes() << "}\n";
  } else {
    io.out << (arguments.dry_run ? "would remove " : "removed ") << pruned.contents() << " contents, " << HumanBytes(static_cast<uint64_t>(pruned.bytes())) << "\n";
  }
  return kExitOk;
}

Result<int> RunCachePin(const CacheArguments& arguments, const CommandIo& io) {
  NodeClient node(arguments.node.control_socket);
  pb::PinRequest request;
  request.set_what(arguments.what);
  HR_ASSIGN_OR_RETURN(const pb::PinResponse pin, node.Pin(request));
  if (arguments.node.json) {
    io.out << "{\"layers\": " << pin.layers() << ", \"contents\": " << pin.contents() << ", \"size\": " << pin.size() << ", \"resident\": " << pin.resident() << "}\n";
    return kExitOk;
  }
  io.out << "pinned " << pin.name() << ": " << pin.layers() << " layers, " << pin.contents() << " contents; " << HumanBytes(static_cast<uint64_t>(pin.resident())) << " of "
         << HumanBytes(static_cast<uint64_t>(pin.size())) << " are here" << (pin.resident() < pin.size() ? " (headrace prefetch brings the rest)" : "") << "\n";
  return kExitOk;
}

Result<int> RunCacheUnpin(const CacheArguments& arguments, const CommandIo& io) {
  NodeClient node(arguments.node.control_socket);
  pb::UnpinRequest request;
  request.set_what(arguments.what);
  HR_ASSIGN_OR_RETURN(const pb::UnpinResponse unpinned, node.Unpin(request));
  if (arguments.node.json) {
    io.out << "{\"unpinned\": true}\n";
  } else {
    io.out << "unpinned " << unpinned.name() << "\n";
  }
  return kExitOk;
}

// -- prefetch

struct PrefetchArguments {
  NodeArguments node;
  std::string what;
  bool quiet = false;
};

Result<int> RunPrefetch(const PrefetchArguments& arguments, const CommandIo& io) {
  NodeClient node(arguments.node.control_socket);
  pb::PrefetchRequest request;
  request.set_what(arguments.what);
  pb::PrefetchProgress last;
  const auto start = std::chrono::steady_clock::now();
  uint64_t first = 0;
  {
    Progress progress("prefetching", arguments.quiet);
    bool any = false;
    HR_RETURN_IF_ERROR(node.Prefetch(request, [&](const pb::PrefetchProgress& now) {
      if (!any) {
        progress.AddTotal(static_cast<uint64_t>(now.total_bytes()));
        first = static_cast<uint64_t>(now.done_bytes());
      }
      any = true;
      if (now.done_bytes() > last.done_bytes()) progress.Done(static_cast<uint64_t>(now.done_bytes() - last.done_bytes()));
      last = now;
      return true;
    }));
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (arguments.node.json) {
    io.out << "{\"bytes\": " << last.done_bytes() << ", \"files\": " << last.done_files() << ", \"fetched\": " << last.done_bytes() - static_cast<int64_t>(first)
           << ", \"seconds\": " << seconds << "}\n";
  } else if (!arguments.quiet) {
    char took[32];
    std::snprintf(took, sizeof took, "%.1f s", seconds);
    io.out << arguments.what << ": all " << last.done_files() << " files are here, " << HumanBytes(static_cast<uint64_t>(last.done_bytes())) << " in " << took << "\n";
  }
  return kExitOk;
}

template <typename Arguments>
void Chosen(CLI::App& command, Invocation& invocation, const std::shared_ptr<Arguments>& arguments, Result<int> (*run)(const Arguments&, const CommandIo&)) {
  command.callback([arguments, &invocation, run] {
    invocation.run = [arguments, run](const CommandIo& io) { return run(*arguments, io); };
  });
}

}  // namespace

void AddStatus(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<StatusArguments>();
  CLI::App* status = app.add_subcommand("status", "Show what a running node has mounted, how much of it is here, and what is wrong");
  status->add_option("IMAGE", arguments->what, "Only this one: an image reference or digest, a layer's digest, or a mount's number");
  status->add_flag("--files", arguments->files, "List the files too");
  AddNode(*status, arguments->node);
  Chosen(*status, invocation, arguments, RunStatus);

  auto top_arguments = std::make_shared<TopArguments>();
  CLI::App* top = app.add_subcommand("top", "Show the files that are being read, refreshed like top(1)");
  top->add_option("--delay", top_arguments->delay, "Between two screens")->type_name("SECONDS")->check(CLI::Range(0.1, 3600.0))->capture_default_str();
  top->add_option("--count", top_arguments->count, "End after so many screens (0: never)")->type_name("N")->capture_default_str();
  AddNode(*top, top_arguments->node, false);
  Chosen(*top, invocation, top_arguments, RunTop);
}

void AddCache(CLI::App& app, Invocation& invocation) {
  CLI::App* cache = app.add_subcommand("cache", "Show and change what a running node keeps on its disk");
  cache->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, Result<int> (*run)(const CacheArguments&, const CommandIo&)) {
    auto arguments = std::make_shared<CacheArguments>();
    CLI::App* command = cache->add_subcommand(name, help);
    AddNode(*command, arguments->node);
    Chosen(*command, invocation, arguments, run);
    return std::pair(command, arguments);
  };
  const auto [ls, ls_arguments] = add("ls", "Show limits, use and pins", RunCacheLs);
  ls->add_flag("--contents", ls_arguments->contents, "List every content, least recently used first");
  const auto [prune, prune_arguments] = add("prune", "Remove contents that no mount shows, least recently used first", RunCachePrune);
  prune->add_option("--older", prune_arguments->older, "Only those that were not used for so long")->type_name("DURATION")->capture_default_str();
  prune->add_option("--to", prune_arguments->to, "Only until the cache takes no more than this")->type_name("SIZE")->capture_default_str();
  prune->add_flag("--mounted", prune_arguments->mounted, "Then idle contents of mounted images too; they come back from the registry when they are read");
  prune->add_flag("--dry-run", prune_arguments->dry_run, "Only say what would go");
  const auto [pin, pin_arguments] = add("pin", "Never evict an image or layer that is mounted; holds until it is unpinned", RunCachePin);
  pin->add_option("IMAGE", pin_arguments->what, "An image reference or digest, a layer's digest, or a mount's number")->required();
  const auto [unpin, unpin_arguments] = add("unpin", "Take a pin back", RunCacheUnpin);
  unpin->add_option("PIN", unpin_arguments->what, "As `headrace cache ls` lists it")->required();
}

void AddPrefetch(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<PrefetchArguments>();
  CLI::App* prefetch = app.add_subcommand("prefetch", "Fetch all files of a mounted image into a running node's cache");
  prefetch->add_option("IMAGE", arguments->what, "An image reference or digest, a layer's digest, or a mount's number")->required();
  prefetch->add_flag("--quiet,-q", arguments->quiet, "No progress");
  AddNode(*prefetch, arguments->node);
  Chosen(*prefetch, invocation, arguments, RunPrefetch);
}

}  // namespace headrace::cli
