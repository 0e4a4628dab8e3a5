#include "snapshotter/core/directories.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <set>
#include <utility>

#include "fusefs/base/file.h"
#include "fusefs/base/text.h"

namespace headrace::snapshotter {
namespace {

// Deeper trees than this are refused; each level holds a descriptor while it is walked.
constexpr int kDepthMax = 2048;

struct DirCloser {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using DirPtr = std::unique_ptr<DIR, DirCloser>;

Status MakeDirectory(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0) return Status::FromErrno(errno, "mkdir " + path);
  if (::chmod(path.c_str(), mode) != 0) return Status::FromErrno(errno, "chmod " + path);
  return {};
}

class UsageWalk {
 public:
  UsageWalk(dev_t device, const std::atomic<bool>& stop) : device_(device), stop_(stop) {}
  const Usage& usage() const { return usage_; }

  void Count(const struct stat& st) {
    if (st.st_nlink > 1 && !S_ISDIR(st.st_mode) && !seen_.insert(st.st_ino).second) return;
    usage_.size += int64_t{st.st_blocks} * 512;
    usage_.inodes += 1;
  }

  Status Walk(int fd, const std::string& path, int depth) {
    if (depth > kDepthMax)
      return ResourceExhaustedError(path + ": deeper than " + std::to_string(kDepthMax) +
                                    " directories");
    DirPtr dir(::fdopendir(fd));
    if (!dir) {
      int err = errno;
      ::close(fd);
      return Status::FromErrno(err, "opendir " + path);
    }
    while (dirent* entry = ::readdir(dir.get())) {
      if (stop_.load(std::memory_order_relaxed)) return CancelledError("the snapshotter stops");
      std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      HR_RETURN_IF_ERROR(Visit(::dirfd(dir.get()), entry->d_name, path, depth));
    }
    return {};
  }

 private:
  // Files of an active snapshot come and go while it is walked: what has vanished does not count.
  Status Visit(int parent, const char* name, const std::string& path, int depth) {
    struct stat st;
    if (::fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
      return errno == ENOENT ? OkStatus() : Status::FromErrno(errno, "stat " + path + "/" + name);
    }
    if (st.st_dev != device_) return {};
    Count(st);
    if (!S_ISDIR(st.st_mode)) return {};
    int fd = ::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
      return errno == ENOENT ? OkStatus() : Status::FromErrno(errno, "open " + path + "/" + name);
    return Walk(fd, path + "/" + name, depth + 1);
  }

  dev_t device_;
  const std::atomic<bool>& stop_;
  std::set<ino_t> seen_;  // inodes with several links
  Usage usage_;
};

}  // namespace

Result<Directories> Directories::Open(const std::string& root) {
  if (root.empty() || root.front() != '/' || root.find_first_of(":,\\") != std::string::npos) {
    return InvalidArgumentError("root " + root +
                                ": must be an absolute path without ':', ',' and '\\'");
  }
  std::string base = root + "/snapshots";
  HR_RETURN_IF_ERROR(MakeDirs(base, 0700));
  return Directories(base);
}

Status Directories::Make(uint64_t id, Kind kind, Owner owner) const {
  HR_RETURN_IF_ERROR(MakeDirectory(Of(id), 0700));
  HR_RETURN_IF_ERROR(MakeDirectory(Fs(id), 0755));
  if ((owner.uid != 0 || owner.gid != 0) && ::lchown(Fs(id).c_str(), owner.uid, owner.gid) != 0) {
    return Status::FromErrno(errno, "chown " + Fs(id));
  }
  if (kind == Kind::kActive) HR_RETURN_IF_ERROR(MakeDirectory(Of(id) + "/work", 0711));
  return {};
}

Status Directories::Remove(uint64_t id) const { return RemoveAll(Of(id)); }

Result<std::vector<uint64_t>> Directories::List() const {
  DirPtr dir(::opendir(base_.c_str()));
  if (!dir) return Status::FromErrno(errno, "opendir " + base_);
  std::vector<uint64_t> out;
  while (dirent* entry = ::readdir(dir.get())) {
    Result<uint64_t> id = ParseU64(entry->d_name);
    if (id.ok() && std::to_string(*id) == entry->d_name) out.push_back(*id);
  }
  return out;
}

Result<Owner> OwnerOf(const std::string& path) {
  struct stat st;
  if (::lstat(path.c_str(), &st) != 0) return Status::FromErrno(errno, "stat " + path);
  return Owner{st.st_uid, st.st_gid};
}

Result<Usage> MeasureUsage(const std::string& path, const std::atomic<bool>& stop) {
  HR_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return Status::FromErrno(errno, "stat " + path);
  UsageWalk walk(st.st_dev, stop);
  walk.Count(st);
  HR_RETURN_IF_ERROR(walk.Walk(fd.Release(), path, 0));
  return walk.usage();
}

}  // namespace headrace::snapshotter
