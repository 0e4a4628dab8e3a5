// Semantics of the mounted file system as system calls see them.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <set>

#include "test/kernel/fuse_fixture.h"

namespace headrace::test {
namespace {

using format::EntryType;

TreeLayer SmallTree() {
  TreeLayer layer;
  layer.push_back(Dir("d", 0750));
  layer.push_back(File("d/file", "hello", 0640));
  layer.back().meta.uid = 12;
  layer.back().meta.gid = 34;
  layer.back().meta.mtime_s = 1'700'000'000;
  layer.back().meta.mtime_ns = 123'456'789;
  layer.back().meta.xattrs = {{"user.color", "blue"}, {"user.empty", ""}, {"trusted.secret", std::string(300, 'x')}};
  layer.push_back(Hardlink("d/second", "d/file"));
  layer.push_back(Symlink("link", "d/file"));
  layer.push_back(Symlink("dangling", std::string(4000, 'y')));
  layer.push_back(Device("null", EntryType::kCharDevice, 1, 3));
  layer.push_back(Device("disk", EntryType::kBlockDevice, 259, 65538));
  layer.push_back(Device("pipe", EntryType::kFifo, 0, 0));
  layer.push_back(File("empty"));
  layer.push_back(File("setuid", "#!", 04755));
  layer.push_back(File("odd \n \xff name", "odd"));
  return layer;
}

class FuseOpsTest : public FuseFixture {
 protected:
  void SetUp() override {
    FuseFixture::SetUp();
    if (IsSkipped()) return;
    AddLayer("7", SmallTree());
    Serve();
  }
};

std::string Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Goal: attributes arrive unchanged, in stat and in the tree; names of one hard link are one inode.
TEST_F(FuseOpsTest, Attributes) {
  struct stat file, second;
  ASSERT_EQ(::stat(Path("7/d/file").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode, static_cast<mode_t>(S_IFREG | 0640));
  EXPECT_EQ(file.st_uid, 12u);
  EXPECT_EQ(file.st_gid, 34u);
  EXPECT_EQ(file.st_size, 5);
  EXPECT_EQ(file.st_nlink, 2u);
  EXPECT_EQ(file.st_mtim.tv_sec, 1'700'000'000);
  EXPECT_EQ(file.st_mtim.tv_nsec, 123'456'789);
  ASSERT_EQ(::stat(Path("7/d/second").c_str(), &second), 0);
  EXPECT_EQ(second.st_ino, file.st_ino);
  struct stat st;
  ASSERT_EQ(::lstat(Path("7/null").c_str(), &st), 0);
  EXPECT_TRUE(S_ISCHR(st.st_mode));
  EXPECT_EQ(st.st_rdev, makedev(1, 3));
  ASSERT_EQ(::lstat(Path("7/disk").c_str(), &st), 0);
  EXPECT_TRUE(S_ISBLK(st.st_mode));
  EXPECT_EQ(st.st_rdev, makedev(259, 65538));
  ASSERT_EQ(::lstat(Path("7/pipe").c_str(), &st), 0);
  EXPECT_TRUE(S_ISFIFO(st.st_mode));
  ASSERT_EQ(::stat(Path("7/setuid").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 04755u);
  EXPECT_EQ(Read(Path("7/odd \n \xff name")), "odd");
  EXPECT_EQ(Read(Path("7/empty")), "");
  EXPECT_EQ(Read(Path("7/link")), "hello");
  std::string target(5000, '\0');
  EXPECT_EQ(::readlink(Path("7/dangling").c_str(), target.data(), target.size()), 4000);
}

// Goal: what does not exist says so, before and after the kernel remembered it; a file is not a directory.
TEST_F(FuseOpsTest, AbsentNames) {
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(OpenErrno("7/nothing", O_RDONLY), ENOENT);
    EXPECT_EQ(OpenErrno("8", O_RDONLY), ENOENT);
    EXPECT_EQ(OpenErrno("7/d/file/x", O_RDONLY), ENOTDIR);
    EXPECT_EQ(OpenErrno("7/" + std::string(256, 'n'), O_RDONLY), ENAMETOOLONG);
  }
}

class FuseReadOnlyTest : public FuseOpsTest, public ::testing::WithParamInterface<bool> {};

// Goal: every call that would change something is EROFS, also when somebody remounts the file system read-write.
TEST_P(FuseReadOnlyTest, EveryChangeIsRefused) {
  if (GetParam()) {
    ASSERT_EQ(::mount(nullptr, mountpoint.c_str(), nullptr, MS_REMOUNT, nullptr), 0) << std::strerror(errno);
  }
  const std::string file = Path("7/d/file"), dir_path = Path("7/d"), fresh = Path("7/d/new");
  EXPECT_EQ(OpenErrno("7/d/file", O_WRONLY), EROFS);
  EXPECT_EQ(OpenErrno("7/d/file", O_RDWR), EROFS);
  EXPECT_EQ(OpenErrno("7/d/file", O_WRONLY | O_APPEND), EROFS);
  EXPECT_EQ(OpenErrno("7/d/file", O_RDWR | O_TRUNC), EROFS);
  EXPECT_EQ(OpenErrno("7/d/new", O_WRONLY | O_CREAT), EROFS);
  EXPECT_EQ(OpenErrno("7/d/new", O_RDWR | O_CREAT | O_EXCL), EROFS);
  EXPECT_EQ(OpenErrno("7/d", O_RDWR | O_TMPFILE), EROFS);
  auto refused = [](int result) { return result == -1 && errno == EROFS; };
  EXPECT_TRUE(refused(::truncate(file.c_str(), 1))) << std::strerror(errno);
  EXPECT_TRUE(refused(::chmod(file.c_str(), 0777))) << std::strerror(errno);
  EXPECT_TRUE(refused(::chown(file.c_str(), 1, 1))) << std::strerror(errno);
  EXPECT_TRUE(refused(::utimensat(AT_FDCWD, file.c_str(), nullptr, 0))) << std::strerror(errno);
  EXPECT_TRUE(refused(::mknod(fresh.c_str(), S_IFREG | 0600, 0))) << std::strerror(errno);
  EXPECT_TRUE(refused(::mkdir(fresh.c_str(), 0700))) << std::strerror(errno);
  EXPECT_TRUE(refused(::symlink("x", fresh.c_str()))) << std::strerror(errno);
  EXPECT_TRUE(refused(::link(file.c_str(), fresh.c_str()))) << std::strerror(errno);
  EXPECT_TRUE(refused(::unlink(file.c_str()))) << std::strerror(errno);
  EXPECT_TRUE(refused(::rmdir(dir_path.c_str()))) << std::strerror(errno);
  EXPECT_TRUE(refused(::rename(file.c_str(), fresh.c_str()))) << std::strerror(errno);
  EXPECT_TRUE(refused(::setxattr(file.c_str(), "user.new", "v", 1, 0))) << std::strerror(errno);
  EXPECT_TRUE(refused(::removexattr(file.c_str(), "user.color"))) << std::strerror(errno);
  EXPECT_TRUE(refused(::mkdir(Path("9").c_str(), 0700))) << "in the root";
  // A descriptor for reading does not write.
  int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(::write(fd, "x", 1), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_TRUE(refused(::fchmod(fd, 0777))) << std::strerror(errno);
  EXPECT_EQ(::fsync(fd), 0) << "nothing to do";
  EXPECT_EQ(::ioctl(fd, _IO('h', 1)), -1);
  EXPECT_EQ(errno, ENOTTY);
  ::close(fd);
  EXPECT_EQ(Read(file), "hello");
}
INSTANTIATE_TEST_SUITE_P(AsMountedAndRemountedReadWrite, FuseReadOnlyTest, ::testing::Bool());

// Goal: the protocol of getxattr(2) and listxattr(2): asking for sizes, exact fits, short buffers, absent names, empty values.
TEST_F(FuseOpsTest, ExtendedAttributes) {
  const std::string file = Path("7/d/file");
  char buffer[1024];
  EXPECT_EQ(::getxattr(file.c_str(), "user.color", nullptr, 0), 4);
  EXPECT_EQ(::getxattr(file.c_str(), "user.color", buffer, 4), 4);
  EXPECT_EQ(std::string(buffer, 4), "blue");
  EXPECT_EQ(::getxattr(file.c_str(), "user.color", buffer, 3), -1);
  EXPECT_EQ(errno, ERANGE);
  EXPECT_EQ(::getxattr(file.c_str(), "user.empty", buffer, sizeof buffer), 0);
  EXPECT_EQ(::getxattr(file.c_str(), "trusted.secret", buffer, sizeof buffer), 300);
  EXPECT_EQ(::getxattr(file.c_str(), "user.none", buffer, sizeof buffer), -1);
  EXPECT_EQ(errno, ENODATA);
  EXPECT_EQ(::getxattr(Path("7").c_str(), "user.none", buffer, sizeof buffer), -1);
  EXPECT_EQ(errno, ENODATA);
  ssize_t size = ::listxattr(file.c_str(), nullptr, 0);
  ASSERT_GT(size, 0);
  EXPECT_EQ(::listxattr(file.c_str(), buffer, static_cast<size_t>(size) - 1), -1);
  EXPECT_EQ(errno, ERANGE);
  ASSERT_EQ(::listxattr(file.c_str(), buffer, sizeof buffer), size);
  std::set<std::string> names;
  for (const char* at = buffer; at < buffer + size; at += std::string(at).size() + 1) names.insert(at);
  EXPECT_EQ(names, (std::set<std::string>{"trusted.secret", "user.color", "user.empty"}));
  EXPECT_EQ(::listxattr(Path("7/empty").c_str(), buffer, sizeof buffer), 0);
}

// Goal: statfs gives numbers that df and installers can live with.
TEST_F(FuseOpsTest, StatFs) {
  struct statvfs st;
  ASSERT_EQ(::statvfs(Path("7/d").c_str(), &st), 0);
  EXPECT_EQ(st.f_namemax, 255u);
  EXPECT_EQ(st.f_bsize, 4096u);
  EXPECT_EQ(st.f_bfree, 0u);
  EXPECT_EQ(st.f_bavail, 0u);
  EXPECT_GT(st.f_blocks, 0u);
  EXPECT_TRUE(st.f_flag & ST_RDONLY);
  struct statfs fs;
  ASSERT_EQ(::statfs(mountpoint.c_str(), &fs), 0);
  EXPECT_EQ(static_cast<unsigned long>(fs.f_type), 0x65735546ul) << "FUSE_SUPER_MAGIC";
}

// Goal: another user's rights are decided by the mode bits (default_permissions), and another user may look at all (allow_other).
TEST_F(FuseOpsTest, PermissionsAreTheModeBits) {
  ASSERT_EQ(::chmod(dir.path().c_str(), 0755), 0);
  ASSERT_EQ(::seteuid(65534), 0);
  int readable = OpenErrno("7/empty", O_RDONLY);
  int hidden = OpenErrno("7/d/file", O_RDONLY);
  ASSERT_EQ(::seteuid(0), 0);
  EXPECT_EQ(readable, 0);
  EXPECT_EQ(hidden, EACCES);
}

// Goal: a mount that is added appears at once (also after it was looked for in vain); one that is removed is gone at once, while what
// is open in it goes on.
TEST_F(FuseOpsTest, MountsComeAndGo) {
  EXPECT_EQ(OpenErrno("8", O_RDONLY), ENOENT);
  AddLayer("8", {File("f", "eight")});
  EXPECT_EQ(Read(Path("8/f")), "eight");
  int fd = ::open(Path("8/f").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_OK(vfs->RemoveMount("8"));
  server->InvalidateMount("8");
  EXPECT_EQ(OpenErrno("8", O_RDONLY), ENOENT);
  EXPECT_EQ(OpenErrno("8/f", O_RDONLY), ENOENT);
  char buffer[8];
  EXPECT_EQ(::pread(fd, buffer, sizeof buffer, 0), 5);
  ::close(fd);
  std::set<std::string> names;
  DIR* root = ::opendir(mountpoint.c_str());
  while (dirent* entry = ::readdir(root)) names.insert(entry->d_name);
  ::closedir(root);
  EXPECT_EQ(names, (std::set<std::string>{".", "..", "7"}));
  server->InvalidateMount("never there");
}

// Goal: a large directory is listed completely, once each, also from remembered positions and after rewinds, in plain and cached form.
TEST_F(FuseOpsTest, LargeDirectory) {
  constexpr int kFiles = 10'000;
  TreeLayer layer{Dir("big")};
  for (int i = 0; i < kFiles; ++i) layer.push_back(File("big/file-" + std::to_string(i)));
  AddLayer("9", layer);
  DIR* directory = ::opendir(Path("9/big").c_str());
  ASSERT_NE(directory, nullptr);
  std::vector<std::pair<std::string, long>> first;  // name and the position after it
  while (dirent* entry = ::readdir(directory)) first.emplace_back(entry->d_name, ::telldir(directory));
  std::set<std::string> names;
  for (const auto& [name, position] : first) names.insert(name);
  EXPECT_EQ(first.size(), kFiles + 2u);
  EXPECT_EQ(names.size(), kFiles + 2u);
  for (size_t i : {size_t{0}, size_t{1}, first.size() / 2, first.size() - 2}) {
    ::seekdir(directory, first[i].second);
    dirent* entry = ::readdir(directory);
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->d_name, first[i + 1].first);
  }
  ::seekdir(directory, first.back().second);
  EXPECT_EQ(::readdir(directory), nullptr);
  ::rewinddir(directory);
  size_t again = 0;
  while (::readdir(directory) != nullptr) ++again;
  EXPECT_EQ(again, first.size());
  ::closedir(directory);
  size_t stats = 0;
  for (const auto& [name, position] : first) {
    struct stat st;
    if (::lstat(Path("9/big/" + name).c_str(), &st) == 0) ++stats;
  }
  EXPECT_EQ(stats, first.size());
}

// Goal: when the kernel forgets everything and asks again, everything has the same node id.
TEST_F(FuseOpsTest, InodeNumbersSurviveForgetting) {
  struct stat before, after;
  ASSERT_EQ(::stat(Path("7/d/file").c_str(), &before), 0);
  server->Stop();
  server.reset();
  Serve();
  ASSERT_EQ(::stat(Path("7/d/file").c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
}

// Goal: a file handle is good when the kernel has long forgotten the inode, and after a restart (fanotify, NFS).
TEST_F(FuseOpsTest, FileHandlesSurviveForgetting) {
  alignas(file_handle) char room[sizeof(file_handle) + MAX_HANDLE_SZ];
  auto* const handle = reinterpret_cast<file_handle*>(room);
  for (const char* name : {"7/d/file", "7/d", "7/link", "7/pipe"}) {
    handle->handle_bytes = MAX_HANDLE_SZ;
    int mount_id = 0;
    struct stat before, after;
    ASSERT_EQ(::lstat(Path(name).c_str(), &before), 0);
    ASSERT_EQ(::name_to_handle_at(AT_FDCWD, Path(name).c_str(), handle, &mount_id, 0), 0) << name << ": " << std::strerror(errno);
    server->Stop();
    server.reset();
    Serve();
    const UniqueFd root(::open(mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const UniqueFd found(::open_by_handle_at(root.get(), handle, O_PATH | O_CLOEXEC));
    ASSERT_TRUE(found.valid()) << name << ": " << std::strerror(errno);
    ASSERT_EQ(::fstat(found.get(), &after), 0);
    EXPECT_EQ(after.st_ino, before.st_ino) << name;
    EXPECT_EQ(after.st_mode, before.st_mode) << name;
  }
  // What is in no mount is stale, not a crash.
  ASSERT_GE(handle->handle_bytes, sizeof(uint64_t));
  const uint64_t nobody = uint64_t{99} << 32 | 5;
  const uint32_t halves[2] = {static_cast<uint32_t>(nobody >> 32), static_cast<uint32_t>(nobody)};
  std::memcpy(handle->f_handle, halves, sizeof halves);
  const UniqueFd root(::open(mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_LT(::open_by_handle_at(root.get(), handle, O_PATH | O_CLOEXEC), 0);
  EXPECT_EQ(errno, ESTALE);
}

// Goal: whoever owns the process hears of an unmount that it did not ask for.
TEST_F(FuseOpsTest, UnmountByOthersIsNoticed) {
  ASSERT_EQ(::umount2(mountpoint.c_str(), 0), 0) << std::strerror(errno);
  EXPECT_TRUE(Eventually([&] { return ended == 1; }));
  server->Stop();
  EXPECT_EQ(ended, 1);
}

// Goal: a mount point that a killed daemon left dead is taken over by the next. Method: a server that leaves it to a successor that never comes.
TEST_F(FuseOpsTest, StaleMountIsReplaced) {
  server->StopForSuccessor();
  server.reset();
  EXPECT_EQ(OpenErrno("7/empty", O_RDONLY), ENOTCONN);
  Serve();
  EXPECT_FALSE(server->took_over());
  EXPECT_EQ(Read(Path("7/d/file")), "hello");
}

// Goal: an id-mapped mount of the file system works (user namespaces without a recursive chown) and shifts owners.
TEST_F(FuseOpsTest, IdMappedMount) {
  // A user namespace whose id 0 is 100000 outside, held open by a child.
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::unshare(CLONE_NEWUSER) != 0) ::_exit(1);
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    ::pause();
    ::_exit(0);
  }
  ::close(ready[1]);
  char byte;
  ssize_t got = ::read(ready[0], &byte, 1);
  ::close(ready[0]);
  int mapped = -1;
  if (got == 1) {
    const std::string proc = "/proc/" + std::to_string(child);
    for (const char* map : {"/uid_map", "/gid_map"}) std::ofstream(proc + map) << "0 100000 1000\n";
    UniqueFd user_namespace(::open((proc + "/ns/user").c_str(), O_RDONLY | O_CLOEXEC));
    UniqueFd tree(static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, mountpoint.c_str(), 1 /* OPEN_TREE_CLONE */)));
    struct {
      uint64_t set, clear, propagation, namespace_fd;
    } attributes{0x00100000 /* MOUNT_ATTR_IDMAP */, 0, 0, static_cast<uint64_t>(user_namespace.get())};
    mapped = static_cast<int>(::syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes));
    if (mapped == 0) {
      struct stat st;
      EXPECT_EQ(::fstatat(tree.get(), "7/d/file", &st, 0), 0);
      EXPECT_EQ(st.st_uid, 100012u);
      EXPECT_EQ(st.st_gid, 100034u);
      UniqueFd file(::openat(tree.get(), "7/d/file", O_RDONLY | O_CLOEXEC));
      char buffer[8];
      EXPECT_EQ(::pread(file.get(), buffer, sizeof buffer, 0), 5);
    }
  }
  int error = errno;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  if (got != 1) GTEST_SKIP() << "NOT TESTED: no user namespaces here";
  EXPECT_EQ(mapped, 0) << std::strerror(error);
}

// Goal: the kernel's read-ahead is what was asked.
TEST_F(FuseOpsTest, ReadAheadIsRaised) {
  struct stat st;
  ASSERT_EQ(::stat(mountpoint.c_str(), &st), 0);
  std::string path = "/sys/class/bdi/" + std::to_string(major(st.st_dev)) + ":" + std::to_string(minor(st.st_dev)) + "/read_ahead_kb";
  if (::access(path.c_str(), W_OK) != 0) GTEST_SKIP() << path << " is not there";
  EXPECT_EQ(Read(path), "4096\n");
}

}  // namespace
}  // namespace headrace::test
