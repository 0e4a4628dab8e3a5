// Neighbours: which small files are worth fetching before they are opened. Who walks a tree opens one small file after the other, in about the order of the
// archive, and waits a round trip for each; so the files behind an opened one are asked for as well: twice as many each time the guess was right, fewer when it was not.
// Pure bookkeeping, no I/O. Not thread-safe: the planner's thread. Internal to stream/.
// Limits: kAheadMax files and kAheadBytes decoded bytes ahead of an opened file; kQueueMax files that wait to be planned.
#ifndef HEADRACE_FUSEFS_STREAM_NEIGHBOURS_H_
#define HEADRACE_FUSEFS_STREAM_NEIGHBOURS_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "fusefs/base/digest.h"
#include "fusefs/stream/image_files.h"

namespace headrace::stream {

class Neighbours {
 public:
  static constexpr uint32_t kAheadFirst = 4;
  static constexpr uint32_t kAheadMax = 128;
  static constexpr uint64_t kAheadBytes = 8ull << 20;
  // An open so many entries from the last one, on either side, goes on with the same walk.
  static constexpr uint32_t kNear = 256;
  static constexpr size_t kQueueMax = 1024;

  explicit Neighbours(uint64_t small_bytes) : small_bytes_(small_bytes) {}

  // A small file was opened.
  void Opened(const FilePlace& place);
  // The next file to be fetched before anybody opens it.
  std::optional<FilePlace> Take();
  // Nothing of this layer any more.
  void Drop(const Digest& blob);

 private:
  struct Walk {
    uint32_t last = 0;
    uint32_t planned = 0;  // entries below were planned, or opened
    uint32_t ahead = 0;
  };
  const uint64_t small_bytes_;
  std::map<Digest, Walk> walks_;  // by blob: one for each attached layer that was looked at
  std::deque<FilePlace> queue_;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_NEIGHBOURS_H_
