#include "snapshotter/cli/image_walk.h"

namespace headrace::cli {
namespace {

Status Walk(ImageReader& reader, Document document, const std::optional<Platform>& told,
            const std::optional<Platform>& wanted, int depth, std::vector<FoundManifest>& out) {
  HR_ASSIGN_OR_RETURN(const DocumentKind kind, KindOf(document.body, document.media_type));
  if (kind != DocumentKind::kIndex) {
    if (out.size() >= kIndexEntriesMax) return ResourceExhaustedError("more than 1024 manifests in one image");
    out.push_back({std::move(document), kind, told});
    return {};
  }
  if (depth >= kIndexDepthMax) return ResourceExhaustedError("index within index, deeper than 4");
  HR_ASSIGN_OR_RETURN(const Index index, ParseIndex(document.body));
  HR_ASSIGN_OR_RETURN(const std::vector<Descriptor> children, SelectChildren(index, wanted));
  for (const Descriptor& child : children) {
    Result<Document> below = reader.Child(child);
    if (!below.ok()) return below.status().Annotate("manifest " + child.digest.ToString());
    HR_RETURN_IF_ERROR(Walk(reader, std::move(*below), child.platform, wanted, depth + 1, out));
  }
  return {};
}

}  // namespace

Result<std::vector<Descriptor>> SelectChildren(const Index& index, const std::optional<Platform>& platform) {
  if (!platform) return index.manifests;
  std::vector<Descriptor> out;
  std::string have;
  for (const Descriptor& child : index.manifests) {
    // A nested index without a platform may have it further down.
    const bool nested = child.media_type == kOciIndex || child.media_type == kDockerIndex;
    if (child.platform ? child.platform->Satisfies(*platform) : nested) out.push_back(child);
    if (child.platform) have += " " + child.platform->ToString();
  }
  if (out.empty()) {
    return NotFoundError("the image has nothing for the platform " + platform->ToString() + "; it has:" + have);
  }
  return out;
}

Result<FoundImages> FindImages(ImageReader& reader, const std::optional<Platform>& platform) {
  FoundImages found;
  HR_ASSIGN_OR_RETURN(found.root, reader.Root());
  HR_RETURN_IF_ERROR(Walk(reader, found.root, std::nullopt, platform, 0, found.manifests));
  return found;
}

}  // namespace headrace::cli
