#include "integration/tools/bench/layout.h"

#include "integration/tools/bench/common.h"
#include "snapshotter/cli/image_walk.h"
#include "snapshotter/cli/layout_store.h"

namespace headrace::bench {
namespace {

Result<cli::FoundImages> Find(const std::string& directory, const std::string& tag) {
  cli::LayoutLocation location;
  location.path = directory;
  location.tag = tag;
  HR_ASSIGN_OR_RETURN(auto reader, cli::OpenLayoutReader(location));
  return cli::FindImages(*reader, std::nullopt);
}

}  // namespace

LayoutImage ReadLayout(const std::string& directory, const std::string& tag) {
  Result<cli::FoundImages> found = Find(directory, tag);
  if (!found.ok() && found.status().code() == StatusCode::kNotFound && !tag.empty()) found = Find(directory, "");
  const cli::FoundImages images = Get(std::move(found));
  for (const cli::FoundManifest& image : images.manifests) {
    if (image.kind != cli::DocumentKind::kImage) continue;
    if (image.platform && !image.platform->Satisfies(cli::Platform::Host())) continue;
    LayoutImage out;
    out.manifest_digest = image.document.digest;
    out.layers = Get(cli::ParseManifest(image.document.body)).layers;
    return out;
  }
  Fail(directory + " has no image for " + cli::Platform::Host().ToString());
}

std::string BlobPath(const std::string& directory, const Digest& digest) {
  return directory + "/blobs/sha256/" + digest.Hex();
}

}  // namespace headrace::bench
