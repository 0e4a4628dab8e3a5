// The table of contents of a zstd:chunked layer: where it is, and reading it into a LayerIndex. Pure: bytes in, values out; no I/O.
// Format: fusefs/format/README.md (after containers-libs' zstd:chunked, version 1). Any thread; CPU only.
// Everything here is hostile until its digest matched, and bounded even then (limits.h): errors are InvalidArgument (malformed),
// ResourceExhausted (over a limit), DataLoss (digest mismatch).
#ifndef HEADRACE_FUSEFS_FORMAT_TOC_H_
#define HEADRACE_FUSEFS_FORMAT_TOC_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"

namespace headrace::format {

// The one annotation that containerd hands to a snapshotter whatever its configuration (prefix containerd.io/snapshot/).
inline constexpr std::string_view kTocLabel = "containerd.io/snapshot/headrace.toc";

// The same way: "off" asks that nothing of the layer is fetched in the background.
inline constexpr std::string_view kFillLabel = "containerd.io/snapshot/headrace.fill";
inline constexpr std::string_view kFillOff = "off";

struct TocLocation {
  Digest digest;               // of the compressed TOC
  uint64_t offset = 0;         // in the blob, past the 8-byte header of the skippable frame
  uint64_t compressed_size = 0;
  uint64_t uncompressed_size = 0;
  uint64_t blob_size = 0;

  // "v1,<digest>,<offset>,<compressed size>,<uncompressed size>,<blob size>"
  static Result<TocLocation> Parse(std::string_view text);
  std::string ToString() const;
};

// Verifies `compressed` against location.digest, decompresses it (never above the stated size) and reads it.
Result<LayerIndex> ReadToc(std::span<const uint8_t> compressed, const TocLocation& location);

// Who writes such JSON. Chunks are zstd frames with their ends told, or gzip members that end where the next one begins (estargz.h), or the tar's own
// bytes (tar_indexer.h).
enum class TocDialect : uint8_t { kZstdChunked, kEstargz, kLearned };

// Reads the JSON of a TOC (already verified). Two entries of one name (after cleaning) are refused, as are all other things of
// README.md, "What is read"; errors name the entry. `data_end`: chunks must end at or before this offset of the blob.
Result<LayerIndex> ParseTocJson(std::string_view json, uint64_t data_end, uint64_t blob_size,
                                TocDialect dialect = TocDialect::kZstdChunked);

// What a chunk cost a core, in nanoseconds.
struct ChunkTimes {
  int64_t decode_ns = 0;
  int64_t hash_ns = 0;
};

// Decodes one stored chunk and verifies its digest. `out` has exactly chunk.size bytes; on error its content is not to be used.
// A chunk that stands in a frame or member with others (inner_offset) is decoded as far as its own end.
// DataLoss: the frame or member is damaged, has another size, or the digest differs.
Status DecodeChunk(const Chunk& chunk, std::span<const uint8_t> compressed, std::span<uint8_t> out,
                   ChunkTimes* times = nullptr);

// Two chunks on one thread: their digests are computed side by side, which takes hardly longer than one does.
struct ChunkToDecode {
  const Chunk* chunk = nullptr;
  std::span<const uint8_t> compressed;
  std::span<uint8_t> out;
  Status status;  // as DecodeChunk's, set by DecodeChunkPair
};
void DecodeChunkPair(ChunkToDecode& a, ChunkToDecode& b, ChunkTimes* times = nullptr);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_TOC_H_
