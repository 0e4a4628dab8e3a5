#include "snapshotter/cli/lazy_layer.h"

namespace headrace::cli {

bool HasTocAnnotation(const Descriptor& layer) { return layer.annotations.contains(std::string(format::kTocLabel)); }

Result<LazyLayer> ReadLazyLayer(ImageReader& reader, const Descriptor& layer) {
  const std::string where = "layer " + layer.digest.ToString();
  auto it = layer.annotations.find(std::string(format::kTocLabel));
  if (it == layer.annotations.end()) return NotFoundError(where + " has no annotation " + std::string(format::kTocLabel));
  LazyLayer lazy;
  Result<format::TocLocation> location = format::TocLocation::Parse(it->second);
  if (!location.ok()) return location.status().Annotate(where);
  lazy.location = *location;  // inside its blob_size and below the limits, or Parse had refused it
  if (lazy.location.blob_size != layer.size) {
    return DataLossError(where + ": its annotation is of a blob of " + std::to_string(lazy.location.blob_size) +
                         " bytes, it has " + std::to_string(layer.size));
  }
  Result<std::string> bytes = reader.BlobRange(layer, lazy.location.offset, lazy.location.compressed_size);
  if (!bytes.ok()) return bytes.status().Annotate(where + ": table of contents");
  Result<format::LayerIndex> index =
      format::ReadToc({reinterpret_cast<const uint8_t*>(bytes->data()), bytes->size()}, lazy.location);
  if (!index.ok()) return index.status().Annotate(where + ": table of contents");
  lazy.index = std::move(*index);
  return lazy;
}

}  // namespace headrace::cli
