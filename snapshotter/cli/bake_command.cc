// headrace bake: fills the root directory of a node that does not run yet.
#include <ostream>

#include "config/config.h"
#include "fusefs/base/text.h"
#include "fusefs/daemon/bake.h"
#include "snapshotter/cli/arguments.h"
#include "snapshotter/cli/image_store.h"
#include "snapshotter/cli/image_walk.h"
#include "snapshotter/cli/progress.h"
#include "snapshotter/cli/registry_store.h"

namespace headrace::cli {
namespace {

struct BakeArguments {
  CommonArguments common;
  std::vector<std::string> images;
  std::string root = config::FusedConfig().root;
  std::string platform = "linux/amd64";
};

struct ToBake {
  std::string image_ref;
  Digest manifest;
};

// The one image that a node of the platform would run.
Result<ToBake> Resolve(const std::string& image, const BakeArguments& arguments, const CommandContext& context) {
  HR_ASSIGN_OR_RETURN(const Location location, Location::Parse(image));
  HR_ASSIGN_OR_RETURN(const std::unique_ptr<ImageReader> reader, OpenReader(location, context.store));
  if (reader->reference() == nullptr) return InvalidArgumentError(image + ": an image in a registry is needed, nodes fetch nothing from a layout");
  HR_ASSIGN_OR_RETURN(const std::optional<Platform> platform, ParsePlatform(arguments.platform));
  HR_ASSIGN_OR_RETURN(const FoundImages found, FindImages(*reader, platform));
  for (const FoundManifest& manifest : found.manifests) {
    if (manifest.kind == DocumentKind::kImage) return ToBake{reader->reference()->ToString(), manifest.document.digest};
  }
  return NotFoundError(image + ": no image for " + arguments.platform);
}

Result<int> RunBake(const BakeArguments& arguments, const CommandIo& io) {
  const CommandContext context = MakeContext(arguments.common, io);
  std::vector<ToBake> images;
  daemon::BakeOptions options;
  options.root = arguments.root;
  options.threads = context.jobs;
  for (const std::string& image : arguments.images) {
    HR_ASSIGN_OR_RETURN(images.emplace_back(), Resolve(image, arguments, context));
    HR_ASSIGN_OR_RETURN(const registry::Reference reference, registry::Reference::Parse(images.back().image_ref));
    if (arguments.common.plain_http) options.client.plain_http_hosts.push_back(reference.host);
  }
  HR_ASSIGN_OR_RETURN(options.client.docker_config_path, DockerConfigPath(context.store));
  options.client.hosts_dir = context.store.hosts_dir;
  options.client.max_connections_per_host = 64;
  HR_ASSIGN_OR_RETURN(const std::unique_ptr<daemon::Baker> baker, daemon::Baker::Create(options));
  for (const ToBake& image : images) {
    daemon::PrefetchState last;
    Result<daemon::Baked> baked = InternalError("");
    {
      Progress progress("baking", arguments.common.quiet);
      baked = baker->Bake(image.image_ref, image.manifest, [&](const daemon::PrefetchState& state) {
        if (last.total_bytes == 0) progress.AddTotal(state.total_bytes);
        if (state.done_bytes > last.done_bytes) progress.Done(state.done_bytes - last.done_bytes);
        last = state;
        return true;
      });
    }
    if (!baked.ok()) return baked.status().Annotate("bake " + image.image_ref);
    if (arguments.common.json) {
      io.out << "{\"image\": \"" << image.image_ref << "\", \"manifest\": \"" << image.manifest.ToString() << "\", \"layers\": " << baked->layers << ", \"files\": " << baked->files
             << ", \"bytes\": " << baked->bytes << ", \"contents\": " << baked->contents << "}\n";
    } else if (arguments.common.quiet) {
      io.out << image.manifest.ToString() << "\n";
    } else {
      io.out << "baked " << image.image_ref << " (" << image.manifest.ToString() << ") into " << arguments.root << ": " << baked->layers << " layers, " << baked->files << " files, "
             << HumanBytes(baked->bytes) << ", verified and pinned\n";
    }
  }
  return kExitOk;
}

}  // namespace

void AddBake(CLI::App& app, Invocation& invocation) {
  auto arguments = std::make_shared<BakeArguments>();
  CLI::App* bake = app.add_subcommand("bake", "Fill the root directory of a node that does not run yet, so that it serves the images without a network");
  bake->add_option("IMAGE", arguments->images, "Image references")->required();
  bake->add_option("--root", arguments->root, "Root directory of headrace-fused (fused.root)")->type_name("DIR")->capture_default_str();
  bake->add_option("--platform", arguments->platform, "Of an image for several: the one of the nodes")->type_name("OS/ARCH[/VARIANT]")->capture_default_str();
  AddCommon(*bake, arguments->common);
  bake->callback([arguments, &invocation] {
    invocation.run = [arguments](const CommandIo& io) { return RunBake(*arguments, io); };
  });
}

}  // namespace headrace::cli
