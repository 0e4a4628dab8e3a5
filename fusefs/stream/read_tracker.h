// ReadTracker: how one file is being read: its forward cursors (several readers, or one that hops between regions, each with its own), and how far
// the planner is ahead of each. Says when a file deserves to be fetched whole. Internal to stream/.
// Threads: any; one small lock of its own, a leaf (taken under Content::mu_ at times).
#ifndef HEADRACE_FUSEFS_STREAM_READ_TRACKER_H_
#define HEADRACE_FUSEFS_STREAM_READ_TRACKER_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/stream/read_op.h"

namespace headrace::stream {

// What the name of a file tells about how it will be read.
enum class FileKind : uint8_t {
  kPlain,    // fetched whole once it is read forward or in many places
  kWeights,  // *.bin, *.pt...: as plain, and its like in the same directory are next
  kModel,    // safetensors, GGUF: read whole by everybody: fetched whole from the first touch, its like next
};
FileKind KindOf(std::string_view name);

class ReadTracker {
 public:
  static constexpr size_t kCursorsMax = 32;
  static constexpr size_t kRetiredMax = 256;

  explicit ReadTracker(uint64_t size) : size_(size) {}

  // A read of [offset, offset + size). True once: the file deserves to be fetched whole from now on.
  bool OnRead(FileKind kind, uint64_t offset, uint64_t size, TimePoint now);
  // The next OnRead that qualifies says true again.
  void ForgetWhole();

  // Bytes between where the least served cursor reads and what is planned for it.
  uint64_t Lead() const;
  size_t cursors() const {
    MutexLock lock(mu_);
    return cursors_.size();
  }
  // Read beyond its head lately: served before files of which only the head was looked at.
  bool Active(TimePoint now) const;

  // Where planning goes on: the plan position of the least served cursor, or the first hole that cursors left (unless those are to be left); size() if nothing is left.
  uint64_t NextPosition();
  // All of [from, to) is on its way or here, where `from` is what NextPosition gave.
  void Planned(uint64_t from, uint64_t to);
  // What one reader has behind it and none is about to read: [begin, end) of the file, the foremost that begins at `from` or later; nothing if there is no more.
  // The same again until GaveBack.
  struct Part {
    uint64_t begin = 0, end = 0;
  };
  std::optional<Part> Behind(uint64_t from) const;
  // [from, to) was looked at, where `from` is a begin that Behind gave; or nothing is said of a part, and only this: what was read is not here any more, and nobody wants it again.
  void GaveBack(uint64_t from, uint64_t to);
  void LeaveHoles();
  // What is at `offset` was planned and did not come.
  void Rewind(uint64_t offset);

 private:
  struct Cursor {
    uint64_t begin = 0;  // of the stream, for how much was read in one go
    uint64_t read = 0;   // the next byte of the reader
    uint64_t plan = 0;   // the next byte to plan; >= read
    uint64_t stamp = 0;  // of its last read
    uint64_t given = 0;  // what it has behind it is here from there on; >= begin
  };
  Cursor& CursorFor(uint64_t offset, uint64_t end) HR_REQUIRES(mu_);
  Cursor* LeastServed() HR_REQUIRES(mu_);
  // Beyond what others have read already and is not here any more.
  uint64_t SkipRead(const Cursor& cursor) const HR_REQUIRES(mu_);

  const uint64_t size_;
  mutable Mutex mu_;
  std::vector<Cursor> cursors_ HR_GUARDED_BY(mu_);
  std::vector<Cursor> retired_ HR_GUARDED_BY(mu_);  // of a file that is read in many places: those that went for others, the newest; only what they read counts
  uint64_t sweep_ HR_GUARDED_BY(mu_) = 0;  // where the holes that no cursor covers are looked for
  uint64_t stamp_ HR_GUARDED_BY(mu_) = 0;
  uint64_t bytes_read_ HR_GUARDED_BY(mu_) = 0;
  uint64_t jumps_ HR_GUARDED_BY(mu_) = 0;  // cursors ever made
  TimePoint last_read_ HR_GUARDED_BY(mu_){};
  bool whole_ HR_GUARDED_BY(mu_) = false;
  bool leave_holes_ HR_GUARDED_BY(mu_) = false;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_READ_TRACKER_H_
