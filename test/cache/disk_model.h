// DiskModel: what a disk holds after power was lost, worked out from a recorded sequence of changes.
//
// What a file system owes is only what was synced: fsync and fdatasync of a file make its bytes and its size last, fsync of a directory its names; fsync of a file also its times.
// Everything else may have reached the disk or not, each piece for itself: sectors of 512 bytes of a write, sizes (then ahead of their data: zeros), each name that was made, renamed or removed.
// That is weaker than what any journal gives, so what holds here holds on every file system.
// Values only; not thread-safe (disk_recorder.h serialises).
#ifndef HEADRACE_TEST_CACHE_DISK_MODEL_H_
#define HEADRACE_TEST_CACHE_DISK_MODEL_H_

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace headrace::test {

// A file or directory. Node 1 is the root.
struct DiskNode {
  bool directory = false;
  std::string bytes{};
  std::map<std::string, uint32_t> names{};
  uint64_t inode = 0;     // what stat says; the lowest that is free, as ext4 gives them
  uint64_t modified = 0;  // times are counts of changes, so that no two are the same
  uint64_t changed = 0;
};

using DiskState = std::map<uint32_t, DiskNode>;

struct DiskOp {
  enum class Kind { kWrite, kTruncate, kPunch, kName, kTouch, kSyncAll, kSyncData, kMark };
  Kind kind;
  uint32_t node = 0;  // kName: the directory
  uint64_t offset = 0;
  uint64_t size = 0;
  std::string bytes{};
  std::string name{};       // kMark: whatever the test wants to find again
  uint32_t child = 0;       // kName: what the name is from now on; 0: removed
  bool directory = false;   // kName: the child, if it is new
  uint32_t from = 0;        // kName: renamed; where from,
  std::string from_name{};  // and from which name. Both happen or none, with the directory `node`
  uint64_t time = 0;
};

enum class Loss {
  kNone,       // everything before the cut is there: the power fails, the disk was quick
  kUnsynced,   // any part of what was not synced is missing
  kDataOnly,   // names and sizes are all there, any part of the unsynced bytes is not: a journal of metadata
};

class DiskModel {
 public:
  DiskModel();
  explicit DiskModel(DiskState base);

  void Apply(DiskOp op);
  uint32_t NewNode() { return next_node_++; }
  // Its inode number may be given to another one, if no name leads to it. For who knows that nobody has it open.
  void Release(uint32_t node);
  const DiskState& now() const { return now_; }
  const std::vector<DiskOp>& ops() const { return ops_; }
  // Node of "a/b" relative to the root; 0 if there is none.
  uint32_t Find(const std::string& path) const;

  // The disk if power is lost when `count` changes were made.
  DiskState Cut(size_t count, Loss loss, std::mt19937_64& random) const;

 private:
  DiskState base_;
  DiskState now_;
  std::vector<DiskOp> ops_;
  uint32_t next_node_ = 2;
  uint64_t next_time_ = 1;
};

}  // namespace headrace::test

#endif  // HEADRACE_TEST_CACHE_DISK_MODEL_H_
