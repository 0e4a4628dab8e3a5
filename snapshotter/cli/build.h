// `headrace build`: a directory becomes a from-scratch image. README.md of this folder says what is kept and in which order.
// Blocks until the image is at its target; progress goes to standard error. Nothing is tagged unless everything succeeded.
#ifndef HEADRACE_SNAPSHOTTER_CLI_BUILD_H_
#define HEADRACE_SNAPSHOTTER_CLI_BUILD_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/cli/image_model.h"
#include "snapshotter/cli/image_store.h"
#include "snapshotter/cli/layer_plan.h"

namespace headrace::cli {

// What every command needs.
struct CommandContext {
  StoreOptions store;
  unsigned jobs = 1;
  bool quiet = false;  // no progress
};

struct LayerParameters {
  uint64_t chunk_size = 4ull << 20;
  int level = 3;
};

struct BuildOptions {
  std::string dir;
  std::string base;  // "" = none
  Location target;
  std::string path_prefix = "/models";
  LayerParameters layer;
  PlanOptions plan;
  Platform platform;
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t created = 0;
  bool keep_mtime = false;
  std::vector<std::string> entrypoint, cmd, env;
  std::string workdir, user;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;
  bool no_fill = false;  // the layers say that nothing of them is to be fetched in the background
};

struct LayerReport {
  std::string title;
  Digest digest;
  Digest diff_id;
  uint64_t size = 0;
  uint64_t tar_size = 0;
  uint64_t files = 0;
  uint64_t chunks = 0;
  bool was_there = false;  // the target had the blob already
};

struct BuildReport {
  std::string target;
  Digest digest;  // of the manifest
  Digest config_digest;
  Platform platform;
  std::vector<LayerReport> layers;
  std::vector<std::string> warnings;
  uint64_t pushed = 0;
  double seconds = 0;
};

Result<BuildReport> Build(const BuildOptions& options, const CommandContext& context);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_BUILD_H_
