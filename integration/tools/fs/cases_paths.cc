#include <fcntl.h>
#include <linux/fs.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "integration/tools/fs/cases.h"

namespace headrace::fs {
namespace {

struct PathCase {
  const char* name;
  int64_t (*call)(const char* path);  // -1 and errno, or what it answers
};

// 0 if it could be opened.
int64_t Open(const char* path, int flags, mode_t mode = 0) {
  const Descriptor fd(::open(path, flags | O_CLOEXEC | O_NONBLOCK, mode));
  return fd.ok() ? 0 : -1;
}

std::string Attributes(const struct stat& st) {
  std::string out = std::to_string(st.st_mode) + " " + std::to_string(st.st_uid) + ":" + std::to_string(st.st_gid) + " " + std::to_string(st.st_rdev);
  if (!S_ISDIR(st.st_mode)) out += " " + std::to_string(st.st_size);
  return out;
}

int64_t SetTimes(const char* path, long nanoseconds, int flags) {
  timespec times[2]{};
  times[0] = times[1] = {1'700'000'000, nanoseconds};
  return ::utimensat(AT_FDCWD, path, times, flags);
}

int64_t Bind(const char* path) {
  const Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

int64_t Connect(const char* path) {
  const Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

int64_t Watch(const char* path) {
  const Descriptor fd(::inotify_init1(IN_CLOEXEC));
  return ::inotify_add_watch(fd.get(), path, IN_ALL_EVENTS) < 0 ? -1 : 0;
}

// A file by its handle, as fanotify and the NFS server find it.
int64_t ByHandle(const char* path) {
  alignas(file_handle) char room[sizeof(file_handle) + MAX_HANDLE_SZ];
  auto* const handle = reinterpret_cast<file_handle*>(room);
  handle->handle_bytes = MAX_HANDLE_SZ;
  int mount_id = 0;
  if (::name_to_handle_at(AT_FDCWD, path, handle, &mount_id, 0) != 0) return -1;
  const Descriptor root(::open(".", O_RDONLY | O_CLOEXEC));
  const Descriptor fd(::open_by_handle_at(root.get(), handle, O_PATH | O_CLOEXEC));
  return fd.ok() ? 0 : -1;
}

int64_t ChangeDirectory(const char* path) {
  const Descriptor here(::open(".", O_PATH | O_CLOEXEC));
  const int64_t result = ::chdir(path);
  const int code = errno;
  if (::fchdir(here.get()) != 0) Die("fchdir");
  errno = code;
  return result;
}

int64_t Rename2(const char* from, const char* to, unsigned flags) { return ::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags); }

// A new name that goes again.
int64_t RenameThereAndBack(const char* path, unsigned flags) {
  if (Rename2(path, "of-user/renamed", flags) != 0) return -1;
  return Rename2("of-user/renamed", path, 0);
}

int64_t LinkAndUnlink(const char* path, int flags) {
  if (::linkat(AT_FDCWD, path, AT_FDCWD, "of-user/linked", flags) != 0) return -1;
  return ::unlink("of-user/linked");
}

// Calls that ask.
const PathCase kQuestions[] = {
    {"open for reading", [](const char* p) { return Open(p, O_RDONLY); }},
    {"open as a path", [](const char* p) { return Open(p, O_PATH); }},
    {"open, no links", [](const char* p) { return Open(p, O_RDONLY | O_NOFOLLOW); }},
    {"open a directory", [](const char* p) { return Open(p, O_RDONLY | O_DIRECTORY); }},
    {"open O_NOATIME", [](const char* p) { return Open(p, O_RDONLY | O_NOATIME); }},
    {"open with impossible flags", [](const char* p) { return Open(p, O_RDONLY | O_DIRECTORY | O_CREAT, 0600); }},
    {"access F_OK", [](const char* p) { return int64_t{::access(p, F_OK)}; }},
    {"access R_OK", [](const char* p) { return int64_t{::access(p, R_OK)}; }},
    {"access W_OK", [](const char* p) { return int64_t{::access(p, W_OK)}; }},
    {"access X_OK", [](const char* p) { return int64_t{::access(p, X_OK)}; }},
    {"access 99", [](const char* p) { return int64_t{::access(p, 99)}; }},
    {"chdir", ChangeDirectory},
    {"by handle", ByHandle},
    {"watch", Watch},
    {"connect", Connect},
    {"statfs", [](const char* p) { struct statfs st; return int64_t{::statfs(p, &st)}; }},
    {"readlink", [](const char* p) { char buffer[5000]; return int64_t{::readlink(p, buffer, sizeof buffer)}; }},
    {"readlink into nothing", [](const char* p) { char buffer[1]; return int64_t{::readlink(p, buffer, 0)}; }},
    {"readlink into nowhere", [](const char* p) { return int64_t{::readlink(p, static_cast<char*>(Nowhere()), 100)}; }},
    {"stat into nowhere", [](const char* p) { return int64_t{::stat(p, static_cast<struct stat*>(Nowhere()))}; }},
    {"getxattr user.note", [](const char* p) { char value[64]; return int64_t{::lgetxattr(p, "user.note", value, sizeof value)}; }},
    {"getxattr user.none", [](const char* p) { char value[64]; return int64_t{::lgetxattr(p, "user.none", value, sizeof value)}; }},
    {"getxattr trusted.none", [](const char* p) { char value[64]; return int64_t{::lgetxattr(p, "trusted.none", value, sizeof value)}; }},
    {"getxattr security.none", [](const char* p) { char value[64]; return int64_t{::lgetxattr(p, "security.none", value, sizeof value)}; }},
    {"getxattr odd.none", [](const char* p) { char value[64]; return int64_t{::lgetxattr(p, "odd.none", value, sizeof value)}; }},
    {"getxattr none", [](const char* p) { char value[64]; return int64_t{::lgetxattr(p, "none", value, sizeof value)}; }},
    {"getxattr user.", [](const char* p) { char value[64]; return int64_t{::lgetxattr(p, "user.", value, sizeof value)}; }},
    {"getxattr system.none", [](const char* p) { char value[64]; return int64_t{::lgetxattr(p, "system.none", value, sizeof value)}; }},
    {"getxattr posix_acl_access", [](const char* p) { char value[64]; return int64_t{::getxattr(p, "system.posix_acl_access", value, sizeof value)}; }},
    {"getxattr posix_acl_default", [](const char* p) { char value[64]; return int64_t{::getxattr(p, "system.posix_acl_default", value, sizeof value)}; }},
    {"getxattr without a name", [](const char* p) { char value[64]; return int64_t{::lgetxattr(p, "", value, sizeof value)}; }},
    {"getxattr into nowhere", [](const char* p) { return int64_t{::lgetxattr(p, "user.note", Nowhere(), 100)}; }},
    {"listxattr", [](const char* p) { return int64_t{::llistxattr(p, nullptr, 0)}; }},
    {"listxattr into 1", [](const char* p) { char list[1]; return int64_t{::llistxattr(p, list, 1)}; }},
};

// Calls that change what is there and leave it there.
const PathCase kChanges[] = {
    {"open for writing", [](const char* p) { return Open(p, O_WRONLY); }},
    {"open for both", [](const char* p) { return Open(p, O_RDWR); }},
    {"open to append", [](const char* p) { return Open(p, O_WRONLY | O_APPEND); }},
    {"open or create", [](const char* p) { return Open(p, O_RDONLY | O_CREAT, 0640); }},
    {"create only", [](const char* p) { return Open(p, O_RDONLY | O_CREAT | O_EXCL, 0640); }},
    {"O_TMPFILE", [](const char* p) { return Open(p, O_RDWR | O_TMPFILE, 0600); }},
    {"chmod", [](const char* p) { return int64_t{::chmod(p, 0751)}; }},
    {"lchmod", [](const char* p) { return int64_t{::fchmodat(AT_FDCWD, p, 0751, AT_SYMLINK_NOFOLLOW)}; }},
    {"chmod 6755", [](const char* p) { return int64_t{::chmod(p, 06755)}; }},
    {"chown", [](const char* p) { return int64_t{::chown(p, 1000, 1000)}; }},
    {"chown nothing", [](const char* p) { return int64_t{::chown(p, static_cast<uid_t>(-1), static_cast<gid_t>(-1))}; }},
    {"lchown", [](const char* p) { return int64_t{::lchown(p, 1000, 1001)}; }},
    {"utimensat", [](const char* p) { return SetTimes(p, 5, 0); }},
    {"utimensat of a link", [](const char* p) { return SetTimes(p, 6, AT_SYMLINK_NOFOLLOW); }},
    {"utimensat now", [](const char* p) { return SetTimes(p, UTIME_NOW, 0); }},
    {"utimensat omit", [](const char* p) { return SetTimes(p, UTIME_OMIT, 0); }},
    {"utimensat wrong", [](const char* p) { return SetTimes(p, 2'000'000'000, 0); }},
    {"setxattr user", [](const char* p) { return int64_t{::lsetxattr(p, "user.new", "new", 3, 0)}; }},
    {"setxattr create", [](const char* p) { return int64_t{::lsetxattr(p, "user.new", "new", 3, XATTR_CREATE)}; }},
    {"setxattr replace", [](const char* p) { return int64_t{::lsetxattr(p, "user.note", "other", 5, XATTR_REPLACE)}; }},
    {"setxattr trusted", [](const char* p) { return int64_t{::lsetxattr(p, "trusted.new", "new", 3, 0)}; }},
    {"setxattr odd", [](const char* p) { return int64_t{::lsetxattr(p, "odd.new", "new", 3, 0)}; }},
    {"removexattr", [](const char* p) { return int64_t{::lremovexattr(p, "user.new")}; }},
    {"removexattr none", [](const char* p) { return int64_t{::lremovexattr(p, "user.none")}; }},
    {"truncate to 100", [](const char* p) { return int64_t{::truncate(p, 100)}; }},
    {"truncate to -1", [](const char* p) { return int64_t{::truncate(p, -1)}; }},
    {"mkdir", [](const char* p) { return int64_t{::mkdir(p, 0700)}; }},
    {"mknod file", [](const char* p) { return int64_t{::mknod(p, S_IFREG | 0600, 0)}; }},
    {"mknod fifo", [](const char* p) { return int64_t{::mknod(p, S_IFIFO | 0600, 0)}; }},
    {"mknod device", [](const char* p) { return int64_t{::mknod(p, S_IFCHR | 0600, 0x103)}; }},
    {"symlink", [](const char* p) { return int64_t{::symlink("target", p)}; }},
    {"bind", Bind},
    {"link from", [](const char* p) { return LinkAndUnlink(p, 0); }},
    {"link from, through links", [](const char* p) { return LinkAndUnlink(p, AT_SYMLINK_FOLLOW); }},
    {"link to", [](const char* p) { return int64_t{::link("d/big", p)}; }},
    {"rename there and back", [](const char* p) { return RenameThereAndBack(p, 0); }},
    {"rename, not over others", [](const char* p) { return RenameThereAndBack(p, RENAME_NOREPLACE); }},
    {"rename, whiteout", [](const char* p) { return RenameThereAndBack(p, RENAME_WHITEOUT); }},
    {"rename to itself", [](const char* p) { return Rename2(p, p, 0); }},
    {"rename into itself", [](const char* p) { return Rename2(p, (std::string(p) + "/below").c_str(), 0); }},
    {"exchange", [](const char* p) { return Rename2(p, "d/big", RENAME_EXCHANGE); }},
    {"exchange again", [](const char* p) { return Rename2(p, "d/big", RENAME_EXCHANGE); }},
    {"rename with impossible flags", [](const char* p) { return Rename2(p, "d/big", RENAME_EXCHANGE | RENAME_NOREPLACE); }},
};

// Calls that take away.
const PathCase kRemovals[] = {
    {"open and cut", [](const char* p) { return Open(p, O_WRONLY | O_TRUNC); }},
    {"open for reading and cut", [](const char* p) { return Open(p, O_RDONLY | O_TRUNC); }},
    {"creat", [](const char* p) { return Open(p, O_WRONLY | O_CREAT | O_TRUNC, 0600); }},
    {"truncate", [](const char* p) { return int64_t{::truncate(p, 0)}; }},
    {"rmdir", [](const char* p) { return int64_t{::rmdir(p)}; }},
    {"rename over it", [](const char* p) { return Rename2("many/0002", p, 0); }},
    {"unlink", [](const char* p) { return int64_t{::unlink(p)}; }},
};

template <size_t N>
void RunAll(Log& log, const PathCase (&cases)[N]) {
  for (const PathCase& one : cases) {
    for (const std::string& path : CasePaths()) log.Call(std::string(one.name) + " " + path, one.call(path.c_str()));
  }
}

void StatAll(Log& log, const char* when) {
  for (const std::string& path : CasePaths()) {
    struct stat st {};
    const int direct = ::lstat(path.c_str(), &st);
    log.Call(std::string("lstat ") + when + " " + path, direct);
    if (direct == 0) log.Words(std::string("attributes ") + when + " " + path, Attributes(st));
    log.Call(std::string("stat ") + when + " " + path, ::stat(path.c_str(), &st));
  }
}

// Each call that takes a name with an address that is none.
void BadAddresses(Log& log) {
  for (const PathCase& one : kQuestions) log.Call(std::string(one.name) + " (nowhere)", std::strcmp(one.name, "connect") == 0 ? 0 : one.call(static_cast<const char*>(Nowhere())));
}

}  // namespace

void PathCases(Log& log) {
  StatAll(log, "before");
  RunAll(log, kQuestions);
  BadAddresses(log);
  RunAll(log, kChanges);
  StatAll(log, "after changes");
  RunAll(log, kRemovals);
  StatAll(log, "at the end");
}

}  // namespace headrace::fs
