// The images that a reference means: the one manifest, or the children of an index. Shared by inspect and verify.
#ifndef HEADRACE_SNAPSHOTTER_CLI_IMAGE_WALK_H_
#define HEADRACE_SNAPSHOTTER_CLI_IMAGE_WALK_H_

#include <optional>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/cli/image_store.h"

namespace headrace::cli {

inline constexpr int kIndexDepthMax = 4;  // an index may hold indexes

struct FoundManifest {
  Document document;
  DocumentKind kind = DocumentKind::kImage;  // kImage or kOther
  std::optional<Platform> platform;          // as the index says
};

struct FoundImages {
  Document root;
  std::vector<FoundManifest> manifests;
};

// All manifests below `root`, or with `platform` only the images for it. NotFound, naming those that there are, if there is none.
Result<FoundImages> FindImages(ImageReader& reader, const std::optional<Platform>& platform);
// One level: the children of an index that `platform` selects.
Result<std::vector<Descriptor>> SelectChildren(const Index& index, const std::optional<Platform>& platform);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_IMAGE_WALK_H_
