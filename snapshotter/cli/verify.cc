#include "snapshotter/cli/verify.h"

#include <chrono>
#include <map>
#include <set>

#include "fusefs/base/mutex.h"
#include "fusefs/format/seek_table.h"
#include "snapshotter/cli/blob_check.h"
#include "snapshotter/cli/image_walk.h"
#include "snapshotter/cli/layer_maker.h"
#include "snapshotter/cli/lazy_layer.h"
#include "snapshotter/cli/progress.h"

namespace headrace::cli {
namespace {

// Wrong content, as opposed to content that cannot be had at the moment.
bool IsDamage(const Status& status) {
  switch (status.code()) {
    case StatusCode::kDataLoss:
    case StatusCode::kInvalidArgument:
    case StatusCode::kResourceExhausted:
    case StatusCode::kOutOfRange:
    case StatusCode::kNotFound:
    case StatusCode::kUnimplemented:
      return true;
    default:
      return false;
  }
}

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

struct Task {
  Descriptor blob;
  std::optional<Digest> diff_id;  // unset: an artifact's blob, of which only the digest is checked
};

class Verifier {
 public:
  Verifier(const VerifyOptions& options, const CommandContext& context)
      : options_(options), context_(context), progress_("verifying", context.quiet) {}

  Result<VerifyReport> Run() {
    const auto start = std::chrono::steady_clock::now();
    HR_ASSIGN_OR_RETURN(reader_, OpenReader(options_.image, context_.store));
    report_.image = reader_->name();
    Status status = CheckAll();
    if (!status.ok()) {
      if (!IsDamage(status) || status.code() == StatusCode::kNotFound) return status;
      Find(report_.image, status.message());
    }
    report_.bytes = progress_.done();
    report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(report_);
  }

 private:
  Status CheckAll() {
    HR_ASSIGN_OR_RETURN(const FoundImages found, FindImages(*reader_, options_.platform));
    report_.digest = found.root.digest;
    if (Digest::Of(found.root.body) != found.root.digest) {
      Find("manifest " + found.root.digest.ToString(), "its digest is " + Digest::Of(found.root.body).ToString());
    }
    for (const FoundManifest& manifest : found.manifests) {
      Status status = PlanManifest(manifest);
      if (status.ok()) continue;
      if (!IsDamage(status)) return status;
      Find("manifest " + manifest.document.digest.ToString(), status.message());
    }
    std::vector<Task> tasks;
    for (auto& [key, task] : tasks_) tasks.push_back(task);
    for (const Task& task : tasks) progress_.AddTotal(task.blob.size);
    return RunJobs(tasks.size(), context_.jobs, [&](size_t i, const std::atomic<bool>& stop) {
      const std::string where = (tasks[i].diff_id ? "layer " : "blob ") + tasks[i].blob.digest.ToString();
      Status status = CheckBlob(tasks[i], where, stop);
      if (status.ok() || !IsDamage(status)) return status.Annotate(where);
      Find(where, status.message());
      return OkStatus();
    });
  }

  Status PlanManifest(const FoundManifest& found) {
    HR_ASSIGN_OR_RETURN(const Manifest manifest, ParseManifest(found.document.body));
    if (found.kind == DocumentKind::kOther) {
      ++report_.artifacts;
      AddTask({manifest.config, {}});
      for (const Descriptor& layer : manifest.layers) AddTask({layer, {}});
      return {};
    }
    ++report_.images;
    Result<std::string> blob = ReadBlob(*reader_, manifest.config, kConfigBytesMax);
    Result<ImageConfig> config = blob.ok() ? ParseConfig(*blob) : Result<ImageConfig>(blob.status());
    if (!config.ok()) {
      if (!IsDamage(config.status())) return config.status();
      Find("config " + manifest.config.digest.ToString(), config.status().message());
      for (const Descriptor& layer : manifest.layers) AddTask({layer, {}});
      return {};
    }
    if (config->diff_ids.size() != manifest.layers.size()) {
      return InvalidArgumentError("has " + std::to_string(manifest.layers.size()) + " layers, its config " +
                                  std::to_string(config->diff_ids.size()) + " diff_ids");
    }
    for (size_t i = 0; i < manifest.layers.size(); ++i) {
      if (!manifest.layers[i].has_urls) AddTask({manifest.layers[i], config->diff_ids[i]});
    }
    return {};
  }

  // The same blob is checked once, unless two manifests say different things about it.
  void AddTask(Task task) {
    const auto toc = task.blob.annotations.find(std::string(format::kTocLabel));
    std::string key = task.blob.digest.ToString() + " " + (task.diff_id ? task.diff_id->ToString() : "");
    if (toc != task.blob.annotations.end()) key += " " + toc->second;
    tasks_.emplace(std::move(key), std::move(task));
  }

  Status CheckBlob(const Task& task, const std::string& where, const std::atomic<bool>& stop) {
    std::optional<LazyLayer> lazy;
    std::optional<uint64_t> seek_table_bytes;  // of the tar, as the seek table says
    if (task.diff_id && HasTocAnnotation(task.blob)) {
      Result<LazyLayer> read = ReadLazyLayer(*reader_, task.blob);
      if (read.ok()) {
        lazy = std::move(*read);
        HR_RETURN_IF_ERROR(CheckSeekTable(task.blob, where, seek_table_bytes));
      } else if (IsDamage(read.status())) {
        Find(where, read.status().message());
      } else {
        return read.status();
      }
    }
    BlobCheck check(task.diff_id, lazy ? &lazy->index : nullptr);
    Status status = reader_->Blob(task.blob, ImageReader::Verified::kHere, [&](std::span<const uint8_t> data) -> Status {
      if (stop) return CancelledError("another check failed");
      progress_.Done(data.size());
      if (task.diff_id) check.Write(data);
      return {};
    });
    if (!status.ok() && !IsDamage(status)) return status;
    if (!status.ok()) Find(where, status.message());
    if (task.diff_id) {
      const std::vector<std::string> findings = check.Finish();
      for (const std::string& finding : findings) Find(where, finding);
      if (findings.empty() && seek_table_bytes && *seek_table_bytes != check.tar_size()) {
        Find(where, "seek table: is of " + std::to_string(*seek_table_bytes) + " bytes, the tar has " +
                        std::to_string(check.tar_size()));
      }
    }
    MutexLock lock(mu_);
    report_.layers += task.diff_id ? 1 : 0;
    report_.lazy_layers += lazy ? 1 : 0;
    report_.chunks += check.chunks_checked();
    report_.tar_bytes += check.tar_size();
    return {};
  }

  Status CheckSeekTable(const Descriptor& blob, const std::string& where, std::optional<uint64_t>& bytes) {
    auto damaged = [&](const Status& status) -> Status {
      if (!IsDamage(status)) return status;
      Find(where, "seek table: " + status.message());
      return {};
    };
    constexpr uint64_t kFooter = format::SeekTable::kFooterSize;
    if (blob.size < kFooter) return damaged(DataLossError("the blob is too small to have one"));
    const Result<std::string> footer = reader_->BlobRange(blob, blob.size - kFooter, kFooter);
    if (!footer.ok()) return damaged(footer.status());
    const Result<uint64_t> size = format::SeekTable::FrameSize(Bytes(*footer));
    if (!size.ok()) return damaged(size.status());
    if (*size > blob.size) return damaged(DataLossError("is larger than the blob"));
    const Result<std::string> frame = reader_->BlobRange(blob, blob.size - *size, *size);
    if (!frame.ok()) return damaged(frame.status());
    const Result<format::SeekTable> table = format::SeekTable::Parse(Bytes(*frame), blob.size);
    if (!table.ok()) return damaged(table.status());
    bytes = 0;
    for (const format::SeekFrame& seek_frame : table->frames) *bytes += seek_frame.decompressed_size;
    return {};
  }

  void Find(std::string where, std::string what) {
    MutexLock lock(mu_);
    report_.findings.push_back({std::move(where), std::move(what)});
  }

  const VerifyOptions& options_;
  const CommandContext& context_;
  Progress progress_;
  std::unique_ptr<ImageReader> reader_;
  std::map<std::string, Task> tasks_;
  Mutex mu_;
  VerifyReport report_;  // findings and sums under mu_ while the jobs run
};

}  // namespace

Result<VerifyReport> Verify(const VerifyOptions& options, const CommandContext& context) {
  return Verifier(options, context).Run();
}

}  // namespace headrace::cli
