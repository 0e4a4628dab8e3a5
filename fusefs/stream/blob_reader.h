// BlobReader: a whole blob in order, out of parallel ranges: at the speed of the wire, with a bounded number of bytes under way.
//
// Threads: Next is called by one thread at a time and blocks on the registry, until a range is here, the blob made no progress for `stall_deadline`, or `cancelled` says so
// (asked several times a second). Sinks run on the source's threads. The source outlives every call that it makes; the reader may go before that.
// A range that fails goes on where it broke, after growing pauses; what looks permanent (404, 403, a registry without ranges) is tried three times.
// Memory: kRanges * kRangeBytes. Nothing is verified here.
#ifndef HEADRACE_FUSEFS_STREAM_BLOB_READER_H_
#define HEADRACE_FUSEFS_STREAM_BLOB_READER_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/registry/range_source.h"

namespace headrace::stream {

struct BlobReaderOptions {
  std::chrono::milliseconds stall_deadline{300'000};
  std::chrono::milliseconds retry_pause_min{100};
  std::chrono::milliseconds retry_pause_max{10'000};
  uint64_t begin = 0;  // only this part of the blob is read
  uint64_t end = std::numeric_limits<uint64_t>::max();
};

// How long to rest after `tries` failures in a row, of which `status` was the last: growing, between half and all of it at random; longer if the registry asked for that (Retry-After), up to half
// of the stall deadline.
std::chrono::milliseconds PauseAfter(const BlobReaderOptions& options, unsigned tries, const Status& status);

class BlobReader {
 public:
  static constexpr size_t kRanges = 8;
  static constexpr uint64_t kRangeBytes = 4ull << 20;

  BlobReader(registry::RangeSource& source, const registry::BlobRef& blob, const BlobReaderOptions& options, std::function<bool()> cancelled);
  ~BlobReader();

  // The next bytes; empty at the end. After an error the reader is of no use.
  Result<std::vector<uint8_t>> Next();
  // Reads on to there, if that is further. By the thread that calls Next.
  void Extend(uint64_t end) { end_ = std::max(end_, std::min(blob_.size, end)); }
  // What came so far was wrong: mirrors that gave some of it are not asked again (all of them: the digest of the whole does not tell which one it was). True if
  // there were any, so that another try makes sense.
  bool ReportWrong();
  // One of the mirrors that gave bytes so far; 0: only the registry itself did.
  uint64_t AnyMirror();

 private:
  struct Shared;
  struct Range;
  void Start(uint64_t index);
  Status Restart(Range& range);

  registry::RangeSource& source_;
  const registry::BlobRef blob_;
  const BlobReaderOptions options_;
  const std::function<bool()> cancelled_;
  const std::shared_ptr<Shared> shared_;
  uint64_t end_;             // in the blob
  uint64_t next_offset_;     // of the range that is to be asked for next
  uint64_t next_start_ = 0;  // its index
  uint64_t next_ = 0;        // index of the range that Next gives
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_BLOB_READER_H_
