#include "fusefs/format/decompress.h"

#include <zstd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "fusefs/format/bytes.h"
#include "fusefs/format/gunzip.h"
#include "fusefs/format/limits.h"

namespace headrace::format {
namespace {

constexpr size_t kMagicSize = 10;  // the longest that is looked for (bzip2's)
constexpr size_t kBufferSize = 256u << 10;

struct DctxDeleter {
  void operator()(ZSTD_DCtx* ctx) const { ZSTD_freeDCtx(ctx); }
};

class DecompressorImpl final : public Decompressor {
 public:
  DecompressorImpl(Sink sink, OnBoundary on_boundary) : sink_(std::move(sink)), on_boundary_(std::move(on_boundary)) {}
  Compression compression() const override { return kind_; }

  Status Write(std::span<const uint8_t> bytes) override {
    HR_RETURN_IF_ERROR(failed_);
    failed_ = DoWrite(bytes);
    return failed_;
  }

  Status Finish() override {
    HR_RETURN_IF_ERROR(failed_);
    if (kind_ == Compression::kUnknown) failed_ = Begin();
    HR_RETURN_IF_ERROR(failed_);
    if (!at_boundary_) return DataLossError("compressed layer is truncated");
    return OkStatus();
  }

 private:
  Status DoWrite(std::span<const uint8_t> bytes) {
    if (kind_ == Compression::kUnknown) {
      const size_t n = std::min(bytes.size(), kMagicSize - head_.size());
      head_.append(AsText(bytes.first(n)));
      bytes = bytes.subspan(n);
      if (head_.size() < kMagicSize) return OkStatus();
      HR_RETURN_IF_ERROR(Begin());
    }
    return Feed(bytes);
  }

  // Decides on the first bytes and passes them on.
  Status Begin() {
    std::string_view head = head_;
    const bool is_skippable = head.size() >= 4 && (static_cast<uint8_t>(head[0]) & 0xf0) == 0x50 &&
                              head.substr(1, 3) == "\x2A\x4D\x18";
    if (head.starts_with("\x1f\x8b")) {
      HR_RETURN_IF_ERROR(BeginGzip());
    } else if (head.starts_with("\x28\xB5\x2F\xFD") || is_skippable) {
      HR_RETURN_IF_ERROR(BeginZstd());
    } else if (head.starts_with(std::string_view("\xFD" "7zXZ\0", 6)) ||
               (head.size() == kMagicSize && head.starts_with("BZh") && head.substr(4) == "1AY&SY")) {
      return UnimplementedError("layer is compressed with xz or bzip2, which OCI layers may not be");
    } else {
      kind_ = Compression::kNone;
    }
    const std::string bytes = std::move(head_);
    return Feed(AsBytes(bytes));
  }

  Status BeginGzip() {
    gzip_ = std::make_unique<Gunzip>();
    buffer_.resize(kBufferSize);
    kind_ = Compression::kGzip;
    return OkStatus();
  }

  Status BeginZstd() {
    zstd_.reset(ZSTD_createDCtx());
    if (zstd_ == nullptr) return ResourceExhaustedError("no memory for zstd");
    ZSTD_DCtx_setParameter(zstd_.get(), ZSTD_d_windowLogMax, limits::kDecompressWindowLogMax);
    buffer_.resize(kBufferSize);
    kind_ = Compression::kZstd;
    return OkStatus();
  }

  Status Feed(std::span<const uint8_t> bytes) {
    if (kind_ == Compression::kNone) return bytes.empty() ? OkStatus() : sink_(bytes);
    return kind_ == Compression::kGzip ? FeedGzip(bytes) : FeedZstd(bytes);
  }

  Status FeedGzip(std::span<const uint8_t> bytes) {
    for (bool full = false; !bytes.empty() || full;) {
      const size_t before = bytes.size();
      HR_ASSIGN_OR_RETURN(const size_t got, gzip_->DecodeMember(bytes, buffer_));
      const size_t taken = before - bytes.size();
      place_.blob_offset += taken;
      HR_RETURN_IF_ERROR(PassOn(got));
      if (got == 0 && taken == 0) break;
      at_boundary_ = gzip_->at_boundary();
      if (at_boundary_ && on_boundary_) on_boundary_(place_);
      full = got == buffer_.size() && !at_boundary_;
    }
    return OkStatus();
  }

  Status FeedZstd(std::span<const uint8_t> bytes) {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    for (bool full = false; in.pos < in.size || full;) {
      ZSTD_outBuffer out{buffer_.data(), buffer_.size(), 0};
      const size_t before = in.pos;
      const size_t rc = ZSTD_decompressStream(zstd_.get(), &out, &in);
      if (ZSTD_isError(rc) != 0) return DataLossError(std::string("zstd: ") + ZSTD_getErrorName(rc));
      place_.blob_offset += in.pos - before;
      HR_RETURN_IF_ERROR(PassOn(out.pos));
      at_boundary_ = rc == 0;
      if (at_boundary_ && on_boundary_) on_boundary_(place_);
      full = out.pos == out.size && !at_boundary_;
    }
    return OkStatus();
  }

  Status PassOn(size_t n) {
    place_.decoded_offset += n;
    return n == 0 ? OkStatus() : sink_(std::span<const uint8_t>(buffer_).first(n));
  }

  const Sink sink_;
  const OnBoundary on_boundary_;
  SeekPoint place_;  // what was taken and passed on
  Compression kind_ = Compression::kUnknown;
  std::string head_;
  bool at_boundary_ = true;  // between members or frames: the input may end here
  std::unique_ptr<Gunzip> gzip_;
  std::unique_ptr<ZSTD_DCtx, DctxDeleter> zstd_;
  std::vector<uint8_t> buffer_;
  Status failed_;
};

}  // namespace

std::unique_ptr<Decompressor> Decompressor::Create(Sink sink, OnBoundary on_boundary) {
  return std::make_unique<DecompressorImpl>(std::move(sink), std::move(on_boundary));
}

}  // namespace headrace::format
