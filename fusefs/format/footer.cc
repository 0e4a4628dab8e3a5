#include "fusefs/format/footer.h"

#include "fusefs/format/bytes.h"
#include "fusefs/format/seek_table.h"

namespace headrace::format {
namespace {

constexpr std::string_view kMagic = "GNUlInUx";
constexpr uint64_t kManifestTypeCrfs = 1;

bool Inside(uint64_t offset, uint64_t size, uint64_t blob_size) {
  return offset >= kSkippableHeaderSize && offset <= blob_size && size <= blob_size - offset;
}

}  // namespace

Result<ChunkedFooter> ChunkedFooter::Parse(std::span<const uint8_t> bytes, uint64_t blob_size) {
  if (bytes.size() != kSize || AsText(bytes.subspan(56)) != kMagic) {
    return InvalidArgumentError("no zstd:chunked footer");
  }
  const auto field = [&](size_t i) { return LoadLe64(&bytes[8 * i]); };
  if (field(3) != kManifestTypeCrfs) {
    return InvalidArgumentError("zstd:chunked footer: manifest type " + std::to_string(field(3)) + " is unknown");
  }
  ChunkedFooter out{field(0), field(1), field(2), field(4), field(5), field(6)};
  const bool has_split = out.tar_split_offset != 0 || out.tar_split_compressed_size != 0;
  if (!Inside(out.toc_offset, out.toc_compressed_size, blob_size) ||
      (has_split && !Inside(out.tar_split_offset, out.tar_split_compressed_size, blob_size))) {
    return InvalidArgumentError("zstd:chunked footer: points outside the blob");
  }
  return out;
}

Result<ChunkedFooter> ChunkedFooter::Find(std::span<const uint8_t> tail, uint64_t blob_size, uint64_t& wanted) {
  constexpr uint64_t kFrameSize = kSkippableHeaderSize + kSize;
  wanted = 0;
  uint64_t behind = 0;
  if (tail.size() >= SeekTable::kFooterSize) {
    auto table = SeekTable::FrameSize(tail.last(SeekTable::kFooterSize));
    if (table.ok()) behind = *table;
  }
  if (tail.size() < behind + kFrameSize) {
    if (tail.size() >= blob_size) return InvalidArgumentError("no zstd:chunked footer");
    wanted = behind + kFrameSize;
    return OutOfRangeError("the last " + std::to_string(wanted) + " bytes of the blob are wanted");
  }
  std::span<const uint8_t> frame = tail.first(tail.size() - behind).last(kFrameSize);
  if (LoadLe32(&frame[0]) != kSkippableMagicChunked || LoadLe32(&frame[4]) != kSize) {
    return InvalidArgumentError("no zstd:chunked footer");
  }
  return Parse(frame.last(kSize), blob_size);
}

std::string ChunkedFooter::Serialize() const {
  std::string out;
  for (uint64_t v : {toc_offset, toc_compressed_size, toc_uncompressed_size, kManifestTypeCrfs,
                     tar_split_offset, tar_split_compressed_size, tar_split_uncompressed_size}) {
    AppendLe64(out, v);
  }
  return out.append(kMagic);
}

}  // namespace headrace::format
