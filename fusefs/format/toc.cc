#include "fusefs/format/toc.h"

#include <zstd.h>

#include <array>
#include <chrono>
#include <string>

#include "fusefs/base/sha256_lane.h"
#include "fusefs/base/text.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/chunk_codec.h"
#include "fusefs/format/limits.h"
#include "fusefs/format/zstd_frame.h"

namespace headrace::format {
namespace {

Status CheckLocation(const TocLocation& location) {
  if (location.digest.empty()) return InvalidArgumentError("TOC location has no digest");
  if (location.compressed_size == 0 || location.uncompressed_size == 0) {
    return InvalidArgumentError("TOC location has an empty table");
  }
  if (location.compressed_size > limits::kTocSizeMax || location.uncompressed_size > limits::kTocSizeMax) {
    return ResourceExhaustedError(
        "table of contents is too large (" + HumanBytes(location.compressed_size) + " compressed, " +
        HumanBytes(location.uncompressed_size) + " uncompressed; the limit is " +
        HumanBytes(limits::kTocSizeMax) + "); build the layer with larger chunks");
  }
  if (location.blob_size > limits::kBlobSizeMax || location.offset < kSkippableHeaderSize ||
      location.offset > location.blob_size ||
      location.compressed_size > location.blob_size - location.offset) {
    return InvalidArgumentError("TOC location is outside the blob: offset " +
                                std::to_string(location.offset) + ", " +
                                std::to_string(location.compressed_size) + " bytes, blob of " +
                                std::to_string(location.blob_size));
  }
  return OkStatus();
}

}  // namespace

Result<TocLocation> TocLocation::Parse(std::string_view text) {
  if (text.size() > 512) return InvalidArgumentError("TOC location is too long");
  std::vector<std::string_view> parts = Split(text, ',');
  if (parts.empty() || parts[0] != "v1") {
    return InvalidArgumentError("TOC location of an unknown version: '" + std::string(text) + "'");
  }
  if (parts.size() != 6) return InvalidArgumentError("malformed TOC location: '" + std::string(text) + "'");
  TocLocation out;
  HR_ASSIGN_OR_RETURN(out.digest, Digest::Parse(parts[1]));
  uint64_t* const numbers[] = {&out.offset, &out.compressed_size, &out.uncompressed_size, &out.blob_size};
  for (size_t i = 0; i < 4; ++i) {
    HR_ASSIGN_OR_RETURN(*numbers[i], ParseU64(parts[i + 2]));
  }
  HR_RETURN_IF_ERROR(CheckLocation(out));
  return out;
}

std::string TocLocation::ToString() const {
  return "v1," + digest.ToString() + "," + std::to_string(offset) + "," + std::to_string(compressed_size) +
         "," + std::to_string(uncompressed_size) + "," + std::to_string(blob_size);
}

Result<LayerIndex> ReadToc(std::span<const uint8_t> compressed, const TocLocation& location) {
  HR_RETURN_IF_ERROR(CheckLocation(location));
  if (compressed.size() != location.compressed_size) {
    return DataLossError("table of contents has " + std::to_string(compressed.size()) + " bytes, should be " +
                         std::to_string(location.compressed_size));
  }
  Digest actual = Digest::Of(compressed);
  if (actual != location.digest) {
    return DataLossError("table of contents has digest " + actual.ToString() + ", should be " +
                         location.digest.ToString());
  }
  std::string json;
  try {
    json.resize(location.uncompressed_size);
  } catch (const std::bad_alloc&) {
    return ResourceExhaustedError("no memory for the table of contents");
  }
  Status decoded = DecodeFrames(compressed, {reinterpret_cast<uint8_t*>(json.data()), json.size()});
  // Its digest is right: what is wrong now was written so.
  if (!decoded.ok()) return InvalidArgumentError("table of contents: " + decoded.message());
  return ParseTocJson(json, location.offset - kSkippableHeaderSize, location.blob_size);
}

namespace {

Status DecodeUnverified(const Chunk& chunk, std::span<const uint8_t> compressed, std::span<uint8_t> out) {
  if (chunk.kind != ChunkKind::kStored || chunk.size != out.size() || chunk.size > limits::kChunkSizeMax) {
    return InternalError("DecodeChunk: buffer of " + std::to_string(out.size()) + " bytes for a chunk of " +
                         std::to_string(chunk.size));
  }
  if (compressed.size() != chunk.blob_size) {
    return DataLossError("chunk has " + std::to_string(compressed.size()) + " compressed bytes, should be " +
                         std::to_string(chunk.blob_size));
  }
  return DecodeStored(chunk.codec, chunk.inner_offset, compressed, out).Annotate("chunk");
}

Status CompareDigest(const Chunk& chunk, const Digest& actual) {
  if (actual == chunk.digest) return OkStatus();
  return DataLossError("chunk has digest " + actual.ToString() + ", should be " + chunk.digest.ToString());
}

}  // namespace

Status DecodeChunk(const Chunk& chunk, std::span<const uint8_t> compressed, std::span<uint8_t> out, ChunkTimes* times) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  HR_RETURN_IF_ERROR(DecodeUnverified(chunk, compressed, out));
  const Clock::time_point decoded = Clock::now();
  const Digest actual = Digest::Of(std::span<const uint8_t>(out));
  if (times != nullptr) *times = {(decoded - start).count(), (Clock::now() - decoded).count()};
  return CompareDigest(chunk, actual);
}

void DecodeChunkPair(ChunkToDecode& a, ChunkToDecode& b, ChunkTimes* times) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  for (ChunkToDecode* one : {&a, &b}) one->status = DecodeUnverified(*one->chunk, one->compressed, one->out);
  const Clock::time_point decoded = Clock::now();
  if (a.status.ok() && b.status.ok()) {
    const std::array<Digest, 2> actual = DigestsOfTwo(a.out, b.out);
    a.status = CompareDigest(*a.chunk, actual[0]);
    b.status = CompareDigest(*b.chunk, actual[1]);
  } else {
    for (ChunkToDecode* one : {&a, &b}) {
      if (one->status.ok()) one->status = CompareDigest(*one->chunk, Digest::Of(std::span<const uint8_t>(one->out)));
    }
  }
  if (times != nullptr) *times = {(decoded - start).count(), (Clock::now() - decoded).count()};
}

}  // namespace headrace::format
