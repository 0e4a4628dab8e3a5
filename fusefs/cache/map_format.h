// The bytes of a presence map (README.md of this folder is the specification). Pure: bytes in, values out; any thread.
#ifndef HEADRACE_FUSEFS_CACHE_MAP_FORMAT_H_
#define HEADRACE_FUSEFS_CACHE_MAP_FORMAT_H_

#include <sys/stat.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "fusefs/cache/content_file.h"

namespace headrace::cache {

inline constexpr uint32_t kMapVersion = 1;
inline constexpr size_t kMapHeaderSize = 128;
inline constexpr size_t kMapSealSize = 64;
inline constexpr size_t kMapSealOffset = kMapHeaderSize;
inline constexpr size_t kMapMarksOffset = kMapHeaderSize + kMapSealSize;
inline constexpr size_t kMapMarkSize = 8;

using MapHeader = std::array<uint8_t, kMapHeaderSize>;
using MapSeal = std::array<uint8_t, kMapSealSize>;

inline constexpr uint64_t MapSize(uint32_t chunk_count) {
  return kMapMarksOffset + uint64_t{chunk_count} * kMapMarkSize;
}

MapHeader EncodeHeader(const ContentSpec& spec);
// True if `bytes` is the header of exactly this content, in this version, undamaged. The file digest is not compared.
bool HeaderMatches(std::span<const uint8_t, kMapHeaderSize> bytes, const ContentSpec& spec);

DataIdentity IdentityOf(const struct stat& st);
// What the file takes on the disk.
inline int64_t DiskBytes(const struct stat& st) { return static_cast<int64_t>(st.st_blocks) * 512; }

MapSeal EncodeSeal(const ContentSpec& spec, const DataIdentity& data);
// A seal of this content, whose data file is still what it was when it was sealed.
bool SealMatches(std::span<const uint8_t, kMapSealSize> bytes, const ContentSpec& spec, const DataIdentity& data);
// There is no seal, not even a damaged or outdated one.
bool SealIsAbsent(std::span<const uint8_t, kMapSealSize> bytes);

// What the marks of a content are made from.
uint64_t MarkSeed(const Digest& id);
// The value that says "chunk `index` was verified when it was written"; never 0.
uint64_t MarkOf(uint64_t seed, uint32_t index);

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_MAP_FORMAT_H_
