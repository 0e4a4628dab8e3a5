// DecodingSource: ranges of the tar that a compressed blob decodes to (BlobRef::decoded), in front of a source that has ranges of blobs only; everything else
// passes through.
//
// For layers that were learned (learn_layer.h) and of which the cache lost something. Such a stream is entered at the last seek point before a range (BlobRef::seek_points), or at its start
// if there is none, and read to the next point behind it. One reading serves all ranges in or near its part, and goes on while more are asked for; others wait for
// the next one. Chunks are verified by their digests as always.
// Threads: Fetch never blocks; sinks of decoded ranges are called on a thread of its own ("redecode-N", two blobs at a time). The source outlives
// this object; the destructor ends what is under way with Cancelled.
#ifndef HEADRACE_FUSEFS_STREAM_DECODING_SOURCE_H_
#define HEADRACE_FUSEFS_STREAM_DECODING_SOURCE_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/mutex.h"
#include "fusefs/registry/range_source.h"
#include "fusefs/stream/blob_reader.h"

namespace headrace::stream {

class DecodingSource : public registry::RangeSource {
 public:
  DecodingSource(registry::RangeSource& source, const BlobReaderOptions& options);
  ~DecodingSource() override;

  void Fetch(const registry::BlobRef& blob, uint64_t offset, uint64_t size, std::shared_ptr<registry::RangeSink> sink) override;
  void ReportWrongBytes(const registry::BlobRef& blob, uint64_t source) override;

 private:
  struct Request;
  struct Stream;
  struct Part;  // of the blob: what one reading covers
  Part TakePart(Stream& stream, std::vector<Request>& active);
  // Takes in the ranges that begin at or behind `position` and in or near the part.
  void Grow(Stream& stream, uint64_t position, Part& part);
  void Run(const std::shared_ptr<Stream>& stream);
  Status ReadOnce(Stream& stream, std::vector<Request>& active);
  // What was asked meanwhile and lies within [begin, end).
  void TakeNew(Stream& stream, uint64_t begin, uint64_t end, std::vector<Request>& active);

  registry::RangeSource& source_;
  const BlobReaderOptions options_;
  std::atomic<bool> stopping_{false};
  Mutex mu_;
  std::map<std::string, std::shared_ptr<Stream>> streams_ HR_GUARDED_BY(mu_);  // by image and blob, while somebody waits
  ThreadPool pool_;  // last: its tasks use all of the above
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_DECODING_SOURCE_H_
