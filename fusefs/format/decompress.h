// Decompressor: a layer of any compression that image-spec allows in, the tar out. gzip (any number of members), zstd (any number
// of frames, skippable ones too) or nothing, told apart by their first bytes (RFC 1952, RFC 8878), not by media type.
// One thread; blocks only in the sink. Memory: about 300 KiB and, for zstd, the window of the stream (at most 128 MiB).
// Errors: DataLoss (damaged, truncated, garbage after the end), Unimplemented (xz, bzip2), and whatever the sink returns.
#ifndef HEADRACE_FUSEFS_FORMAT_DECOMPRESS_H_
#define HEADRACE_FUSEFS_FORMAT_DECOMPRESS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "fusefs/base/seek_point.h"
#include "fusefs/base/status.h"

namespace headrace::format {

enum class Compression : uint8_t { kUnknown, kNone, kGzip, kZstd };

class Decompressor {
 public:
  using Sink = std::function<Status(std::span<const uint8_t>)>;
  // A gzip member or zstd frame has ended, and all of it went to the sink: what follows, if anything does, can be decoded without what was before.
  using OnBoundary = std::function<void(const SeekPoint&)>;
  static std::unique_ptr<Decompressor> Create(Sink sink, OnBoundary on_boundary = nullptr);
  virtual ~Decompressor() = default;
  virtual Status Write(std::span<const uint8_t> bytes) = 0;
  virtual Status Finish() = 0;
  // kUnknown until enough bytes came (at most 10).
  virtual Compression compression() const = 0;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_DECOMPRESS_H_
