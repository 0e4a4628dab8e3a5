#include "fusefs/format/seek_table.h"

#include "fusefs/format/bytes.h"
#include "fusefs/format/limits.h"

namespace headrace::format {
namespace {

constexpr uint32_t kFooterMagic = 0x8F92EAB1;
constexpr uint32_t kFrameDecompressedMax = 0x40000000;  // 1 GiB

struct Footer {
  uint64_t frames;
  bool checksums;
  uint64_t EntriesSize() const { return frames * (checksums ? 12 : 8); }
};

Result<Footer> ParseFooter(std::span<const uint8_t> bytes) {
  if (bytes.size() != SeekTable::kFooterSize || LoadLe32(&bytes[5]) != kFooterMagic) {
    return InvalidArgumentError("seek table: no footer");
  }
  const uint8_t descriptor = bytes[4];
  if ((descriptor & 0x7c) != 0) return InvalidArgumentError("seek table: reserved bits are set");
  Footer footer{LoadLe32(&bytes[0]), (descriptor & 0x80) != 0};
  if (footer.frames > limits::kSeekTableFramesMax) {
    return ResourceExhaustedError("seek table: " + std::to_string(footer.frames) + " frames");
  }
  return footer;
}

}  // namespace

Result<uint64_t> SeekTable::FrameSize(std::span<const uint8_t> footer) {
  HR_ASSIGN_OR_RETURN(Footer f, ParseFooter(footer));
  return kSkippableHeaderSize + f.EntriesSize() + kFooterSize;
}

Result<SeekTable> SeekTable::Parse(std::span<const uint8_t> frame, uint64_t blob_size) {
  if (frame.size() < kSkippableHeaderSize + kFooterSize) return InvalidArgumentError("seek table: too short");
  HR_ASSIGN_OR_RETURN(Footer footer, ParseFooter(frame.last(kFooterSize)));
  if (frame.size() != kSkippableHeaderSize + footer.EntriesSize() + kFooterSize || frame.size() > blob_size) {
    return InvalidArgumentError("seek table: size of the frame and number of entries differ");
  }
  if (LoadLe32(&frame[0]) != kSkippableMagicSeek || LoadLe32(&frame[4]) != frame.size() - kSkippableHeaderSize) {
    return InvalidArgumentError("seek table: wrong frame header");
  }
  SeekTable table;
  table.frames.reserve(footer.frames);
  uint64_t total = frame.size();
  const uint8_t* p = &frame[kSkippableHeaderSize];
  for (uint64_t i = 0; i < footer.frames; ++i) {
    SeekFrame out{LoadLe32(p), LoadLe32(p + 4), std::nullopt};
    p += 8;
    if (footer.checksums) {
      out.checksum = LoadLe32(p);
      p += 4;
    }
    if (out.compressed_size == 0 || out.decompressed_size > kFrameDecompressedMax) {
      return InvalidArgumentError("seek table: frame " + std::to_string(i) + " has an impossible size");
    }
    total += out.compressed_size;
    table.frames.push_back(out);
  }
  if (total != blob_size) {
    return InvalidArgumentError("seek table: frames add up to " + std::to_string(total) + " bytes, the blob has " +
                                std::to_string(blob_size));
  }
  return table;
}

Result<std::string> SeekTable::Serialize() const {
  const uint64_t size = frames.size() * 8 + kFooterSize;
  if (frames.size() > limits::kSeekTableFramesMax || size > UINT32_MAX) {
    return ResourceExhaustedError("seek table of " + std::to_string(frames.size()) +
                                  " frames; build the layer with larger chunks");
  }
  std::string out = SkippableHeader(kSkippableMagicSeek, static_cast<uint32_t>(size));
  out.reserve(kSkippableHeaderSize + size);
  for (const SeekFrame& frame : frames) {
    AppendLe32(out, frame.compressed_size);
    AppendLe32(out, frame.decompressed_size);
  }
  AppendLe32(out, static_cast<uint32_t>(frames.size()));
  out.push_back(0);  // descriptor: no checksums
  AppendLe32(out, kFooterMagic);
  return out;
}

}  // namespace headrace::format
