#include "fusefs/vfs/attributes.h"

#include <sys/sysmacros.h>

#include <cerrno>

namespace headrace::vfs {
namespace {

// Of every file: programs size their stdio buffers by it, and a bigger one would make scattered small reads
// fetch more than they use. Bulk readers bring buffers of their own.
constexpr blksize_t kBlockSize = 4096;
// Of every directory, as on ext4.
constexpr off_t kDirectorySize = 4096;
constexpr mode_t kPermissionBits = 07777;

struct stat Common(uint64_t node, const format::Entry* entry) {
  struct stat st {};
  st.st_ino = node;
  st.st_blksize = kBlockSize;
  if (entry == nullptr) return st;
  st.st_uid = entry->uid;
  st.st_gid = entry->gid;
  // The image says when the content was changed; that is all that is known, and it never changes here.
  st.st_mtim.tv_sec = entry->mtime_s;
  st.st_mtim.tv_nsec = static_cast<decltype(st.st_mtim.tv_nsec)>(entry->mtime_ns);
  st.st_atim = st.st_mtim;
  st.st_ctim = st.st_mtim;
  return st;
}

void SetSize(struct stat& st, off_t size) {
  st.st_size = size;
  st.st_blocks = size / 512 + (size % 512 != 0);
}

}  // namespace

mode_t TypeBits(format::EntryType type) {
  switch (type) {
    case format::EntryType::kRegular: return S_IFREG;
    case format::EntryType::kDirectory: return S_IFDIR;
    case format::EntryType::kSymlink: return S_IFLNK;
    case format::EntryType::kCharDevice: return S_IFCHR;
    case format::EntryType::kBlockDevice: return S_IFBLK;
    case format::EntryType::kFifo: return S_IFIFO;
    case format::EntryType::kHardlink: break;
  }
  HEADRACE_CHECK(false);
  return 0;
}

struct stat InodeStat(uint64_t node, const format::Entry& entry, uint32_t nlink) {
  struct stat st = Common(node, &entry);
  st.st_mode = TypeBits(entry.type) | (entry.mode & kPermissionBits);
  st.st_nlink = nlink;
  switch (entry.type) {
    case format::EntryType::kRegular:
      SetSize(st, static_cast<off_t>(entry.size));
      break;
    case format::EntryType::kSymlink:
      st.st_mode = S_IFLNK | 0777;  // Linux knows no other
      st.st_size = static_cast<off_t>(entry.link_target.size());
      break;
    case format::EntryType::kCharDevice:
    case format::EntryType::kBlockDevice:
      st.st_rdev = makedev(entry.dev_major, entry.dev_minor);
      break;
    default:
      break;
  }
  return st;
}

struct stat DirectoryStat(uint64_t node, const format::Entry* entry, uint32_t subdirs) {
  struct stat st = Common(node, entry);
  st.st_mode = S_IFDIR | (entry != nullptr ? entry->mode & kPermissionBits : 0755);
  st.st_nlink = nlink_t{2} + subdirs;
  SetSize(st, kDirectorySize);
  return st;
}

struct stat WhiteoutStat(uint64_t node) {
  struct stat st = Common(node, nullptr);
  st.st_mode = S_IFCHR;
  st.st_nlink = 1;
  return st;
}

bool IsHiddenXattr(std::string_view name) {
  constexpr size_t kXattrNameBytesMax = 255;  // XATTR_NAME_MAX
  return name.starts_with("trusted.overlay.") || name.empty() || name.size() > kXattrNameBytesMax ||
         name.find('\0') != std::string_view::npos;
}

Status NoSuchXattr(std::string_view name) {
  // As on the kernel's own file systems: the prefix says where a name is looked for.
  for (const std::string_view prefix : {"user.", "trusted.", "security."}) {
    if (name == prefix) return InvalidArgumentError("only the prefix of an extended attribute").WithErrno(EINVAL);
    if (name.starts_with(prefix)) return NotFoundError("no extended attribute " + std::string(name)).WithErrno(ENODATA);
  }
  if (name == "system.posix_acl_access" || name == "system.posix_acl_default") {
    return NotFoundError("no access list").WithErrno(ENODATA);
  }
  return UnimplementedError("no such kind of extended attribute: " + std::string(name)).WithErrno(EOPNOTSUPP);
}

Result<std::string> EntryXattr(const format::Entry& entry, std::string_view name) {
  if (!IsHiddenXattr(name)) {
    for (const auto& [key, value] : entry.xattrs) {
      if (key == name) return value;
    }
  }
  return NoSuchXattr(name);
}

void AppendXattrNames(const format::Entry& entry, std::string& names) {
  for (const auto& [key, value] : entry.xattrs) {
    if (IsHiddenXattr(key)) continue;
    names += key;
    names += '\0';
  }
}

}  // namespace headrace::vfs
