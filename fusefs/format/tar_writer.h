// TarWriter: entries in, an uncompressed tar out. The counterpart of tar_reader.h; used by `headrace build` and by tests.
//
// Format: POSIX ustar; a PAX extended header stands before an entry only where ustar cannot say it (pax(1) of POSIX.1-2017):
// a name that has no prefix split, UTF-8 outside ASCII, a size of 8 GiB or more, uid or gid above 2^21-1, a time before 1970 or with
// nanoseconds, extended attributes (SCHILY.xattr.<name>, the raw value). The same calls give the same bytes: no clock, no user
// names. Names are clean (layer_index.h); directories get their trailing '/' here; the root (empty name) is written as "./".
// Used by one thread; blocks only in the sink. Memory: one header.
// Errors: InvalidArgument (an entry that a tar cannot hold), FailedPrecondition (more or fewer bytes than the entry's size),
// and whatever the sink returns.
#ifndef HEADRACE_FUSEFS_FORMAT_TAR_WRITER_H_
#define HEADRACE_FUSEFS_FORMAT_TAR_WRITER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"

namespace headrace::format {

class TarWriter {
 public:
  using Sink = std::function<Status(std::span<const uint8_t>)>;
  explicit TarWriter(Sink sink) : sink_(std::move(sink)) {}

  // Starts an entry. Digests and chunks of `entry` are not looked at. A regular file is followed by Data() calls of `entry.size`
  // bytes altogether.
  Status Add(const Entry& entry);
  Status Data(std::span<const uint8_t> bytes);
  // The two zero blocks at the end. No call may follow.
  Status Finish();

 private:
  Status CloseEntry();
  Status WritePax(const std::map<std::string, std::string>& records, const Entry& entry);

  Sink sink_;
  std::string current_;         // name of the entry that is being written, for messages
  uint64_t data_left_ = 0;      // bytes of it that must still come
  uint64_t padding_ = 0;        // zero bytes after it
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_TAR_WRITER_H_
