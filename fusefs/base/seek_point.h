// SeekPoint: a place where the decoding of a compressed blob may begin: the start of a zstd frame or of a gzip member. A value.
// The start of the blob, {0, 0}, is always one and is not listed.
#ifndef HEADRACE_FUSEFS_BASE_SEEK_POINT_H_
#define HEADRACE_FUSEFS_BASE_SEEK_POINT_H_

#include <cstdint>
#include <vector>

namespace headrace {

struct SeekPoint {
  uint64_t blob_offset = 0;
  uint64_t decoded_offset = 0;  // of what the blob decodes to
  bool operator==(const SeekPoint&) const = default;
};

using SeekPoints = std::vector<SeekPoint>;  // both offsets ascend

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_SEEK_POINT_H_
