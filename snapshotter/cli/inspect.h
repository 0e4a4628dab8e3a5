// `headrace inspect`: what an image is made of, read from its manifests and tables of contents; no layer is downloaded.
#ifndef HEADRACE_SNAPSHOTTER_CLI_INSPECT_H_
#define HEADRACE_SNAPSHOTTER_CLI_INSPECT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"
#include "snapshotter/cli/build.h"

namespace headrace::cli {

struct InspectOptions {
  Location image;
  std::optional<Platform> platform;
  std::optional<size_t> layer;  // only this one
  bool files = false;
};

struct InspectedLayer {
  size_t number = 0;
  Descriptor descriptor;
  std::optional<Digest> diff_id;
  bool lazy = false;
  std::string problem;     // why a layer with our annotation is not lazy after all
  uint64_t file_bytes = 0; // decoded bytes of its files
  uint64_t files = 0;      // regular ones
  uint64_t entries = 0;
  uint64_t chunks = 0;
  uint64_t toc_bytes = 0;  // compressed table of contents
  uint64_t toc_json_bytes = 0;
  Digest toc_digest;
  format::LayerIndex index;  // with options.files
};

struct InspectedImage {
  Digest digest;
  std::string media_type;
  Platform platform;
  Digest config_digest;
  bool is_image = true;  // false: an artifact, of which only the blobs are listed
  std::vector<InspectedLayer> layers;
};

struct InspectReport {
  std::string image;
  Digest digest;
  std::string media_type;
  std::vector<InspectedImage> images;
};

Result<InspectReport> Inspect(const InspectOptions& options, const CommandContext& context);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_INSPECT_H_
