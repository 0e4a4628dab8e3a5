#include "fusefs/stream/learn_layer.h"

#include <deque>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/log.h"
#include "fusefs/base/mutex.h"
#include "fusefs/format/decompress.h"
#include "fusefs/format/seek_points.h"
#include "fusefs/format/tar_indexer.h"
#include "fusefs/stream/cache_filler.h"

namespace headrace::stream {
namespace {

constexpr size_t kBlockBytes = 1 << 20;
constexpr size_t kBlocksMax = 16;
constexpr int kReadingsMax = 3;  // each time without the mirrors that had part in the wrong one
constexpr std::chrono::milliseconds kLook{200};

// Blocks of the tar on their way from the decoder to the indexer's thread.
class Blocks {
 public:
  // The indexer's failure, if it has one.
  Status Push(std::span<const uint8_t> bytes) {
    while (!bytes.empty()) {
      const size_t n = std::min(bytes.size(), kBlockBytes - open_.size());
      open_.insert(open_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(n));
      bytes = bytes.subspan(n);
      if (open_.size() == kBlockBytes) HR_RETURN_IF_ERROR(Send());
    }
    return OkStatus();
  }
  Status End() {
    if (!open_.empty()) HR_RETURN_IF_ERROR(Send());
    MutexLock lock(mu_);
    ended_ = true;
    changed_.NotifyAll();
    return OkStatus();
  }
  void Abandon() {
    MutexLock lock(mu_);
    abandoned_ = ended_ = true;
    changed_.NotifyAll();
  }
  // Empty: the end, or abandoned.
  std::vector<uint8_t> Pop() {
    MutexLock lock(mu_);
    while (!changed_.WaitFor(mu_, kLook, [&] { return !queue_.empty() || ended_; })) {
    }
    if (abandoned_ || queue_.empty()) return {};
    std::vector<uint8_t> block = std::move(queue_.front());
    queue_.pop_front();
    changed_.NotifyAll();
    return block;
  }
  bool abandoned() {
    MutexLock lock(mu_);
    return abandoned_;
  }
  void Fail(Status status) {
    MutexLock lock(mu_);
    failure_ = std::move(status);
    changed_.NotifyAll();
  }

 private:
  Status Send() {
    std::vector<uint8_t> block;
    block.reserve(kBlockBytes);
    block.swap(open_);
    MutexLock lock(mu_);
    while (!changed_.WaitFor(mu_, kLook, [&] { return queue_.size() < kBlocksMax || !failure_.ok(); })) {
    }
    HR_RETURN_IF_ERROR(failure_);
    queue_.push_back(std::move(block));
    changed_.NotifyAll();
    return OkStatus();
  }

  std::vector<uint8_t> open_;
  Mutex mu_;
  CondVar changed_;
  std::deque<std::vector<uint8_t>> queue_ HR_GUARDED_BY(mu_);
  bool ended_ HR_GUARDED_BY(mu_) = false;
  bool abandoned_ HR_GUARDED_BY(mu_) = false;
  Status failure_ HR_GUARDED_BY(mu_);
};

// One reading of the blob.
class Lesson {
 public:
  Lesson(const LearnRequest& request, registry::RangeSource& source, cache::ContentStore& cache)
      : request_(request), reader_(source, request.blob, request.reader, request.cancelled), filler_(cache), indexer_(filler_) {}

  Result<LearnedTable> Run() {
    std::thread index([this] { Index(); });
    Status status = Stream();
    if (status.ok()) status = blocks_.End();
    if (!status.ok()) blocks_.Abandon();
    index.join();
    HR_RETURN_IF_ERROR(status);
    HR_RETURN_IF_ERROR(learned_.status());
    // A plain tar has the one digest for both.
    const Digest blob = decoded_ ? blob_digest_ : learned_->diff_id;
    if (blob != request_.blob.digest) {
      wrong_ = true;
      return DataLossError("the blob has digest " + blob.ToString() + ", should be " + request_.blob.digest.ToString());
    }
    if (learned_->diff_id != request_.diff_id) {
      return DataLossError("the tar has digest " + learned_->diff_id.ToString() + ", should be the DiffID " + request_.diff_id.ToString());
    }
    return LearnedTable{format::WithSeekPoints(std::move(learned_->table), points_.Below(learned_->tar_size)), decoded_};
  }
  // The bytes were wrong (a damaged stream is that as well) and came from a mirror that is not asked again.
  bool AnotherTry(const Status& status) {
    return (wrong_ || status.code() == StatusCode::kDataLoss || status.code() == StatusCode::kInvalidArgument) && reader_.ReportWrong();
  }

 private:
  Status Stream() {
    Sha256Lane blob_lane;
    auto decoder = format::Decompressor::Create([this](std::span<const uint8_t> tar) { return blocks_.Push(tar); },
                                                [this](const SeekPoint& end) { points_.Add(end); });
    for (;;) {
      HR_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, reader_.Next());
      if (bytes.empty()) break;
      HR_RETURN_IF_ERROR(decoder->Write(bytes));
      decoded_ = decoder->compression() == format::Compression::kGzip || decoder->compression() == format::Compression::kZstd;
      if (decoded_) blob_lane.Update(bytes);
      if (request_.done_bytes != nullptr) request_.done_bytes->fetch_add(bytes.size(), std::memory_order_relaxed);
    }
    blob_digest_ = blob_lane.Finish();
    HR_RETURN_IF_ERROR(decoder->Finish());
    decoded_ = decoder->compression() == format::Compression::kGzip || decoder->compression() == format::Compression::kZstd;
    return OkStatus();
  }

  void Index() {
    SetThreadName("learn-index");
    for (;;) {
      const std::vector<uint8_t> block = blocks_.Pop();
      if (block.empty()) break;
      if (Status status = indexer_.Write(block); !status.ok()) {
        learned_ = status;
        return blocks_.Fail(status);
      }
    }
    if (!blocks_.abandoned()) learned_ = indexer_.Finish();
  }

  const LearnRequest& request_;
  BlobReader reader_;
  CacheFiller filler_;
  format::TarIndexer indexer_;
  Blocks blocks_;
  format::SeekPointCollector points_;
  Digest blob_digest_;
  bool decoded_ = false;
  bool wrong_ = false;
  Result<format::TarIndexer::Learned> learned_ = CancelledError("the layer was not read to its end");
};

}  // namespace

Result<LearnedTable> LearnLayer(const LearnRequest& request, registry::RangeSource& source, cache::ContentStore& cache) {
  if (request.blob.size == 0) return InvalidArgumentError("a layer of no bytes");
  for (int reading = 1;; ++reading) {
    Lesson lesson(request, source, cache);
    auto learned = lesson.Run();
    if (learned.ok() || !lesson.AnotherTry(learned.status()) || reading == kReadingsMax) return learned;
    log::Error("a mirror gave wrong bytes and is left, the layer is read again image={} layer={} error=\"{}\"", request.blob.image_ref,
               request.blob.digest.ToString(), learned.status().ToString());
    if (request.done_bytes != nullptr) request.done_bytes->store(0, std::memory_order_relaxed);
  }
}

}  // namespace headrace::stream
