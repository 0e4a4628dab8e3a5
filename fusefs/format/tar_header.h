// One entry of a tar archive as a value, and the pieces that make one: header blocks, PAX records, GNU sparse maps.
// Formats read: V7, POSIX ustar and PAX (POSIX.1-2017, pax), GNU (tar manual, "Basic Tar Format"), star. What a reader of containers
// makes of them follows Go's archive/tar, because that is what containerd and containers/storage unpack with.
// Pure functions; errors are InvalidArgument or ResourceExhausted.
#ifndef HEADRACE_FUSEFS_FORMAT_TAR_HEADER_H_
#define HEADRACE_FUSEFS_FORMAT_TAR_HEADER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fusefs/base/status.h"

namespace headrace::format {

inline constexpr uint64_t kTarBlock = 512;

struct TarTime {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
  bool operator==(const TarTime&) const = default;
};

struct SparseRegion {  // bytes of the file that the archive has; between them are zeros
  uint64_t offset = 0;
  uint64_t size = 0;
};

struct TarEntry {
  char type = '0';         // type flag; '\0' is turned into '0' or '5', old GNU sparse 'S' stays
  std::string name;        // as the archive has it: "./a/", "/a", ...
  std::string link_target; // as the archive has it
  int64_t mode = 0;
  int64_t uid = 0;
  int64_t gid = 0;
  int64_t dev_major = 0;
  int64_t dev_minor = 0;
  TarTime mtime;
  std::optional<TarTime> atime;
  std::optional<TarTime> ctime;
  uint64_t size = 0;         // of the file
  uint64_t stored_size = 0;  // bytes of content in the archive: size, or less if the file is sparse, 0 if the type has none
  bool is_sparse = false;
  std::vector<SparseRegion> sparse;  // ascending, within [0, size); sizes add up to stored_size
  std::vector<std::pair<std::string, std::string>> xattrs;  // sorted by name; raw values

  bool IsRegular() const { return type == '0' || type == '7' || type == 'S'; }
};

using PaxRecords = std::map<std::string, std::string>;

// `block` has 512 bytes and is not all zeros. Only what the block says; `size` is the number in the header.
Result<TarEntry> ParseTarBlock(std::span<const uint8_t> block);
// The data of an 'x' header. "GNU.sparse.offset/numbytes" pairs become one "GNU.sparse.map".
Result<PaxRecords> ParsePax(std::string_view data);
// Puts the records into the entry (not the sparse ones).
Status ApplyPax(const PaxRecords& records, TarEntry& entry);

enum class PaxSparse { kNone, kMapInRecords, kMapInData };
// Which GNU sparse format the records declare, applying the real name and size to the entry.
Result<PaxSparse> ApplyPaxSparse(const PaxRecords& records, TarEntry& entry);
// Map of formats 0.0 and 0.1: "offset,size,offset,size".
Status ParseSparseMapText(std::string_view map, char separator, TarEntry& entry);
// Old GNU format: regions in a header (`block` of 512 bytes, `extension` for those after the first); sets `more`.
Status ParseOldGnuSparse(std::span<const uint8_t> block, bool extension, TarEntry& entry, bool& more);
// Regions ascend, lie in the file and add up to stored_size.
Status CheckSparse(const TarEntry& entry);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_TAR_HEADER_H_
