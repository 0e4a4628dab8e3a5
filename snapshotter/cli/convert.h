// `headrace convert`: an image of any compression becomes the same image with Headrace layers. README.md of this folder has the rules.
//
// Kept to the byte: every layer's tar (checked against the DiffID in the config) and the config blob, hence the image ID.
// Blocks until the image is at its target; nothing is tagged unless everything succeeded.
#ifndef HEADRACE_SNAPSHOTTER_CLI_CONVERT_H_
#define HEADRACE_SNAPSHOTTER_CLI_CONVERT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/cli/build.h"

namespace headrace::cli {

struct ConvertOptions {
  Location source;
  Location target;
  LayerParameters layer;
  std::optional<Platform> platform;  // unset: all of an index
};

enum class LayerAction {
  kConverted,
  kKept,     // was a Headrace layer already
  kForeign,  // lies elsewhere by its own urls; only its descriptor is kept
};

struct ConvertedLayer {
  Digest source;
  uint64_t source_size = 0;
  Descriptor descriptor;
  std::optional<Digest> diff_id;  // converted ones
  uint64_t tar_size = 0;          // converted ones
  LayerAction action = LayerAction::kConverted;
};

struct ConvertedImage {
  Platform platform;
  Digest source;  // manifest
  Digest digest;
  Digest config_digest;
  std::vector<ConvertedLayer> layers;
};

struct ConvertReport {
  std::string source;
  std::string target;
  Digest source_digest;
  Digest digest;
  std::vector<ConvertedImage> images;
  size_t copied_manifests = 0;  // attestations and other artifacts of the index
  uint64_t pushed = 0;
  double seconds = 0;
};

Result<ConvertReport> Convert(const ConvertOptions& options, const CommandContext& context);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_CONVERT_H_
