// Writing and changing the documents of an image (OCI image-spec 1.1); reading them is fusefs/format/image_documents.h.
//
// Pure: text in, text out. What is changed here may be hostile and is bounded as there; errors are the same. Any thread.
#ifndef HEADRACE_SNAPSHOTTER_CLI_IMAGE_MODEL_H_
#define HEADRACE_SNAPSHOTTER_CLI_IMAGE_MODEL_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/format/image_documents.h"

namespace headrace::cli {

// Reading is fusefs/format/image_documents.h.
using format::Descriptor;
using format::DocumentKind;
using format::ImageConfig;
using format::Index;
using format::KindOf;
using format::Manifest;
using format::ParseConfig;
using format::ParseIndex;
using format::ParseManifest;
using format::Platform;
using format::kConfigBytesMax;
using format::kDockerConfig;
using format::kDockerIndex;
using format::kDockerManifest;
using format::kDocumentBytesMax;
using format::kIndexEntriesMax;
using format::kLayersMax;
using format::kOciConfig;
using format::kOciIndex;
using format::kOciLayerZstd;
using format::kOciManifest;

// For build.
struct ConfigSpec {
  Platform platform;
  std::string created;  // RFC 3339
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::vector<std::string> env;
  std::string workdir;
  std::string user;
  std::map<std::string, std::string> labels;
  std::vector<Digest> diff_ids;
  std::vector<std::string> history;  // created_by, one for each layer
};
std::string PrintConfig(const ConfigSpec& spec);
std::string PrintManifest(const Manifest& manifest);

// For convert: the same document with other layers or children. All other fields stay as they are, except that docker's media types
// become OCI's (docker has none for zstd).
Result<std::string> ReplaceLayers(std::string_view body, const std::vector<Descriptor>& layers);
Result<std::string> ReplaceChildren(std::string_view body, const std::vector<Descriptor>& manifests);

// For layouts: index.json with `entry` under the annotation org.opencontainers.image.ref.name = `tag`, which no other entry keeps.
// `body` is the index.json that is there, or empty.
Result<std::string> PutLayoutEntry(std::string_view body, const Descriptor& entry, const std::string& tag);

inline constexpr std::string_view kRefNameAnnotation = "org.opencontainers.image.ref.name";

// "2024-05-01T12:00:00Z".
std::string FormatTime(int64_t seconds);
// RFC 3339 in UTC ("...Z"), or seconds since 1970.
Result<int64_t> ParseTime(std::string_view text);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_IMAGE_MODEL_H_
