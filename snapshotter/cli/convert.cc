#include "snapshotter/cli/convert.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "fusefs/format/decompress.h"
#include "snapshotter/cli/image_walk.h"
#include "snapshotter/cli/layer_maker.h"
#include "snapshotter/cli/lazy_layer.h"
#include "snapshotter/cli/progress.h"

namespace headrace::cli {
namespace {

// buildkit's attestations name the image that they are about in this annotation of the index.
constexpr const char* kReferenceDigest = "vnd.docker.reference.digest";

// Annotations that describe the bytes of a blob and mean nothing for another one.
bool DescribesBlob(std::string_view key) {
  for (std::string_view prefix : {"io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.",
                                  "io.containers.estargz.", "containerd.io/snapshot/"}) {
    if (key.starts_with(prefix)) return true;
  }
  return false;
}

Document MakeDocument(std::string body, std::string_view media_type) {
  Document document{std::move(body), std::string(media_type), {}};
  document.digest = Digest::Of(document.body);
  return document;
}

class Converter {
 public:
  Converter(const ConvertOptions& options, const CommandContext& context)
      : options_(options), context_(context), progress_("converting", context.quiet) {}

  Result<ConvertReport> Run() {
    const auto start = std::chrono::steady_clock::now();
    HR_ASSIGN_OR_RETURN(reader_, OpenReader(options_.source, context_.store));
    HR_ASSIGN_OR_RETURN(Document root, reader_->Root());
    HR_ASSIGN_OR_RETURN(writer_, OpenWriter(options_.target, context_.store));
    report_.source = reader_->name();
    report_.target = writer_->name();
    report_.source_digest = root.digest;
    HR_ASSIGN_OR_RETURN(const Document converted, ConvertDocument(root, 0));
    HR_RETURN_IF_ERROR(writer_->PutRoot(converted));
    report_.digest = converted.digest;
    report_.pushed = progress_.sent();
    report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(report_);
  }

 private:
  // What is below the document is at the target afterwards, the document itself is not.
  Result<Document> ConvertDocument(const Document& document, int depth) {
    Result<DocumentKind> kind = KindOf(document.body, document.media_type);
    Result<Document> out = Document{};
    if (!kind.ok()) {
      out = kind.status();
    } else if (*kind == DocumentKind::kIndex) {
      out = ConvertIndex(document, depth);
    } else if (*kind == DocumentKind::kImage) {
      out = ConvertImage(document);
    } else {
      out = CopyArtifact(document);
    }
    if (!out.ok()) return out.status().Annotate("manifest " + document.digest.ToString());
    return out;
  }

  Result<Document> ConvertIndex(const Document& document, int depth) {
    if (depth >= kIndexDepthMax) return ResourceExhaustedError("index within index, deeper than 4");
    HR_ASSIGN_OR_RETURN(Index index, ParseIndex(document.body));
    if (options_.platform) return ConvertOne(index, depth);
    std::map<std::string, std::string> renamed;
    std::vector<Descriptor> children = index.manifests;
    for (Descriptor& child : children) {
      HR_ASSIGN_OR_RETURN(const Document below, reader_->Child(child));
      HR_ASSIGN_OR_RETURN(const Document converted, ConvertDocument(below, depth + 1));
      HR_RETURN_IF_ERROR(writer_->PutChild(converted));
      renamed[child.digest.ToString()] = converted.digest.ToString();
      child.digest = converted.digest;
      child.size = converted.body.size();
      child.media_type = converted.media_type;
    }
    for (Descriptor& child : children) {
      auto about = child.annotations.find(kReferenceDigest);
      if (about == child.annotations.end()) continue;
      if (auto to = renamed.find(about->second); to != renamed.end()) about->second = to->second;
    }
    const bool same = std::all_of(renamed.begin(), renamed.end(), [](const auto& r) { return r.first == r.second; });
    if (same && document.media_type == kOciIndex) return document;
    HR_ASSIGN_OR_RETURN(std::string body, ReplaceChildren(document.body, children));
    return MakeDocument(std::move(body), kOciIndex);
  }

  // --platform: the one image takes the place of the index.
  Result<Document> ConvertOne(const Index& index, int depth) {
    HR_ASSIGN_OR_RETURN(const std::vector<Descriptor> chosen, SelectChildren(index, options_.platform));
    HR_ASSIGN_OR_RETURN(const Document below, reader_->Child(chosen.front()));
    return ConvertDocument(below, depth + 1);
  }

  // Attestations, signatures, models that are no container images: everything as it is.
  Result<Document> CopyArtifact(const Document& document) {
    HR_ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(document.body));
    manifest.layers.push_back(manifest.config);
    for (const Descriptor& blob : manifest.layers) HR_RETURN_IF_ERROR(CopyBlob(blob));
    ++report_.copied_manifests;
    return document;
  }

  Result<Document> ConvertImage(const Document& document) {
    HR_ASSIGN_OR_RETURN(const Manifest manifest, ParseManifest(document.body));
    HR_ASSIGN_OR_RETURN(const std::string config_blob, ReadBlob(*reader_, manifest.config, kConfigBytesMax));
    HR_ASSIGN_OR_RETURN(const ImageConfig config, ParseConfig(config_blob));
    if (config.diff_ids.size() != manifest.layers.size()) {
      return InvalidArgumentError("the manifest has " + std::to_string(manifest.layers.size()) + " layers, the config " +
                                  std::to_string(config.diff_ids.size()) + " diff_ids");
    }
    HR_RETURN_IF_ERROR(ConvertLayers(manifest, config));
    HR_RETURN_IF_ERROR(writer_->PutBlob(manifest.config.digest, config_blob));

    ConvertedImage image{config.platform, document.digest, {}, manifest.config.digest, {}};
    std::vector<Descriptor> layers;
    bool same = document.media_type == kOciManifest && manifest.config.media_type == kOciConfig;
    for (size_t i = 0; i < manifest.layers.size(); ++i) {
      const ConvertedLayer& layer = done_.at(manifest.layers[i].digest);
      HR_RETURN_IF_ERROR(CheckDiffId(layer, config.diff_ids[i]));
      layers.push_back(manifest.layers[i]);
      if (layer.action == LayerAction::kConverted) {
        same = false;
        std::erase_if(layers[i].annotations, [](const auto& a) { return DescribesBlob(a.first); });
        layers[i].annotations.insert(layer.descriptor.annotations.begin(), layer.descriptor.annotations.end());
        layers[i].media_type = layer.descriptor.media_type;
        layers[i].digest = layer.descriptor.digest;
        layers[i].size = layer.descriptor.size;
      } else if (layer.action == LayerAction::kKept && !HasTocAnnotation(layers[i])) {
        // Another platform's manifest told us that the layer is ours.
        same = false;
        layers[i].annotations.insert(layer.descriptor.annotations.begin(), layer.descriptor.annotations.end());
      }
      image.layers.push_back(layer);
    }
    Document out = document;
    if (!same) {
      HR_ASSIGN_OR_RETURN(std::string body, ReplaceLayers(document.body, layers));
      out = MakeDocument(std::move(body), kOciManifest);
    }
    image.digest = out.digest;
    report_.images.push_back(std::move(image));
    return out;
  }

  static Status CheckDiffId(const ConvertedLayer& layer, const Digest& expected) {
    if (!layer.diff_id || *layer.diff_id == expected) return {};
    return DataLossError("layer " + layer.source.ToString() + " unpacks to " + layer.diff_id->ToString() +
                         ", but the image config says " + expected.ToString() + "; the source image is damaged");
  }

  // Each distinct blob once, also across the platforms of an index.
  Status ConvertLayers(const Manifest& manifest, const ImageConfig& config) {
    std::vector<size_t> todo;
    std::set<Digest> seen;
    for (size_t i = 0; i < manifest.layers.size(); ++i) {
      const Digest& digest = manifest.layers[i].digest;
      if (done_.contains(digest) || !seen.insert(digest).second) continue;
      todo.push_back(i);
      progress_.AddTotal(manifest.layers[i].size);
    }
    std::vector<ConvertedLayer> results(todo.size());
    const Lanes lanes = LanesFor(context_.jobs, todo.size(), options_.layer.chunk_size);
    HR_RETURN_IF_ERROR(RunJobs(todo.size(), lanes.parallel, [&](size_t i, const std::atomic<bool>& stop) -> Status {
      const Descriptor& layer = manifest.layers[todo[i]];
      Result<ConvertedLayer> converted = ConvertLayer(layer, config.diff_ids[todo[i]], lanes.threads, stop);
      if (!converted.ok()) return converted.status().Annotate("layer " + layer.digest.ToString());
      results[i] = std::move(*converted);
      return {};
    }));
    for (ConvertedLayer& result : results) done_.emplace(result.source, std::move(result));
    return {};
  }

  Result<ConvertedLayer> ConvertLayer(const Descriptor& layer, const Digest& diff_id, unsigned threads,
                                      const std::atomic<bool>& stop) {
    ConvertedLayer out;
    out.source = layer.digest;
    out.source_size = layer.size;
    out.descriptor = layer;
    if (layer.has_urls) {
      out.action = LayerAction::kForeign;
      return out;
    }
    if (layer.media_type.find("encrypted") != std::string::npos) {
      return UnimplementedError("is encrypted; convert the image before it is encrypted");
    }
    if (HasTocAnnotation(layer) && ReadLazyLayer(*reader_, layer).ok()) {
      out.action = LayerAction::kKept;
      HR_RETURN_IF_ERROR(CopyBlob(layer));
      progress_.Done(layer.size);
      return out;
    }
    HR_ASSIGN_OR_RETURN(MadeLayer made, Recompress(layer, threads, stop));
    out.diff_id = made.summary.diff_id;
    out.tar_size = made.summary.tar_size;
    HR_RETURN_IF_ERROR(CheckDiffId(out, diff_id));
    out.descriptor = made.descriptor;
    HR_ASSIGN_OR_RETURN(const bool there, writer_->Has(made.descriptor));
    if (!there) HR_RETURN_IF_ERROR(writer_->PutStaged(*made.staged, made.descriptor.digest, SentCounter()));
    return out;
  }

  Result<MadeLayer> Recompress(const Descriptor& layer, unsigned threads, const std::atomic<bool>& stop) {
    format::LayerWriterOptions options;
    options.chunk_size = options_.layer.chunk_size;
    options.zstd_level = options_.layer.level;
    options.threads = threads;
    return MakeLayer(options, writer_->staging(), [&](const ByteSink& tar) -> Status {
      const std::unique_ptr<format::Decompressor> decompressor = format::Decompressor::Create(tar);
      // The tar is compared with the DiffID, which covers all that the blob is read for.
      HR_RETURN_IF_ERROR(reader_->Blob(layer, ImageReader::Verified::kByCaller, [&](std::span<const uint8_t> data) -> Status {
        if (stop) return CancelledError("another layer failed");
        progress_.Done(data.size());
        return decompressor->Write(data);
      }));
      return decompressor->Finish();
    });
  }

  Status CopyBlob(const Descriptor& blob) {
    HR_ASSIGN_OR_RETURN(const bool there, writer_->TakeOver(blob, *reader_));
    if (there) return {};
    HR_ASSIGN_OR_RETURN(std::unique_ptr<StagedBlob> staged, writer_->staging().NewBlob());
    HR_RETURN_IF_ERROR(reader_->Blob(blob, ImageReader::Verified::kHere, [&](std::span<const uint8_t> data) { return staged->Append(data); }));
    return writer_->PutStaged(*staged, blob.digest, SentCounter());
  }

  ImageWriter::Progress SentCounter() {
    if (options_.target.layout() != nullptr) return nullptr;
    return [this](uint64_t bytes) { progress_.Sent(bytes); };
  }

  const ConvertOptions& options_;
  const CommandContext& context_;
  Progress progress_;
  std::unique_ptr<ImageReader> reader_;
  std::unique_ptr<ImageWriter> writer_;
  std::map<Digest, ConvertedLayer> done_;  // by source digest
  ConvertReport report_;
};

}  // namespace

Result<ConvertReport> Convert(const ConvertOptions& options, const CommandContext& context) {
  return Converter(options, context).Run();
}

}  // namespace headrace::cli
