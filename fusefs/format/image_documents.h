// What an image is made of, as values: descriptors, manifests, indexes and the parts of a config that tell its layers
// (OCI image-spec 1.1: descriptor.md, manifest.md, image-index.md, config.md; docker's schema 2 has the same fields).
//
// Pure: text in, values out. Everything parsed here may be hostile: sizes, counts and depth are bounded, digests are well formed
// afterwards, sizes are not negative. Errors are InvalidArgument (malformed), ResourceExhausted (over a limit) or Unimplemented
// (docker's schema 1). Any thread.
#ifndef HEADRACE_FUSEFS_FORMAT_IMAGE_DOCUMENTS_H_
#define HEADRACE_FUSEFS_FORMAT_IMAGE_DOCUMENTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"

namespace headrace::format {

inline constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kOciConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kOciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd";
inline constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view kDockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";

inline constexpr uint64_t kDocumentBytesMax = 4ull << 20;  // manifests and indexes; what registries accept
inline constexpr uint64_t kConfigBytesMax = 8ull << 20;
inline constexpr size_t kLayersMax = 1024;                 // above what overlayfs can stack (500)
inline constexpr size_t kIndexEntriesMax = 1024;

struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;

  // "linux/amd64", "linux/arm64/v8".
  static Result<Platform> Parse(std::string_view text);
  static Platform Host();
  std::string ToString() const;
  // Whether an image for `*this` is what `wanted` asks for: an empty variant on either side is any.
  bool Satisfies(const Platform& wanted) const;
  bool operator==(const Platform&) const = default;
};

struct Descriptor {
  std::string media_type;
  Digest digest;
  uint64_t size = 0;
  std::map<std::string, std::string> annotations;
  std::optional<Platform> platform;
  bool has_urls = false;  // content that lives elsewhere ("foreign" layers)
};

struct Manifest {
  std::string media_type;
  Descriptor config;
  std::vector<Descriptor> layers;
  std::map<std::string, std::string> annotations;
};

struct Index {
  std::string media_type;
  std::vector<Descriptor> manifests;
};

struct ImageConfig {
  Platform platform;
  std::vector<Digest> diff_ids;
};

enum class DocumentKind { kIndex, kImage, kOther };
// What a manifest is, by its mediaType and its fields. kOther: a manifest whose config is no image config (artifacts) or whose
// layers are no file system layers; it is copied and never looked into.
Result<DocumentKind> KindOf(std::string_view body, std::string_view media_type);

Result<Manifest> ParseManifest(std::string_view body);
Result<Index> ParseIndex(std::string_view body);
Result<ImageConfig> ParseConfig(std::string_view body);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_IMAGE_DOCUMENTS_H_
