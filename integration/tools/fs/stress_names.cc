// Operations on names, attributes and directories.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "integration/tools/fs/stress.h"

namespace headrace::fs {
namespace {

// A copy that overlayfs makes of a file gives its directory another time for a moment.
bool HasTime(const Scene& scene, mode_t mode) { return !(scene.writable && S_ISDIR(mode)); }

std::string Attributes(const Scene& scene, const struct stat& st) {
  std::string out = "mode " + std::to_string(st.st_mode) + " uid " + std::to_string(st.st_uid) + " gid " + std::to_string(st.st_gid) + " rdev " +
                    std::to_string(st.st_rdev);
  if (HasTime(scene, st.st_mode)) out += " mtime " + std::to_string(st.st_mtim.tv_sec) + "." + std::to_string(st.st_mtim.tv_nsec);
  if (!S_ISDIR(st.st_mode)) out += " size " + std::to_string(st.st_size);
  // overlayfs counts links of a directory as 1, and its copy of a file loses the other names.
  if (!scene.writable && !(scene.overlay && S_ISDIR(st.st_mode))) out += " links " + std::to_string(st.st_nlink);
  return out;
}

void LogStat(Scene& scene, const std::string& what, int result, const struct stat& st) {
  scene.log->Call(what, result);
  if (result == 0) scene.log->Words(what, Attributes(scene, st));
}

void Stat(Scene& scene) {
  const TreeEntry& entry = scene.Any();
  const char* path = entry.path.c_str();
  struct stat st {};
  switch (scene.random.Below(4)) {
    case 0: LogStat(scene, "stat " + entry.path, ::stat(path, &st), st); break;
    case 1: {
      const Descriptor fd(::open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
      scene.log->Done("open as a path " + entry.path, fd.ok());
      if (fd.ok()) LogStat(scene, "fstat " + entry.path, ::fstat(fd.get(), &st), st);
      break;
    }
    case 2: {
      const int ways[] = {AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC, AT_STATX_SYNC_AS_STAT};
      struct statx stx {};
      const int got = ::statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | scene.random.Of(ways), STATX_BASIC_STATS, &stx);
      scene.log->Call("statx " + entry.path, got);
      std::string said = std::to_string(stx.stx_mode) + " " + std::to_string(stx.stx_uid);
      if (HasTime(scene, entry.type)) said += " " + std::to_string(stx.stx_mtime.tv_sec) + " " + std::to_string(stx.stx_mtime.tv_nsec);
      scene.log->Words("statx " + entry.path, said + (S_ISDIR(entry.type) ? "" : " " + std::to_string(stx.stx_size)));
      break;
    }
    default: LogStat(scene, "lstat " + entry.path, ::lstat(path, &st), st);
  }
}

void StatFs(Scene& scene) {
  struct statfs st {};
  const TreeEntry& entry = scene.Any();
  scene.log->Call("statfs " + entry.path, ::statfs(entry.path.c_str(), &st));
  constexpr long kFlags = 1 | 2 | 4;  // ST_RDONLY, ST_NOSUID, ST_NODEV
  scene.log->Words("statfs " + entry.path, std::to_string(st.f_namelen) + " " + std::to_string(st.f_flags & kFlags));
}

void ReadLink(Scene& scene) {
  const TreeEntry& entry = scene.random.OneIn(4) ? scene.Any() : scene.Link();
  const size_t sizes[] = {0, 1, entry.size, entry.size + 1, 4096};
  std::string buffer(scene.random.Of(sizes), '#');
  const ssize_t got = ::readlink(entry.path.c_str(), buffer.data(), buffer.size());
  scene.log->Call("readlink " + entry.path, got);
  if (got > 0) scene.log->Bytes("target of " + entry.path, buffer.data(), static_cast<size_t>(got));
}

void Access(Scene& scene) {
  const TreeEntry& entry = scene.Any();
  const int mode = static_cast<int>(scene.random.Below(8));
  const int ways[] = {0, AT_EACCESS, AT_SYMLINK_NOFOLLOW};
  const int how = scene.random.Of(ways);
  const std::string what = "access " + entry.path + " " + std::to_string(mode) + " " + std::to_string(how);
  scene.log->Call(what, ::faccessat(AT_FDCWD, entry.path.c_str(), mode, how));
}

// The order of the names is the file system's to choose; and FUSE shows the names of trusted.* (not their values) to users as well.
std::set<std::string> XattrNames(Scene& scene, const std::string& path) {
  std::set<std::string> names;
  const ssize_t size = ::llistxattr(path.c_str(), nullptr, 0);
  scene.log->Done("llistxattr " + path, size >= 0);
  if (size <= 0) return names;
  std::string buffer(static_cast<size_t>(size), '#');
  // overlayfs counts the names that it hides.
  const bool exact = !scene.overlay;
  if (exact && (::llistxattr(path.c_str(), buffer.data(), buffer.size() - 1) != -1 || errno != ERANGE)) {
    scene.log->Words("llistxattr " + path, "too little room is enough");
  }
  const ssize_t got = ::llistxattr(path.c_str(), buffer.data(), buffer.size());
  if (exact ? got != size : got > size) scene.log->Words("llistxattr " + path, "another size than it said");
  for (size_t at = 0; got > 0 && at < static_cast<size_t>(got); at += std::strlen(buffer.c_str() + at) + 1) names.insert(buffer.c_str() + at);
  if (::geteuid() != 0) std::erase_if(names, [](const std::string& name) { return name.starts_with("trusted."); });
  return names;
}

void Xattrs(Scene& scene) {
  const TreeEntry& entry = scene.Any();
  const char* path = entry.path.c_str();
  std::set<std::string> names = XattrNames(scene, entry.path);
  for (const std::string& name : names) scene.log->Words("has", name);
  names.insert({"user.none", "trusted.none", "security.capability", "user." + std::string(250, 'x'), "user." + std::string(251, 'x')});
  for (const std::string& name : names) {
    const std::string what = name + " of " + entry.path;
    const ssize_t size = ::lgetxattr(path, name.c_str(), nullptr, 0);
    scene.log->Call(what, size);
    if (size <= 0) continue;
    std::string value(static_cast<size_t>(size) + scene.random.Below(10), '#');
    const ssize_t got = ::lgetxattr(path, name.c_str(), value.data(), value.size());
    scene.log->Call(what, got);
    if (got > 0) scene.log->Bytes(what, value.data(), static_cast<size_t>(got));
    scene.log->Call("too little room for " + what, ::lgetxattr(path, name.c_str(), value.data(), static_cast<size_t>(size) - 1));
  }
}

struct DirectoryEntry {
  uint64_t inode;
  int64_t next;
  std::string name;
  unsigned char type;
};

// Appends what one call gives; the number of entries, or -1.
int ListOnce(int fd, std::string& buffer, std::vector<DirectoryEntry>& out) {
  const long got = ::syscall(SYS_getdents64, fd, buffer.data(), buffer.size());
  if (got < 0) return -1;
  int count = 0;
  for (long at = 0; at < got; ++count) {
    uint64_t inode = 0;
    int64_t next = 0;
    uint16_t length = 0;
    const char* entry = buffer.data() + at;
    std::memcpy(&inode, entry, 8);
    std::memcpy(&next, entry + 8, 8);
    std::memcpy(&length, entry + 16, 2);
    out.push_back({inode, next, entry + 19, static_cast<unsigned char>(entry[18])});
    at += length;
  }
  return count;
}

// To the end, with a buffer that grows when a name does not fit (EINVAL).
std::vector<DirectoryEntry> ListOn(int fd, size_t room) {
  std::vector<DirectoryEntry> out;
  std::string buffer(room, '#');
  while (true) {
    const int count = ListOnce(fd, buffer, out);
    if (count == 0) return out;
    if (count < 0 && errno != EINVAL) Die("getdents64");
    if (count < 0) buffer.resize(buffer.size() * 2);
  }
}

bool SameNames(const std::vector<DirectoryEntry>& all, size_t from, const std::vector<DirectoryEntry>& rest) {
  return std::equal(all.begin() + static_cast<std::ptrdiff_t>(from), all.end(), rest.begin(), rest.end(),
                    [](const DirectoryEntry& a, const DirectoryEntry& b) { return a.name == b.name && a.inode == b.inode; });
}

void LogNames(Scene& scene, std::vector<DirectoryEntry> entries) {
  std::sort(entries.begin(), entries.end(), [](const DirectoryEntry& a, const DirectoryEntry& b) { return a.name < b.name; });
  for (const DirectoryEntry& entry : entries) scene.log->Words(entry.name, "type " + std::to_string(entry.type));
}

void List(Scene& scene) {
  const TreeEntry& entry = scene.Directory();
  const Descriptor fd(::open(entry.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  scene.log->Done("list " + entry.path, fd.ok());
  if (!fd.ok()) return;
  const size_t rooms[] = {24, 300, 1000, 32'768, 1 << 20};
  const size_t room = scene.random.Of(rooms);
  const uint64_t draw = scene.random.Below(1'000'000);
  const std::vector<DirectoryEntry> all = ListOn(fd.get(), room);
  LogNames(scene, all);
  // From any position that was told before, what follows is the same again.
  const size_t from = draw % all.size();
  const int64_t position = from == 0 ? 0 : all[from - 1].next;
  if (::lseek(fd.get(), position, SEEK_SET) != position) scene.log->Words(entry.path, "a position that is not accepted");
  scene.log->Words("from a position in " + entry.path, SameNames(all, from, ListOn(fd.get(), room)) ? "the same again" : "another list");
  if (scene.overlay) return;  // overlayfs makes inode numbers of its own
  const DirectoryEntry& one = all[draw % all.size()];
  struct stat st {};
  if (one.name == ".." || ::fstatat(fd.get(), one.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return;
  if (st.st_ino != one.inode) scene.log->Words(entry.path + "/" + one.name, "has another inode number than its directory says");
}

// As `ls -l` does.
void ListAndStat(Scene& scene) {
  const TreeEntry& entry = scene.Directory();
  const Descriptor fd(::open(entry.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.ok()) return;
  std::vector<DirectoryEntry> all = ListOn(fd.get(), 32'768);
  std::sort(all.begin(), all.end(), [](const DirectoryEntry& a, const DirectoryEntry& b) { return a.name < b.name; });
  const uint64_t first = scene.random.Below(all.size());
  for (size_t i = first; i < std::min(all.size(), first + 100); ++i) {
    if (all[i].name == "..") continue;
    struct stat st {};
    const int got = ::fstatat(fd.get(), all[i].name.c_str(), &st, AT_SYMLINK_NOFOLLOW);
    LogStat(scene, entry.path + "/" + all[i].name, got, st);
  }
}

// Names made from those that there are.
void OddNames(Scene& scene) {
  const TreeEntry& entry = scene.Any();
  const std::string path = entry.path;
  std::string deep;
  for (int i = 0; i < 2100; ++i) deep += "./";  // longer than PATH_MAX
  const std::string names[] = {path + "/", path + "/.", path + "/..", path + "/none", path + "//", path + "/" + std::string(255, 'x'),
                               path + "/" + std::string(256, 'x'), path + "x", deep + path, deep.substr(0, 3000) + path, path.substr(0, path.size() / 2),
                               path + std::string("/\xff\xfe"), "none/" + path, ""};
  const std::string& name = scene.random.Of(names);
  struct stat st {};
  const int got = scene.random.OneIn(2) ? ::lstat(name.c_str(), &st) : ::stat(name.c_str(), &st);
  scene.log->Call(name, got);
  if (got == 0) scene.log->Words(name, std::to_string(st.st_mode));
}

void OpenOddly(Scene& scene) {
  const TreeEntry& entry = scene.Any();
  open_how how{};
  const uint64_t flags[] = {O_PATH, O_PATH | O_NOFOLLOW, O_NOFOLLOW, O_DIRECTORY, O_DIRECTORY | O_NOFOLLOW, O_NOATIME, O_WRONLY, O_RDWR | O_TRUNC, O_APPEND};
  const uint64_t ways[] = {0, 0, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_XDEV, RESOLVE_CACHED};
  how.flags = scene.random.Of(flags) | O_CLOEXEC | O_NONBLOCK;
  how.resolve = scene.random.Of(ways);
  const bool changes = (how.flags & (O_WRONLY | O_RDWR)) != 0;
  if (changes && (scene.writable || S_ISFIFO(entry.type))) return;  // whether a fifo has a reader is chance
  if (how.flags & O_PATH) how.flags &= ~uint64_t{O_NONBLOCK};
  const Descriptor fd(static_cast<int>(::syscall(SYS_openat2, scene.root, entry.path.c_str(), &how, sizeof how)));
  if (how.resolve == RESOLVE_CACHED) return;  // what is in memory is chance
  const std::string what = "openat2 " + entry.path + " " + std::to_string(how.flags) + " " + std::to_string(how.resolve);
  scene.log->Done(what, fd.ok());
  if (!fd.ok()) return;
  struct stat st {};
  LogStat(scene, what, ::fstat(fd.get(), &st), st);
}

void Watch(Scene& scene) {
  const TreeEntry& entry = scene.Any();
  const Descriptor fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!fd.ok()) return;  // the user has as many as are allowed
  const int watch = ::inotify_add_watch(fd.get(), entry.path.c_str(), IN_ALL_EVENTS | IN_DONT_FOLLOW);
  scene.log->Done("watch " + entry.path, watch >= 0);
  if (watch < 0) return;
  struct stat st {};
  LogStat(scene, "watched " + entry.path, ::lstat(entry.path.c_str(), &st), st);
  scene.log->Call("no longer watch " + entry.path, ::inotify_rm_watch(fd.get(), watch));
}

struct KnownHandle {
  std::string path;
  alignas(file_handle) char room[sizeof(file_handle) + MAX_HANDLE_SZ];
  ino_t inode = 0;
  mode_t mode = 0;
};

// What a handle leads to: the same file as when it was made, also when the kernel has forgotten that one meanwhile. A user may not ask.
bool LeadsBack(const Scene& scene, KnownHandle& known) {
  const Descriptor fd(::open_by_handle_at(scene.root, reinterpret_cast<file_handle*>(known.room), O_PATH | O_CLOEXEC));
  if (!fd.ok()) return errno == EPERM || (scene.overlay && (errno == ESTALE || errno == EOPNOTSUPP));
  struct stat st {};
  return ::fstat(fd.get(), &st) == 0 && st.st_ino == known.inode && st.st_mode == known.mode;
}

// By a handle instead of a name: of now, and one of long ago. overlayfs gives handles only if it is told to.
void Handle(Scene& scene) {
  constexpr size_t kKept = 64;
  thread_local std::map<int, std::map<size_t, KnownHandle>> kept;  // by root
  const TreeEntry& entry = scene.Any();
  const size_t place = scene.random.Below(kKept), other = scene.random.Below(kKept);
  KnownHandle fresh{entry.path, {}};
  auto* const handle = reinterpret_cast<file_handle*>(fresh.room);
  handle->handle_bytes = MAX_HANDLE_SZ;
  int mount_id = 0;
  struct stat st {};
  if (::name_to_handle_at(AT_FDCWD, entry.path.c_str(), handle, &mount_id, 0) != 0) {
    if (errno != EACCES && !(scene.overlay && errno == EOPNOTSUPP)) scene.log->Words("handle of " + entry.path, ErrnoName(errno));
    return;
  }
  if (::lstat(entry.path.c_str(), &st) != 0) return;
  fresh.inode = st.st_ino;
  fresh.mode = st.st_mode;
  if (!LeadsBack(scene, fresh)) scene.log->Words("by handle " + entry.path, "wrong: " + ErrnoName(errno));
  auto& mine = kept[scene.root];
  if (const auto old = mine.find(other); old != mine.end() && !LeadsBack(scene, old->second)) {
    scene.log->Words("by an old handle " + old->second.path, "wrong: " + ErrnoName(errno));
  }
  mine[place] = fresh;
}

}  // namespace

std::vector<Operation> NameOperations() {
  return {{"stat", 15, Stat},      {"statfs", 1, StatFs},       {"readlink", 5, ReadLink}, {"access", 6, Access}, {"xattr", 8, Xattrs},
          {"list", 8, List},       {"list-stat", 6, ListAndStat}, {"names", 8, OddNames},  {"openat2", 8, OpenOddly}, {"watch", 3, Watch},
          {"handle", 3, Handle}};
}

}  // namespace headrace::fs
