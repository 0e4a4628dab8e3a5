#include "fusefs/format/zstd_frame.h"

#include <zstd.h>

#include <algorithm>
#include <cstring>

namespace headrace::format {
namespace {

constexpr uint32_t kFrameMagic = 0xFD2FB528;
constexpr size_t kBlockSizeMax = 128u << 10;

Status ZstdError(const char* what, size_t code) {
  return InternalError(std::string(what) + ": zstd: " + ZSTD_getErrorName(code));
}

// Bytes one after the other into room that is large enough.
class Filler {
 public:
  explicit Filler(std::span<uint8_t> out) : out_(out) {}
  void Le(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out_[size_++] = static_cast<uint8_t>((value >> (8 * i)) & 0xff);
  }
  void Copy(std::span<const uint8_t> data) {
    std::copy(data.begin(), data.end(), out_.subspan(size_, data.size()).begin());
    size_ += data.size();
  }
  size_t size() const { return size_; }

 private:
  std::span<uint8_t> out_;
  size_t size_ = 0;
};

uint64_t RawBlocks(uint64_t size) { return std::max<uint64_t>(1, (size + kBlockSizeMax - 1) / kBlockSizeMax); }

// One decoder per thread: a context is 100 KiB and takes microseconds to make, chunks come by the thousand.
ZSTD_DCtx* ThreadDecoder() {
  struct Deleter {
    void operator()(ZSTD_DCtx* ctx) const { ZSTD_freeDCtx(ctx); }
  };
  thread_local std::unique_ptr<ZSTD_DCtx, Deleter> decoder(ZSTD_createDCtx());
  return decoder.get();
}

Result<ZSTD_CCtx*> NewCompressor(int level) {
  ZSTD_CCtx* ctx = ZSTD_createCCtx();
  if (ctx == nullptr) return ResourceExhaustedError("no memory for a zstd compressor");
  size_t rc = ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, level);
  if (ZSTD_isError(rc) != 0) {
    ZSTD_freeCCtx(ctx);
    return InvalidArgumentError("zstd level " + std::to_string(level) + ": " + ZSTD_getErrorName(rc));
  }
  return ctx;
}

}  // namespace

void FrameCompressor::Deleter::operator()(ZSTD_CCtx_s* ctx) const { ZSTD_freeCCtx(ctx); }
void MemoryCompressor::Deleter::operator()(ZSTD_CCtx_s* ctx) const { ZSTD_freeCCtx(ctx); }

Result<std::unique_ptr<FrameCompressor>> FrameCompressor::Create(int level) {
  HR_ASSIGN_OR_RETURN(ZSTD_CCtx * ctx, NewCompressor(level));
  return std::unique_ptr<FrameCompressor>(new FrameCompressor(ctx));
}

size_t FrameCompressor::FrameSizeMax(size_t data_size) {
  const size_t raw = data_size + 3 * RawBlocks(data_size) + 16;
  return std::max(ZSTD_compressBound(data_size), raw);
}

Result<size_t> FrameCompressor::Compress(std::span<const uint8_t> data, std::span<uint8_t> out) {
  const size_t limit = data.size() - data.size() / 10;
  const size_t size = ZSTD_compress2(ctx_.get(), out.data(), out.size(), data.data(), data.size());
  if (ZSTD_isError(size) != 0) return ZstdError("compressing a frame", size);
  return size > limit ? WriteRawFrame(data, out) : size;
}

Status FrameCompressor::Compress(std::span<const uint8_t> data, std::vector<uint8_t>& out) {
  out.resize(FrameSizeMax(data.size()));
  HR_ASSIGN_OR_RETURN(const size_t size, Compress(data, std::span(out)));
  out.resize(size);
  return OkStatus();
}

size_t WriteRawFrame(std::span<const uint8_t> data, std::span<uint8_t> out) {
  const uint64_t size = data.size();
  const uint64_t blocks = RawBlocks(size);
  Filler fill(out);
  fill.Le(kFrameMagic, 4);
  // Frame_Header_Descriptor: content size flag in bits 7-6, single segment in bit 5; no checksum, no dictionary.
  if (size < 256) {
    fill.Le(0x20, 1);
    fill.Le(size, 1);
  } else if (size < 256 + 65536) {
    fill.Le(0x60, 1);
    fill.Le(size - 256, 2);
  } else if (size <= UINT32_MAX) {
    fill.Le(0xA0, 1);
    fill.Le(size, 4);
  } else {
    fill.Le(0xE0, 1);
    fill.Le(size, 8);
  }
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t begin = i * kBlockSizeMax;
    const uint64_t n = std::min<uint64_t>(kBlockSizeMax, size - begin);
    fill.Le(n << 3 | (i + 1 == blocks ? 1 : 0), 3);  // type 0: raw
    fill.Copy(data.subspan(begin, n));
  }
  return fill.size();
}

Status DecodeFrames(std::span<const uint8_t> compressed, std::span<uint8_t> out) {
  ZSTD_DCtx* decoder = ThreadDecoder();
  if (decoder == nullptr) return ResourceExhaustedError("no memory for a zstd decoder");
  size_t rc = ZSTD_decompressDCtx(decoder, out.data(), out.size(), compressed.data(), compressed.size());
  if (ZSTD_isError(rc) != 0) return DataLossError(std::string("zstd: ") + ZSTD_getErrorName(rc));
  if (rc != out.size()) {
    return DataLossError("decodes to " + std::to_string(rc) + " bytes, should be " +
                         std::to_string(out.size()));
  }
  return OkStatus();
}

Result<std::unique_ptr<MemoryCompressor>> MemoryCompressor::Create(int level) {
  HR_ASSIGN_OR_RETURN(ZSTD_CCtx * ctx, NewCompressor(level));
  return std::unique_ptr<MemoryCompressor>(new MemoryCompressor(ctx));
}

Status MemoryCompressor::Run(std::span<const uint8_t> data, bool end) {
  ZSTD_inBuffer in{data.data(), data.size(), 0};
  for (;;) {
    uint8_t buffer[16384];
    ZSTD_outBuffer out{buffer, sizeof buffer, 0};
    size_t rc = ZSTD_compressStream2(ctx_.get(), &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
    if (ZSTD_isError(rc) != 0) return ZstdError("compressing a stream", rc);
    out_.append(reinterpret_cast<const char*>(buffer), out.pos);
    if (end ? rc == 0 : in.pos == in.size) return OkStatus();
  }
}

Status MemoryCompressor::Write(std::span<const uint8_t> data) {
  in_size_ += data.size();
  return Run(data, false);
}

Status MemoryCompressor::Finish() { return Run({}, true); }

}  // namespace headrace::format
