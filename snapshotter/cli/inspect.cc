#include "snapshotter/cli/inspect.h"

#include "snapshotter/cli/image_walk.h"
#include "snapshotter/cli/layer_maker.h"
#include "snapshotter/cli/lazy_layer.h"

namespace headrace::cli {
namespace {

void Summarise(LazyLayer lazy, bool keep_index, InspectedLayer& out) {
  out.lazy = true;
  out.entries = lazy.index.entries.size();
  out.chunks = lazy.index.chunks.size();
  for (const format::Entry& entry : lazy.index.entries) {
    if (entry.type != format::EntryType::kRegular) continue;
    ++out.files;
    out.file_bytes += entry.size;
  }
  out.toc_bytes = lazy.location.compressed_size;
  out.toc_json_bytes = lazy.location.uncompressed_size;
  out.toc_digest = lazy.location.digest;
  if (keep_index) out.index = std::move(lazy.index);
}

// A table of contents that cannot be used is part of the result; a registry that cannot be asked is a failure.
Status InspectLayer(ImageReader& reader, bool keep_index, InspectedLayer& out) {
  if (!HasTocAnnotation(out.descriptor)) return {};
  Result<LazyLayer> lazy = ReadLazyLayer(reader, out.descriptor);
  if (lazy.ok()) {
    Summarise(std::move(*lazy), keep_index, out);
    return {};
  }
  switch (lazy.status().code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kResourceExhausted:
    case StatusCode::kDataLoss:
      out.problem = lazy.status().message();
      return {};
    default:
      return lazy.status();
  }
}

Result<InspectedImage> InspectManifest(ImageReader& reader, const FoundManifest& found, const InspectOptions& options,
                                       unsigned jobs) {
  InspectedImage image;
  image.digest = found.document.digest;
  image.media_type = found.document.media_type;
  image.is_image = found.kind == DocumentKind::kImage;
  HR_ASSIGN_OR_RETURN(const Manifest manifest, ParseManifest(found.document.body));
  image.config_digest = manifest.config.digest;
  image.platform = found.platform.value_or(Platform{});
  ImageConfig config;
  if (image.is_image) {
    HR_ASSIGN_OR_RETURN(const std::string blob, ReadBlob(reader, manifest.config, kConfigBytesMax));
    HR_ASSIGN_OR_RETURN(config, ParseConfig(blob));
    image.platform = config.platform;
  }
  if (options.layer && *options.layer >= manifest.layers.size()) {
    return NotFoundError("layer " + std::to_string(*options.layer) + ": the image has the layers 0 to " +
                         std::to_string(manifest.layers.size() - 1));
  }
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    if (options.layer && *options.layer != i) continue;
    InspectedLayer layer;
    layer.number = i;
    layer.descriptor = manifest.layers[i];
    if (i < config.diff_ids.size()) layer.diff_id = config.diff_ids[i];
    image.layers.push_back(std::move(layer));
  }
  HR_RETURN_IF_ERROR(RunJobs(image.layers.size(), jobs, [&](size_t i, const std::atomic<bool>&) {
    return InspectLayer(reader, options.files, image.layers[i]);
  }));
  return image;
}

}  // namespace

Result<InspectReport> Inspect(const InspectOptions& options, const CommandContext& context) {
  HR_ASSIGN_OR_RETURN(std::unique_ptr<ImageReader> reader, OpenReader(options.image, context.store));
  HR_ASSIGN_OR_RETURN(const FoundImages found, FindImages(*reader, options.platform));
  InspectReport report;
  report.image = reader->name();
  report.digest = found.root.digest;
  report.media_type = found.root.media_type;
  for (const FoundManifest& manifest : found.manifests) {
    Result<InspectedImage> image = InspectManifest(*reader, manifest, options, context.jobs);
    if (!image.ok()) return image.status().Annotate("manifest " + manifest.document.digest.ToString());
    report.images.push_back(std::move(*image));
  }
  return report;
}

}  // namespace headrace::cli
