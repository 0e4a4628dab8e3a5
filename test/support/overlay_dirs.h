// The layers of random_tree.h as overlayfs wants them: one directory for each, whiteouts as character devices
// 0/0, opaque directories marked by an extended attribute; and a walk of any real directory to compare with.
// Needs root and a file system that takes trusted.* and user.* attributes (tmpfs, ext4). Blocks on the disk.
#ifndef HEADRACE_TEST_SUPPORT_OVERLAY_DIRS_H_
#define HEADRACE_TEST_SUPPORT_OVERLAY_DIRS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "test/support/random_tree.h"

namespace headrace::test {

// Writes <dir>/0 (bottom), <dir>/1, ... and returns their paths, bottom to top. A directory that a layer does
// not list has the metadata that the layers below give it, as containerd's extraction does.
Result<std::vector<std::string>> WriteOverlayDirs(const std::vector<TreeLayer>& layers, const std::string& dir);

// Makes a mount namespace of this thread's own (nothing leaks out of the test) and mounts a tmpfs at `dir`.
Status MountPrivateTmpfs(const std::string& dir);
// Read-only overlay of `lower` (bottom to top) at `target`, which is made if it is missing. `empty`: a
// directory with nothing in it for the bottom, because overlayfs wants two.
Status MountOverlay(const std::vector<std::string>& lower, const std::string& empty, const std::string& target);

// Everything about a name that users can see; comparable. st_ino is replaced by `group`.
struct NodeDump {
  uint32_t mode = 0, uid = 0, gid = 0;
  uint64_t size = 0;    // 0 for directories
  uint64_t rdev = 0;
  uint64_t nlink = 0;   // 0 for directories
  int64_t mtime_s = 0;
  int64_t mtime_ns = 0;
  std::string content;  // of files; target of symbolic links
  std::string group;    // first path (in order) of the names that share the inode
  std::map<std::string, std::string> xattrs;
  bool operator==(const NodeDump&) const = default;
  std::string ToString() const;
};
using TreeDump = std::map<std::string, NodeDump>;  // by path; "" = root

Result<TreeDump> DumpDirectory(const std::string& root);
// One line for each difference; "" = equal. `nlink` false: the number of links is not compared.
std::string CompareDumps(const TreeDump& got, const TreeDump& want, bool nlink = true);

}  // namespace headrace::test

#endif  // HEADRACE_TEST_SUPPORT_OVERLAY_DIRS_H_
