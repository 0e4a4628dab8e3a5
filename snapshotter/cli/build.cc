#include "snapshotter/cli/build.h"

#include <stdlib.h>

#include <chrono>
#include <unordered_map>

#include "fusefs/base/log.h"
#include "fusefs/format/tar_writer.h"
#include "fusefs/format/toc.h"
#include "snapshotter/cli/layer_maker.h"
#include "snapshotter/cli/progress.h"
#include "snapshotter/cli/tree_scan.h"

namespace headrace::cli {
namespace {

using format::EntryType;

// "" if the path does not exist (yet).
std::string RealPath(const std::string& path) {
  std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), [](void* p) { ::free(p); });
  return real ? std::string(real.get()) : std::string();
}

Status CheckTargetOutside(const BuildOptions& options) {
  const LayoutLocation* layout = options.target.layout();
  if (layout == nullptr) return {};
  const std::string target = RealPath(layout->path);
  for (const std::string& source : {options.dir, options.base}) {
    const std::string real = source.empty() ? "" : RealPath(source);
    if (!target.empty() && !real.empty() && (target + "/").starts_with(real + "/")) {
      return InvalidArgumentError("the target " + layout->path + " is inside " + source + ", which goes into the image");
    }
  }
  return {};
}

// A directory that both trees have gets the base's metadata, so that it is the same in every layer.
Status Harmonise(const Tree& base, Tree& tree) {
  std::unordered_map<std::string_view, const ScannedFile*> base_files;
  for (const ScannedFile& file : base.files) base_files[file.entry.name] = &file;
  for (ScannedFile& file : tree.files) {
    auto it = base_files.find(file.entry.name);
    if (it == base_files.end() || file.entry.type != EntryType::kDirectory) continue;
    if (it->second->entry.type != EntryType::kDirectory) {
      return InvalidArgumentError(it->second->source + " is not a directory, but the model's files go under it (/" +
                                  file.entry.name + "); choose another --path-prefix");
    }
    file.entry = it->second->entry;
  }
  return {};
}

class Builder {
 public:
  Builder(const BuildOptions& options, const CommandContext& context)
      : options_(options), context_(context), progress_("building", context.quiet) {}

  Result<BuildReport> Run() {
    const auto start = std::chrono::steady_clock::now();
    HR_RETURN_IF_ERROR(CheckTargetOutside(options_));
    HR_RETURN_IF_ERROR(Scan());
    HR_ASSIGN_OR_RETURN(writer_, OpenWriter(options_.target, context_.store));
    report_.target = writer_->name();
    report_.platform = options_.platform;
    HR_RETURN_IF_ERROR(MakeLayers());
    HR_RETURN_IF_ERROR(PutImage());
    report_.pushed = progress_.sent();
    report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(report_);
  }

 private:
  Status Scan() {
    ScanOptions scan;
    scan.uid = options_.uid;
    scan.gid = options_.gid;
    scan.time_max = options_.created;
    scan.keep_mtime = options_.keep_mtime;
    PlanOptions plan = options_.plan;
    if (!options_.base.empty()) {
      HR_ASSIGN_OR_RETURN(base_, ScanTree(options_.base, scan));
      PlanOptions base_plan = plan;
      base_plan.layers_max = plan.layers_max / 2;
      plan_ = PlanLayers(base_, base_plan);
      plan.layers_max -= plan_.size();
    }
    HR_ASSIGN_OR_RETURN(scan.prefix, CleanImagePath(options_.path_prefix));
    HR_ASSIGN_OR_RETURN(tree_, ScanTree(options_.dir, scan));
    HR_RETURN_IF_ERROR(Harmonise(base_, tree_));
    for (PlannedLayer& layer : PlanLayers(tree_, plan)) plan_.push_back(std::move(layer));
    for (const Tree* tree : {&base_, &tree_}) {
      report_.warnings.insert(report_.warnings.end(), tree->warnings.begin(), tree->warnings.end());
    }
    for (const PlannedLayer& layer : plan_) progress_.AddTotal(layer.bytes);
    return {};
  }

  Status MakeLayers() {
    descriptors_.resize(plan_.size());
    report_.layers.resize(plan_.size());
    const Lanes lanes = LanesFor(context_.jobs, plan_.size(), options_.layer.chunk_size);
    return RunJobs(plan_.size(), lanes.parallel, [&](size_t i, const std::atomic<bool>& stop) {
      return MakeOne(i, lanes.threads, stop).Annotate("layer " + std::to_string(i + 1) + " (" + plan_[i].title + ")");
    });
  }

  Status MakeOne(size_t i, unsigned threads, const std::atomic<bool>& stop) {
    const PlannedLayer& plan = plan_[i];
    format::LayerWriterOptions writer_options;
    writer_options.chunk_size = options_.layer.chunk_size;
    writer_options.zstd_level = options_.layer.level;
    writer_options.threads = threads;
    HR_ASSIGN_OR_RETURN(MadeLayer made, MakeLayer(writer_options, writer_->staging(), [&](const ByteSink& sink) {
                          return WriteTar(plan, sink, stop);
                        }));
    HR_ASSIGN_OR_RETURN(const bool there, writer_->Has(made.descriptor));
    if (!there) {
      HR_RETURN_IF_ERROR(writer_->PutStaged(*made.staged, made.descriptor.digest, SentCounter()));
    }
    report_.layers[i] = {plan.title,         made.summary.blob_digest, made.summary.diff_id, made.summary.blob_size,
                         made.summary.tar_size, made.summary.files,       made.summary.chunks,  there};
    descriptors_[i] = std::move(made.descriptor);
    if (options_.no_fill) descriptors_[i].annotations[std::string(format::kFillLabel)] = format::kFillOff;
    return {};
  }

  ImageWriter::Progress SentCounter() {
    // A layout's blobs are renamed into place: nothing is sent anywhere.
    if (options_.target.layout() != nullptr) return nullptr;
    return [this](uint64_t bytes) { progress_.Sent(bytes); };
  }

  Status WriteTar(const PlannedLayer& plan, const ByteSink& sink, const std::atomic<bool>& stop) {
    format::TarWriter tar(sink);
    for (const ScannedFile* file : plan.entries) {
      HR_RETURN_IF_ERROR(tar.Add(file->entry));
      if (file->entry.type != EntryType::kRegular) continue;
      HR_RETURN_IF_ERROR(ReadScannedFile(*file, [&](std::span<const uint8_t> data) -> Status {
        if (stop) return CancelledError("another layer failed");
        progress_.Done(data.size());
        return tar.Data(data);
      }));
    }
    return tar.Finish();
  }

  Status PutImage() {
    ConfigSpec spec;
    spec.platform = options_.platform;
    spec.created = FormatTime(options_.created);
    spec.entrypoint = options_.entrypoint;
    spec.cmd = options_.cmd;
    spec.env = options_.env;
    spec.workdir = options_.workdir;
    spec.user = options_.user;
    spec.labels = options_.labels;
    for (const LayerReport& layer : report_.layers) {
      spec.diff_ids.push_back(layer.diff_id);
      spec.history.push_back("headrace build: " + layer.title);
    }
    const std::string config = PrintConfig(spec);
    report_.config_digest = Digest::Of(config);
    HR_RETURN_IF_ERROR(writer_->PutBlob(report_.config_digest, config));
    Manifest manifest;
    manifest.media_type = kOciManifest;
    manifest.config = {std::string(kOciConfig), report_.config_digest, config.size(), {}, {}, false};
    manifest.layers = descriptors_;
    manifest.annotations = options_.annotations;
    manifest.annotations.try_emplace("org.opencontainers.image.created", spec.created);
    Document document{PrintManifest(manifest), std::string(kOciManifest), {}};
    document.digest = Digest::Of(document.body);
    report_.digest = document.digest;
    if (document.body.size() > kDocumentBytesMax) return ResourceExhaustedError("the manifest is larger than 4 MiB");
    return writer_->PutRoot(document);
  }

  const BuildOptions& options_;
  const CommandContext& context_;
  Progress progress_;
  Tree base_;
  Tree tree_;
  std::vector<PlannedLayer> plan_;  // points into the trees
  std::unique_ptr<ImageWriter> writer_;
  std::vector<Descriptor> descriptors_;
  BuildReport report_;
};

}  // namespace

Result<BuildReport> Build(const BuildOptions& options, const CommandContext& context) {
  return Builder(options, context).Run();
}

}  // namespace headrace::cli
