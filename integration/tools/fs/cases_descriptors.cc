#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <vector>

#include "integration/tools/fs/cases.h"

namespace headrace::fs {
namespace {

struct DescriptorCase {
  const char* name;
  int64_t (*call)(int fd);
};

int64_t Map(int fd, int protection, int flags, size_t size = 4096, off_t offset = 0) {
  void* const at = ::mmap(nullptr, size, protection, flags, fd, offset);
  if (at == MAP_FAILED) return -1;
  ::munmap(at, size);
  return 0;
}

int64_t Lock(int fd, int command, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return ::fcntl(fd, command, &lock);
}

int64_t ChangeDirectory(int fd) {
  const Descriptor here(::open(".", O_PATH | O_CLOEXEC));
  const int64_t result = ::fchdir(fd);
  const int code = errno;
  if (::fchdir(here.get()) != 0) Die("fchdir");
  errno = code;
  return result;
}

int64_t AlwaysZero(int64_t result) { return result < 0 ? -1 : 0; }

char room[8192];

const DescriptorCase kReads[] = {
    {"read", [](int fd) { return int64_t{::read(fd, room, 100)}; }},
    {"read nothing", [](int fd) { return int64_t{::read(fd, room, 0)}; }},
    {"read into nowhere", [](int fd) { return int64_t{::read(fd, Nowhere(), 100)}; }},
    {"pread far behind", [](int fd) { return int64_t{::pread(fd, room, 100, off_t{1} << 40)}; }},
    {"pread -1", [](int fd) { return int64_t{::pread(fd, room, 100, -1)}; }},
    {"pread at the last place", [](int fd) { return int64_t{::pread(fd, room, 100, LLONG_MAX)}; }},
    {"readv, too many parts", [](int fd) { static iovec parts[1025]; return int64_t{::readv(fd, parts, 1025)}; }},
    {"readv, no parts", [](int fd) { return int64_t{::readv(fd, nullptr, 0)}; }},
    {"readv, too long", [](int fd) { const iovec parts[2] = {{room, SIZE_MAX / 2}, {room, SIZE_MAX / 2}}; return int64_t{::readv(fd, parts, 2)}; }},
    {"preadv2, unknown flags", [](int fd) { const iovec part{room, 10}; return int64_t{::preadv2(fd, &part, 1, 0, 1 << 30)}; }},
    {"getdents", [](int fd) { return AlwaysZero(::syscall(SYS_getdents64, fd, room, sizeof room)); }},
    {"getdents into 20 bytes", [](int fd) { return AlwaysZero(::syscall(SYS_getdents64, fd, room, 20)); }},
    {"getdents into nowhere", [](int fd) { ::lseek(fd, 0, SEEK_SET); return AlwaysZero(::syscall(SYS_getdents64, fd, Nowhere(), 1000)); }},
    {"lseek -1", [](int fd) { return int64_t{::lseek(fd, -1, SEEK_SET)}; }},
    {"lseek odd", [](int fd) { return int64_t{::lseek(fd, 0, 77)}; }},
    {"lseek data -1", [](int fd) { return int64_t{::lseek(fd, -1, SEEK_DATA)}; }},
    {"lseek data behind", [](int fd) { return int64_t{::lseek(fd, off_t{1} << 40, SEEK_DATA)}; }},
    {"lseek hole behind", [](int fd) { return int64_t{::lseek(fd, off_t{1} << 40, SEEK_HOLE)}; }},
    {"sendfile to /dev/null", [](int fd) { const Descriptor out(::open("/dev/null", O_WRONLY | O_CLOEXEC)); off_t at = 0; return int64_t{::sendfile(out.get(), fd, &at, 10)}; }},
    {"fchdir", ChangeDirectory},
    {"openat below", [](int fd) { const Descriptor out(::openat(fd, "file", O_RDONLY | O_CLOEXEC)); return int64_t{out.ok() ? 0 : -1}; }},
    {"fstatat, empty name", [](int fd) { struct stat st; return int64_t{::fstatat(fd, "", &st, AT_EMPTY_PATH)}; }},
    {"fstatfs", [](int fd) { struct statfs st; return int64_t{::fstatfs(fd, &st)}; }},
    {"readlinkat, empty name", [](int fd) { return int64_t{::readlinkat(fd, "", room, sizeof room)}; }},
    {"fgetxattr", [](int fd) { return int64_t{::fgetxattr(fd, "user.note", room, 100)}; }},
    {"flistxattr", [](int fd) { return int64_t{::flistxattr(fd, nullptr, 0)}; }},
    {"map shared", [](int fd) { return Map(fd, PROT_READ, MAP_SHARED); }},
    {"map private and write", [](int fd) { return Map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE); }},
    {"map and run", [](int fd) { return Map(fd, PROT_READ | PROT_EXEC, MAP_PRIVATE); }},
    {"map synchronously", [](int fd) { return Map(fd, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC); }},
    {"map far behind", [](int fd) { return Map(fd, PROT_READ, MAP_SHARED, 4096, off_t{1} << 40); }},
    {"flock shared", [](int fd) { return int64_t{::flock(fd, LOCK_SH | LOCK_NB)}; }},
    {"flock exclusive", [](int fd) { return int64_t{::flock(fd, LOCK_EX | LOCK_NB)}; }},
    {"unlock", [](int fd) { return int64_t{::flock(fd, LOCK_UN)}; }},
    {"flock odd", [](int fd) { return int64_t{::flock(fd, 77)}; }},
    {"lock for reading", [](int fd) { return Lock(fd, F_SETLK, F_RDLCK); }},
    {"lock for writing", [](int fd) { return Lock(fd, F_SETLK, F_WRLCK); }},
    {"lock for reading (OFD)", [](int fd) { return Lock(fd, F_OFD_SETLK, F_RDLCK); }},
    {"ask for locks", [](int fd) { return Lock(fd, F_GETLK, F_RDLCK); }},
    {"lease for reading", [](int fd) { return int64_t{::fcntl(fd, F_SETLEASE, F_RDLCK)}; }},
    {"lease for writing", [](int fd) { return int64_t{::fcntl(fd, F_SETLEASE, F_WRLCK)}; }},
    {"give the lease back", [](int fd) { return int64_t{::fcntl(fd, F_SETLEASE, F_UNLCK)}; }},
    {"F_NOTIFY", [](int fd) { return int64_t{::fcntl(fd, F_NOTIFY, DN_ACCESS)}; }},
    {"F_GETFL", [](int fd) { return int64_t{::fcntl(fd, F_GETFL)}; }},
    {"set O_DIRECT", [](int fd) { return int64_t{::fcntl(fd, F_SETFL, O_DIRECT)}; }},
    {"fsync", [](int fd) { return int64_t{::fsync(fd)}; }},
    {"fdatasync", [](int fd) { return int64_t{::fdatasync(fd)}; }},
    {"syncfs", [](int fd) { return int64_t{::syncfs(fd)}; }},
    {"sync_file_range", [](int fd) { return int64_t{::sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE)}; }},
    {"readahead", [](int fd) { return int64_t{::readahead(fd, 0, 4096)}; }},
    {"fadvise", [](int fd) { const int code = ::posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED); errno = code; return int64_t{code == 0 ? 0 : -1}; }},
    {"FIONREAD", [](int fd) { ::lseek(fd, 0, SEEK_SET); int left = 0; return ::ioctl(fd, FIONREAD, &left) < 0 ? int64_t{-1} : int64_t{left}; }},
    {"FIGETBSZ", [](int fd) { int size = 0; return ::ioctl(fd, FIGETBSZ, &size) < 0 ? int64_t{-1} : int64_t{size}; }},
    {"FS_IOC_GETFLAGS", [](int fd) { int flags = 0; return int64_t{::ioctl(fd, FS_IOC_GETFLAGS, &flags)}; }},
    {"FS_IOC_FSGETXATTR", [](int fd) { fsxattr flags{}; return int64_t{::ioctl(fd, FS_IOC_FSGETXATTR, &flags)}; }},
    {"FS_IOC_GETVERSION", [](int fd) { long version = 0; return int64_t{::ioctl(fd, _IOR('v', 1, long), &version)}; }},
    {"FS_IOC_FIEMAP", [](int fd) { fiemap map{}; map.fm_length = 4096; return int64_t{::ioctl(fd, FS_IOC_FIEMAP, &map)}; }},
    {"FIBMAP", [](int fd) { int block = 0; return int64_t{::ioctl(fd, FIBMAP, &block)}; }},
    {"an unknown ioctl", [](int fd) { return int64_t{::ioctl(fd, _IO('@', 77), 0)}; }},
    {"copy_file_range into itself", [](int fd) { off_t from = 0, to = 4096; return int64_t{::copy_file_range(fd, &from, fd, &to, 10, 0)}; }},
};

const DescriptorCase kChanges[] = {
    {"write", [](int fd) { return int64_t{::write(fd, "x", 1)}; }},
    {"pwrite", [](int fd) { return int64_t{::pwrite(fd, "x", 1, 0)}; }},
    {"writev", [](int fd) { const iovec part{room, 10}; return int64_t{::writev(fd, &part, 1)}; }},
    {"ftruncate", [](int fd) { return int64_t{::ftruncate(fd, 0)}; }},
    {"fallocate", [](int fd) { return int64_t{::fallocate(fd, 0, 0, 100)}; }},
    {"fallocate, punch", [](int fd) { return int64_t{::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100)}; }},
    {"fallocate odd", [](int fd) { return int64_t{::fallocate(fd, 1 << 20, 0, 100)}; }},
    {"map for writing", [](int fd) { return Map(fd, PROT_READ | PROT_WRITE, MAP_SHARED); }},
    {"fchmod", [](int fd) { return int64_t{::fchmod(fd, 0750)}; }},
    {"fchown", [](int fd) { return int64_t{::fchown(fd, 1000, 1000)}; }},
    {"futimens", [](int fd) { const timespec times[2] = {{1, 1}, {1, 1}}; return int64_t{::futimens(fd, times)}; }},
    {"fsetxattr", [](int fd) { return int64_t{::fsetxattr(fd, "user.by-descriptor", "x", 1, 0)}; }},
    {"fremovexattr", [](int fd) { return int64_t{::fremovexattr(fd, "user.by-descriptor")}; }},
    {"FS_IOC_SETFLAGS", [](int fd) { int flags = FS_NOATIME_FL; return int64_t{::ioctl(fd, FS_IOC_SETFLAGS, &flags)}; }},
    {"FS_IOC_FSSETXATTR", [](int fd) { fsxattr flags{}; return int64_t{::ioctl(fd, FS_IOC_FSSETXATTR, &flags)}; }},
    {"FICLONE", [](int fd) { return int64_t{::ioctl(fd, FICLONE, fd)}; }},
    {"FITRIM", [](int fd) { fstrim_range range{0, ULLONG_MAX, 0}; return int64_t{::ioctl(fd, FITRIM, &range)}; }},
    {"FIFREEZE", [](int fd) { const int64_t got = ::geteuid() == 0 ? 0 : ::ioctl(fd, FIFREEZE, 0); return got; }},
    {"create below", [](int fd) { const Descriptor out(::openat(fd, "made", O_WRONLY | O_CREAT | O_CLOEXEC, 0600)); return int64_t{out.ok() ? 0 : -1}; }},
    {"mkdir below", [](int fd) { return int64_t{::mkdirat(fd, "made-dir", 0700)}; }},
    {"unlink below", [](int fd) { return int64_t{::unlinkat(fd, "made", 0)}; }},
    {"rmdir below", [](int fd) { return int64_t{::unlinkat(fd, "made-dir", AT_REMOVEDIR)}; }},
};

template <size_t N>
void RunAll(Log& log, const DescriptorCase (&cases)[N], const std::string& path, int flags) {
  for (const DescriptorCase& one : cases) {
    const Descriptor fd(::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK));
    const std::string what = std::string(one.name) + " (open " + std::to_string(flags) + ") " + path;
    if (!fd.ok()) return log.Done(what, false);
    log.Call(what, one.call(fd.get()));
  }
}

}  // namespace

void DescriptorCases(Log& log) {
  const char* const paths[] = {"d/file", "d/big", "empty", "sparse", "of-user/file", "sticky/of-user", "d", "empty-dir", "of-user", "fifo", "char", "other/link", "."};
  for (const char* path : paths) {
    for (const int flags : {O_RDONLY, O_PATH, O_RDONLY | O_DIRECT}) RunAll(log, kReads, path, flags);
  }
  // After all that asks: where changes are possible, they change what is read.
  for (const char* path : paths) {
    for (const int flags : {O_RDONLY, O_PATH, O_RDWR}) RunAll(log, kChanges, path, flags);
  }
  log.Call("read of a descriptor that is none", ::read(9999, room, 1));
  log.Call("close of a descriptor that is none", ::close(9999));
}

}  // namespace headrace::fs
