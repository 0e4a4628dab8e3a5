#include "fusefs/stream/blob_reader.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "fusefs/base/mutex.h"

namespace headrace::stream {
namespace {

using std::chrono::steady_clock;

constexpr unsigned kPermanentTriesMax = 3;
constexpr std::chrono::milliseconds kLook{100};  // for `cancelled`

bool LooksPermanent(const Status& status) {
  switch (status.code()) {
    case StatusCode::kUnavailable:
    case StatusCode::kDeadlineExceeded:
    case StatusCode::kResourceExhausted:
    case StatusCode::kAborted:
    case StatusCode::kUnknown:
      return false;
    default:
      return true;
  }
}

}  // namespace

std::chrono::milliseconds PauseAfter(const BlobReaderOptions& options, unsigned tries, const Status& status) {
  static thread_local std::minstd_rand random{std::random_device{}()};
  auto pause = options.retry_pause_min * (1u << std::min(tries, 10u));
  pause = std::min<std::chrono::milliseconds>(pause, options.retry_pause_max);
  pause = pause / 2 + std::chrono::milliseconds(random() % static_cast<uint64_t>(pause.count() / 2 + 1));
  return std::max(pause, std::min(status.retry_after(), options.stall_deadline / 2));
}

struct BlobReader::Range {
  uint64_t offset = 0;  // in the blob
  std::vector<uint8_t> bytes;
  uint64_t got = 0;
  bool done = false;     // complete, or failed with `status`
  Status status;
  unsigned tries = 0;
  unsigned permanent = 0;
  steady_clock::time_point again{};  // not before then
};

// What sinks keep alive: memory only.
struct BlobReader::Shared {
  Mutex mu;
  CondVar moved;
  bool closed HR_GUARDED_BY(mu) = false;
  steady_clock::time_point progress HR_GUARDED_BY(mu) = steady_clock::now();
  std::map<uint64_t, std::shared_ptr<Range>> ranges HR_GUARDED_BY(mu);
  std::set<uint64_t> mirrors HR_GUARDED_BY(mu);  // that gave bytes

  class Sink;
};

class BlobReader::Shared::Sink : public registry::RangeSink {
 public:
  Sink(std::shared_ptr<Shared> shared, std::shared_ptr<Range> range) : shared_(std::move(shared)), range_(std::move(range)) {}
  void OnSource(uint64_t source) override { from_ = source; }
  bool OnData(std::span<const uint8_t> data) override {
    MutexLock lock(shared_->mu);
    if (shared_->closed) return false;
    if (data.size() > range_->bytes.size() - range_->got) return false;  // more than was asked
    std::copy(data.begin(), data.end(), range_->bytes.begin() + static_cast<ptrdiff_t>(range_->got));
    range_->got += data.size();
    shared_->progress = steady_clock::now();
    if (from_ != 0) shared_->mirrors.insert(from_);
    return true;
  }
  void OnDone(Status status) override {
    MutexLock lock(shared_->mu);
    if (status.ok() && range_->got < range_->bytes.size()) status = UnavailableError("the range came short");
    range_->status = std::move(status);
    range_->done = true;
    shared_->moved.NotifyAll();
  }

 private:
  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<Range> range_;
  uint64_t from_ = 0;
};

BlobReader::BlobReader(registry::RangeSource& source, const registry::BlobRef& blob, const BlobReaderOptions& options,
                       std::function<bool()> cancelled)
    : source_(source), blob_(blob), options_(options), cancelled_(std::move(cancelled)), shared_(std::make_shared<Shared>()),
      end_(std::min(blob.size, options.end)), next_offset_(options.begin) {}

BlobReader::~BlobReader() {
  MutexLock lock(shared_->mu);
  shared_->closed = true;
  shared_->ranges.clear();
}

void BlobReader::Start(uint64_t index) {
  auto range = std::make_shared<Range>();
  range->offset = next_offset_;
  range->bytes.resize(std::min(kRangeBytes, end_ - range->offset));
  next_offset_ += range->bytes.size();
  {
    MutexLock lock(shared_->mu);
    shared_->ranges[index] = range;
  }
  source_.Fetch(blob_, range->offset, range->bytes.size(), std::make_shared<Shared::Sink>(shared_, range));
}

// REQUIRES: the range is done, and failed. Nobody else touches it then.
Status BlobReader::Restart(Range& range) {
  const bool permanent = LooksPermanent(range.status);
  if (permanent && ++range.permanent >= kPermanentTriesMax) return range.status;
  range.again = steady_clock::now() + PauseAfter(options_, range.tries++, range.status);
  return OkStatus();
}

Result<std::vector<uint8_t>> BlobReader::Next() {
  if (next_ == next_start_ && next_offset_ >= end_) return std::vector<uint8_t>();
  {
    // Time in which the caller was busy with what came is not the registry's.
    MutexLock lock(shared_->mu);
    shared_->progress = steady_clock::now();
  }
  while (next_start_ < next_ + kRanges && next_offset_ < end_) Start(next_start_++);
  for (;;) {
    if (cancelled_ && cancelled_()) return CancelledError("cancelled");
    std::vector<std::shared_ptr<Range>> again;
    {
      MutexLock lock(shared_->mu);
      std::shared_ptr<Range>& first = shared_->ranges[next_];
      const auto failed_or_first = [&] {
        if (first->done && first->status.ok()) return true;
        const auto now = steady_clock::now();
        return std::any_of(shared_->ranges.begin(), shared_->ranges.end(),
                           [&](const auto& item) { return item.second->done && !item.second->status.ok() && item.second->again <= now; });
      };
      shared_->moved.WaitFor(shared_->mu, kLook, failed_or_first);
      if (first->done && first->status.ok()) {
        std::vector<uint8_t> bytes = std::move(first->bytes);
        shared_->ranges.erase(next_++);
        return bytes;
      }
      const auto now = steady_clock::now();
      // Attempts have time limits of their own; this is for a source that forgets one.
      if (now - shared_->progress > 2 * options_.stall_deadline) return DeadlineExceededError("nothing came of the blob for too long");
      for (auto& [index, range] : shared_->ranges) {
        if (!range->done || range->status.ok() || range->again > now) continue;
        if (now - shared_->progress > options_.stall_deadline) return range->status;
        if (range->again == steady_clock::time_point{}) {
          HR_RETURN_IF_ERROR(Restart(*range));  // pauses first
          continue;
        }
        range->again = {};
        range->done = false;
        range->status = OkStatus();
        again.push_back(range);
      }
    }
    for (const auto& range : again) {
      source_.Fetch(blob_, range->offset + range->got, range->bytes.size() - range->got, std::make_shared<Shared::Sink>(shared_, range));
    }
  }
}

uint64_t BlobReader::AnyMirror() {
  MutexLock lock(shared_->mu);
  return shared_->mirrors.empty() ? 0 : *shared_->mirrors.begin();
}

bool BlobReader::ReportWrong() {
  std::set<uint64_t> mirrors;
  {
    MutexLock lock(shared_->mu);
    mirrors = shared_->mirrors;
  }
  for (const uint64_t mirror : mirrors) source_.ReportWrongBytes(blob_, mirror);
  return !mirrors.empty();
}

}  // namespace headrace::stream
