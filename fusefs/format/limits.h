// Bounds on everything that a layer may ask of its reader. Whatever is above a limit is ResourceExhausted, before memory is taken.
#ifndef HEADRACE_FUSEFS_FORMAT_LIMITS_H_
#define HEADRACE_FUSEFS_FORMAT_LIMITS_H_

#include <cstdint>

namespace headrace::format::limits {

// Table of contents: containers/storage refuses above 150 MiB, compressed and uncompressed; so do we, reading and writing.
inline constexpr uint64_t kTocSizeMax = 150ull << 20;
// Entries of a table of contents (about 300 bytes of memory each), and chunks (80 bytes each).
inline constexpr uint64_t kEntriesMax = 2ull << 20;
inline constexpr uint64_t kChunksMax = 4ull << 20;
// Levels of JSON nesting: the format has 4 (document, entries, entry, xattrs); unknown fields may be deeper.
inline constexpr int kJsonDepthMax = 32;

inline constexpr uint64_t kNameMax = 4096;      // PATH_MAX
inline constexpr uint64_t kComponentMax = 255;  // NAME_MAX
inline constexpr uint64_t kSymlinkMax = 4095;   // what symlink(2) takes
// xattr(7): value and list of names are at most 64 KiB each, a name is at most 255 bytes.
inline constexpr uint64_t kXattrNameMax = 255;
inline constexpr uint64_t kXattrValueMax = 65536;
inline constexpr uint64_t kXattrListMax = 65536;

// Sizes and offsets of files and blobs: far above what exists, far below what overflows when added up.
inline constexpr uint64_t kFileSizeMax = 1ull << 60;
inline constexpr uint64_t kBlobSizeMax = 1ull << 60;

// Decoded size of one stored chunk: a reader needs such a buffer.
inline constexpr uint64_t kChunkSizeMax = 64ull << 20;
// Compressed size of a stored chunk of `size` bytes: zstd's own bound is size + size/256 + a little; other writers cut finer.
constexpr uint64_t ChunkBlobSizeMax(uint64_t size) { return size + size / 32 + (64u << 10); }

// Chunk size that the writer takes.
// The head of a large file is in small chunks (layer_writer.cc), which readers fetch side by side (stream/content.cc).
inline constexpr uint64_t kHeadBytes = 1ull << 20;
inline constexpr uint64_t kWriterChunkSizeMin = 64ull << 10;
inline constexpr uint64_t kWriterChunkSizeMax = 16ull << 20;

// Tar: data of one PAX or GNU long-name header (Go's archive/tar: 1 MiB), regions of one sparse file.
inline constexpr uint64_t kTarSpecialSizeMax = 1ull << 20;
inline constexpr uint64_t kTarSparseRegionsMax = 1ull << 20;
// Compressed tar-split that the writer keeps in memory.
inline constexpr uint64_t kTarSplitSizeMax = 1ull << 30;

// zstd seekable format: frames of a table.
inline constexpr uint64_t kSeekTableFramesMax = 0x8000000;
// Places where a blob without a table may be entered (16 bytes of memory each): a megabyte apart for blobs up to 64 GiB, further in larger ones.
inline constexpr uint64_t kSeekPointsMax = 64u << 10;
// Window of a zstd stream that the decompressor of conversions takes (zstd's own default limit).
inline constexpr int kDecompressWindowLogMax = 27;

}  // namespace headrace::format::limits

#endif  // HEADRACE_FUSEFS_FORMAT_LIMITS_H_
