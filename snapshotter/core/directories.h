// The directories of snapshots: <root>/snapshots/<id>/{fs,work}. fs holds what the snapshot adds to
// its parent (the upper directory of an overlay, or the whole tree of the lowest layer); work is
// overlayfs's own. Blocks on the local disk; thread-safe.
#ifndef HEADRACE_SNAPSHOTTER_CORE_DIRECTORIES_H_
#define HEADRACE_SNAPSHOTTER_CORE_DIRECTORIES_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/store/info.h"

namespace headrace::snapshotter {

struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
};

class Directories {
 public:
  // `root` must exist and must not contain what separates overlay options (colon, comma,
  // backslash): InvalidArgument.
  static Result<Directories> Open(const std::string& root);

  std::string Of(uint64_t id) const { return base_ + "/" + std::to_string(id); }
  std::string Fs(uint64_t id) const { return Of(id) + "/fs"; }
  // Makes them anew: fs with mode 0755 whatever the umask, owned by `owner`; work only for active
  // snapshots.
  Status Make(uint64_t id, Kind kind, Owner owner) const;
  // A missing one is fine.
  Status Remove(uint64_t id) const;
  // Ids that have a directory. Entries with other names are not ours and left alone.
  Result<std::vector<uint64_t>> List() const;

 private:
  explicit Directories(std::string base) : base_(std::move(base)) {}
  std::string base_;
};

Result<Owner> OwnerOf(const std::string& path);

// Disk blocks and inodes below `path`, each inode counted once; other file systems mounted below
// are not entered. Cancelled when `stop` becomes true.
Result<Usage> MeasureUsage(const std::string& path, const std::atomic<bool>& stop);

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_CORE_DIRECTORIES_H_
