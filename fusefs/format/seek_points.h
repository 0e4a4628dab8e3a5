// Seek points of a compressed blob that has no table of contents: chosen while it is decoded, kept as a line of text with the table that is learned.
// Values; one thread; CPU only. Errors: DataLoss (not a list of points).
#ifndef HEADRACE_FUSEFS_FORMAT_SEEK_POINTS_H_
#define HEADRACE_FUSEFS_FORMAT_SEEK_POINTS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "fusefs/base/seek_point.h"
#include "fusefs/base/status.h"

namespace headrace::format {

// Keeps those of the boundaries it is told that are a megabyte apart or more; when there are too many (limits.h), twice as far apart.
class SeekPointCollector {
 public:
  // In ascending order.
  void Add(SeekPoint boundary);
  // Those at which something is left to decode.
  SeekPoints Below(uint64_t decoded_size) const;

 private:
  bool FarEnough(const SeekPoint& point, const SeekPoint& before) const { return point.decoded_offset - before.decoded_offset >= apart_; }

  SeekPoints points_;
  uint64_t apart_ = 1ull << 20;  // a reader of one chunk (4 MiB) decodes hardly more than it needs
};

// " <blob offset>:<decoded offset>" for each, as differences to the one before.
std::string WriteSeekPoints(const SeekPoints& points);
// Ascending, the decoded offsets below `decoded_size`, no more than may be. DataLoss otherwise.
Result<SeekPoints> ReadSeekPoints(std::string_view text, uint64_t decoded_size);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_SEEK_POINTS_H_
