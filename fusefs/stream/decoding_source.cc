#include "fusefs/stream/decoding_source.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "fusefs/format/decompress.h"

namespace headrace::stream {
namespace {

constexpr unsigned kThreads = 2;
constexpr uint64_t kEnd = std::numeric_limits<uint64_t>::max();
// Ranges with no more than this between them are read in one go: decoding it takes less than another request.
constexpr uint64_t kGapMax = 4ull << 20;

}  // namespace

struct DecodingSource::Request {
  uint64_t begin = 0;  // what must still come
  uint64_t end = 0;
  bool begun = false;
  std::shared_ptr<registry::RangeSink> sink;
};

struct DecodingSource::Stream {
  registry::BlobRef blob;
  std::string key;
  std::vector<Request> waiting;  // guarded by the source's mu_

  const SeekPoints& points() const {
    static const SeekPoints kNone;
    return blob.seek_points ? *blob.seek_points : kNone;
  }
  // The last point at or before `offset` of the tar.
  SeekPoint PointBefore(uint64_t offset) const {
    const auto next = std::upper_bound(points().begin(), points().end(), offset, [](uint64_t o, const SeekPoint& p) { return o < p.decoded_offset; });
    return next == points().begin() ? SeekPoint() : *std::prev(next);
  }
  // The first one at or behind it.
  SeekPoint PointFrom(uint64_t offset) const {
    const auto point = std::lower_bound(points().begin(), points().end(), offset, [](const SeekPoint& p, uint64_t o) { return p.decoded_offset < o; });
    return point == points().end() ? SeekPoint{kEnd, kEnd} : *point;
  }
};

struct DecodingSource::Part {
  SeekPoint begin;
  SeekPoint end;
};

DecodingSource::DecodingSource(registry::RangeSource& source, const BlobReaderOptions& options)
    : source_(source), options_(options), pool_("redecode", kThreads) {}

DecodingSource::~DecodingSource() { stopping_.store(true); }

void DecodingSource::ReportWrongBytes(const registry::BlobRef& blob, uint64_t source) { source_.ReportWrongBytes(blob, source); }

void DecodingSource::Fetch(const registry::BlobRef& blob, uint64_t offset, uint64_t size, std::shared_ptr<registry::RangeSink> sink) {
  if (!blob.decoded) return source_.Fetch(blob, offset, size, std::move(sink));
  std::shared_ptr<Stream> begun;
  {
    MutexLock lock(mu_);
    const std::string key = blob.image_ref + "\n" + blob.digest.ToString();
    std::shared_ptr<Stream>& stream = streams_[key];
    if (!stream) {
      stream = begun = std::make_shared<Stream>();
      stream->blob = blob;
      stream->blob.decoded = false;
      stream->key = key;
    }
    stream->waiting.push_back({offset, offset + size, false, std::move(sink)});
  }
  if (begun) pool_.Post([this, begun] { Run(begun); });
}

void DecodingSource::Grow(Stream& stream, uint64_t position, Part& part) {
  MutexLock lock(mu_);
  std::sort(stream.waiting.begin(), stream.waiting.end(), [](const Request& a, const Request& b) { return a.begin < b.begin; });
  for (const Request& request : stream.waiting) {
    if (request.begin < position || request.end <= part.end.decoded_offset) continue;
    if (request.begin > part.end.decoded_offset && request.begin - part.end.decoded_offset > kGapMax) break;
    part.end = stream.PointFrom(request.end);
  }
}

// The part in which the first range lies, and those that are near to it; takes the ranges in it.
DecodingSource::Part DecodingSource::TakePart(Stream& stream, std::vector<Request>& active) {
  Part part;
  {
    MutexLock lock(mu_);
    const Request& first = *std::min_element(stream.waiting.begin(), stream.waiting.end(), [](const Request& a, const Request& b) { return a.begin < b.begin; });
    part = {stream.PointBefore(first.begin), stream.PointFrom(first.end)};
  }
  Grow(stream, part.begin.decoded_offset, part);
  TakeNew(stream, part.begin.decoded_offset, part.end.decoded_offset, active);
  return part;
}

void DecodingSource::TakeNew(Stream& stream, uint64_t begin, uint64_t end, std::vector<Request>& active) {
  MutexLock lock(mu_);
  std::erase_if(stream.waiting, [&](Request& request) {
    if (request.begin < begin || request.end > end) return false;
    active.push_back(std::move(request));
    return true;
  });
}

void DecodingSource::Run(const std::shared_ptr<Stream>& stream) {
  for (;;) {
    {
      MutexLock lock(mu_);
      if (stream->waiting.empty()) {
        streams_.erase(stream->key);
        return;
      }
    }
    std::vector<Request> active;
    Status status = stopping_.load() ? CancelledError("headrace-fused stops") : ReadOnce(*stream, active);
    if (!status.ok()) TakeNew(*stream, 0, kEnd, active);  // they would fare no better now; their readers try again
    for (const Request& request : active) request.sink->OnDone(status.ok() ? DataLossError("the layer ends before this range") : status);
  }
}

// Serves what waits, as far as one reading of the blob goes; what stays in `active` was not served.
Status DecodingSource::ReadOnce(Stream& stream, std::vector<Request>& active) {
  Part part = TakePart(stream, active);
  uint64_t position = part.begin.decoded_offset;
  bool all_served = false;
  BlobReaderOptions options = options_;
  options.begin = part.begin.blob_offset;
  options.end = part.end.blob_offset;
  BlobReader reader(source_, stream.blob, options, [this] { return stopping_.load(); });
  std::unique_ptr<format::Decompressor> decoder;
  const auto pass_on = [&](std::span<const uint8_t> tar) -> Status {
    const bool compressed = decoder->compression() == format::Compression::kGzip || decoder->compression() == format::Compression::kZstd;
    if (!compressed && part.begin.blob_offset > 0) return DataLossError("no gzip member or zstd frame begins at byte " + std::to_string(part.begin.blob_offset));
    TakeNew(stream, position, part.end.decoded_offset, active);
    const uint64_t end = position + tar.size();
    for (Request& request : active) {
      if (request.begin >= end) continue;
      const uint64_t until = std::min(end, request.end);
      // All that came before has part in these bytes; of several mirrors one is named at a time, until right bytes come.
      if (!std::exchange(request.begun, true)) request.sink->OnSource(reader.AnyMirror());
      const bool wanted = request.sink->OnData(tar.subspan(request.begin - position, until - request.begin));
      request.begin = until;
      if (!wanted || request.begin == request.end) {
        request.sink->OnDone(wanted ? OkStatus() : CancelledError("nobody wants the range any more"));
        request.sink = nullptr;
      }
    }
    std::erase_if(active, [](const Request& request) { return request.sink == nullptr; });
    position = end;
    if (active.empty()) TakeNew(stream, position, part.end.decoded_offset, active);
    all_served = active.empty();
    return all_served ? CancelledError("") : OkStatus();
  };
  decoder = format::Decompressor::Create(pass_on);
  for (;;) {
    Grow(stream, position, part);
    reader.Extend(part.end.blob_offset);
    auto bytes = reader.Next();
    if (!bytes.ok()) return bytes.status();
    const Status status = bytes->empty() ? decoder->Finish() : decoder->Write(*bytes);
    if (all_served || (status.ok() && bytes->empty())) return OkStatus();
    if (status.code() == StatusCode::kDataLoss || status.code() == StatusCode::kInvalidArgument) reader.ReportWrong();  // it does not even decode
    HR_RETURN_IF_ERROR(status);
  }
}

}  // namespace headrace::stream
