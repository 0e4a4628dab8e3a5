// LayerIndex: what a layer holds, as a value: its entries (files, directories, links, whiteouts) and the chunks that their bytes
// are in. Made from a verified table of contents (toc.h) or by walking a tar (tar_reader.h); used by tree/ (structure) and stream/ (bytes).
//
// Immutable after it was made; shared freely between threads. Every field that came from outside was checked by the maker:
//   * names are clean relative paths: no leading or trailing '/', no empty, "." or ".." component, each component <= 255 bytes,
//     the whole <= 4096 bytes, no NUL. The root directory is the entry with the empty name, if the layer has one;
//   * hard links point (by `link_target`, a clean name) to a name; whether that exists is tree/'s question;
//   * a regular file's chunks cover [0, size) without gap or overlap, in order; every stored chunk lies inside the blob;
//   * counts and sizes are within limits.h of this folder.
#ifndef HEADRACE_FUSEFS_FORMAT_LAYER_INDEX_H_
#define HEADRACE_FUSEFS_FORMAT_LAYER_INDEX_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/seek_point.h"

namespace headrace::format {

enum class EntryType : uint8_t { kRegular, kDirectory, kSymlink, kHardlink, kCharDevice, kBlockDevice, kFifo };

enum class ChunkKind : uint8_t {
  kStored,  // at [blob_offset, blob_offset + blob_size), in the chunk's codec
  kZeros,   // `size` zero bytes; nothing in the blob
};

// How a stored chunk stands in the blob.
enum class Codec : uint8_t {
  kZstd,  // one zstd frame, or several, one after the other (RFC 8878)
  kGzip,  // one gzip member (RFC 1952): eStargz
  kRaw,   // its bytes as they are: plain tar, and what a stream decodes to (BlobRef::decoded)
};

struct Chunk {
  uint64_t file_offset = 0;  // where its bytes stand in the file
  uint64_t size = 0;         // decoded bytes, 1 .. limits::kChunkSizeMax (kZeros: any)
  uint64_t blob_offset = 0;
  uint64_t blob_size = 0;    // compressed bytes
  ChunkKind kind = ChunkKind::kStored;
  Codec codec = Codec::kZstd;
  uint32_t inner_offset = 0;  // decoded bytes that stand before it in its frame or member (eStargz packs small files together)
  Digest digest;             // SHA-256 of the decoded bytes; never empty for kStored
};

struct Entry {
  EntryType type = EntryType::kRegular;
  std::string name;
  std::string link_target;   // symlink: as written; hard link: clean name within the layer
  uint32_t mode = 0;         // permission bits with setuid, setgid and sticky (07777); no type bits
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t dev_major = 0;
  uint32_t dev_minor = 0;
  int64_t mtime_s = 0;
  uint32_t mtime_ns = 0;
  uint64_t size = 0;         // regular files only
  Digest file_digest;        // of the whole file, where the format has one; empty otherwise
  uint32_t first_chunk = 0;  // chunks[first_chunk, first_chunk + chunk_count)
  uint32_t chunk_count = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;  // name, raw value
};

struct LayerIndex {
  std::vector<Entry> entries;  // in the order of the table of contents: the position is half of the node id, for ever
  std::vector<Chunk> chunks;
  uint64_t blob_size = 0;      // compressed layer, for range checks
  SeekPoints seek_points;      // of a learned table: where the decoding of the blob may begin; may be empty
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_LAYER_INDEX_H_
