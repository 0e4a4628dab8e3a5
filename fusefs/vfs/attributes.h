// From the metadata of a table of contents to struct stat and extended attributes. Pure functions. Private to vfs/.
#ifndef HEADRACE_FUSEFS_VFS_ATTRIBUTES_H_
#define HEADRACE_FUSEFS_VFS_ATTRIBUTES_H_

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"

namespace headrace::vfs {

// S_IFREG...; a hard link has no type of its own.
mode_t TypeBits(format::EntryType type);
// A non-directory. REQUIRES: not a hard link.
struct stat InodeStat(uint64_t node, const format::Entry& entry, uint32_t nlink);
// A directory; entry == nullptr: one that no tar lists (mode 0755, root:root, times 0).
struct stat DirectoryStat(uint64_t node, const format::Entry* entry, uint32_t subdirs);
// What overlayfs takes for a whiteout: character device 0/0.
struct stat WhiteoutStat(uint64_t node);

// Never shown: extended attributes of an image that overlayfs would obey, and names that listxattr(2) cannot give.
bool IsHiddenXattr(std::string_view name);
// As NoSuchXattr if there is none.
Result<std::string> EntryXattr(const format::Entry& entry, std::string_view name);
// Appends the visible names, each ended by a NUL.
void AppendXattrNames(const format::Entry& entry, std::string& names);
// ENODATA; EOPNOTSUPP if the name is of no kind that Linux has, EINVAL if it is only a prefix.
Status NoSuchXattr(std::string_view name);

}  // namespace headrace::vfs

#endif  // HEADRACE_FUSEFS_VFS_ATTRIBUTES_H_
