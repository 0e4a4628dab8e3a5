// zstd frames as the layer format has them: compressors and decompressors with reuse of their contexts, frames of raw blocks.
// Each object is used by one thread at a time; CPU only. Errors: DataLoss (damaged input), Internal (zstd refused our own call).
#ifndef HEADRACE_FUSEFS_FORMAT_ZSTD_FRAME_H_
#define HEADRACE_FUSEFS_FORMAT_ZSTD_FRAME_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fusefs/base/status.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace headrace::format {

class FrameCompressor {
 public:
  static Result<std::unique_ptr<FrameCompressor>> Create(int level);
  // Writes one frame with its content size to the start of `out`; how long it is. Data that shrinks by less than a tenth becomes a
  // frame of raw blocks: reading it back costs a copy instead of a decoder. REQUIRES: out.size() >= FrameSizeMax(data.size()).
  Result<size_t> Compress(std::span<const uint8_t> data, std::span<uint8_t> out);
  // The same; `out` becomes the frame.
  Status Compress(std::span<const uint8_t> data, std::vector<uint8_t>& out);
  static size_t FrameSizeMax(size_t data_size);

 private:
  explicit FrameCompressor(ZSTD_CCtx_s* ctx) : ctx_(ctx) {}
  struct Deleter {
    void operator()(ZSTD_CCtx_s* ctx) const;
  };
  std::unique_ptr<ZSTD_CCtx_s, Deleter> ctx_;
};

// A frame of raw blocks (RFC 8878 section 3.1.1): single segment, content size, no checksum.
// Writes to the start of `out`, which has FrameCompressor::FrameSizeMax(data.size()) bytes or more; how many.
size_t WriteRawFrame(std::span<const uint8_t> data, std::span<uint8_t> out);

// Decodes all frames of `compressed`; OK only if they give exactly out.size() bytes and nothing is left over.
Status DecodeFrames(std::span<const uint8_t> compressed, std::span<uint8_t> out);

// A zstd stream that is written piece by piece into memory (tar-split: its size is not known before its end).
class MemoryCompressor {
 public:
  static Result<std::unique_ptr<MemoryCompressor>> Create(int level);
  Status Write(std::span<const uint8_t> data);
  Status Finish();
  const std::string& compressed() const { return out_; }
  std::string& compressed() { return out_; }
  uint64_t uncompressed_size() const { return in_size_; }

 private:
  explicit MemoryCompressor(ZSTD_CCtx_s* ctx) : ctx_(ctx) {}
  Status Run(std::span<const uint8_t> data, bool end);
  struct Deleter {
    void operator()(ZSTD_CCtx_s* ctx) const;
  };
  std::unique_ptr<ZSTD_CCtx_s, Deleter> ctx_;
  std::string out_;
  uint64_t in_size_ = 0;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_ZSTD_FRAME_H_
