#include "fusefs/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>

namespace headrace {

void UniqueFd::Reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<UniqueFd> OpenFile(const std::string& path, int flags, unsigned mode) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return Status::FromErrno(errno, "open " + path);
  return UniqueFd(fd);
}

Result<size_t> PreadFull(int fd, std::span<uint8_t> buffer, uint64_t offset) {
  size_t done = 0;
  while (done < buffer.size()) {
    ssize_t n = ::pread(fd, buffer.data() + done, buffer.size() - done, static_cast<off_t>(offset + done));
    if (n == 0) break;
    if (n < 0) {
      if (errno == EINTR) continue;
      return Status::FromErrno(errno, "pread");
    }
    done += static_cast<size_t>(n);
  }
  return done;
}

Status PwriteFull(int fd, std::span<const uint8_t> data, uint64_t offset) {
  size_t done = 0;
  while (done < data.size()) {
    ssize_t n = ::pwrite(fd, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (n < 0) {
      if (errno == EINTR) continue;
      return Status::FromErrno(errno, "pwrite");
    }
    done += static_cast<size_t>(n);
  }
  return {};
}

Status WriteBackError(int fd) {
  // Of a range in which no page is: nothing to wait for, but errors of the whole file are told.
  constexpr off_t kBeyondEverything = off_t{1} << 62;
  return ::sync_file_range(fd, kBeyondEverything, 1, SYNC_FILE_RANGE_WAIT_BEFORE) == 0 ? OkStatus() : Status::FromErrno(errno, "write back");
}

Status WriteFull(int fd, std::span<const uint8_t> data) {
  size_t done = 0;
  while (done < data.size()) {
    ssize_t n = ::write(fd, data.data() + done, data.size() - done);
    if (n < 0) {
      if (errno == EINTR) continue;
      return Status::FromErrno(errno, "write");
    }
    done += static_cast<size_t>(n);
  }
  return {};
}

Result<std::string> ReadFile(const std::string& path, uint64_t limit) {
  HR_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY));
  std::string out;
  char buffer[64 * 1024];
  for (;;) {
    ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n == 0) return out;
    if (n < 0) {
      if (errno == EINTR) continue;
      return Status::FromErrno(errno, "read " + path);
    }
    if (out.size() + static_cast<size_t>(n) > limit) {
      return ResourceExhaustedError(path + " is larger than " + std::to_string(limit) + " bytes");
    }
    out.append(buffer, static_cast<size_t>(n));
  }
}

Status FsyncDir(const std::string& path) {
  HR_ASSIGN_OR_RETURN(UniqueFd dir, OpenFile(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(dir.get()) != 0) return Status::FromErrno(errno, "fsync " + path);
  return {};
}

Status WriteFileAtomic(const std::string& path, std::string_view data, unsigned mode, Durability durability) {
  const bool durable = durability == Durability::kMachineCrash;
  static std::atomic<uint64_t> sequence{0};  // only makes temporary names of this process distinct
  std::string temporary = path + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(sequence++);
  {
    HR_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode));
    Status status = WriteFull(fd.get(), {reinterpret_cast<const uint8_t*>(data.data()), data.size()});
    if (status.ok() && durable && ::fsync(fd.get()) != 0) status = Status::FromErrno(errno, "fsync");
    if (!status.ok()) {
      ::unlink(temporary.c_str());
      return status.Annotate(temporary);
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    Status status = Status::FromErrno(errno, "rename to " + path);
    ::unlink(temporary.c_str());
    return status;
  }
  if (!durable) return {};
  size_t slash = path.rfind('/');
  return FsyncDir(slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash));
}

Status MakeDirs(const std::string& path, unsigned mode) {
  for (size_t pos = 1; pos <= path.size(); ++pos) {
    if (pos != path.size() && path[pos] != '/') continue;
    std::string prefix = path.substr(0, pos);
    if (::mkdir(prefix.c_str(), mode) != 0 && errno != EEXIST) {
      return Status::FromErrno(errno, "mkdir " + prefix);
    }
  }
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return Status::FromErrno(errno, "stat " + path);
  if (!S_ISDIR(st.st_mode)) return Status::FromErrno(ENOTDIR, path);
  return {};
}

namespace {

struct DirCloser {
  void operator()(DIR* d) const { ::closedir(d); }
};

Status RemoveAllAt(int parent, const char* name, dev_t device, const std::string& path, int depth) {
  if (depth > 4096) return ResourceExhaustedError(path + ": deeper than 4096 directories");
  if (::unlinkat(parent, name, 0) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM) return Status::FromErrno(errno, "unlink " + path);
  UniqueFd fd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid() && errno == ENOENT) return {};  // somebody else removes the same tree
  if (!fd.valid()) return Status::FromErrno(errno, "open " + path);
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return Status::FromErrno(errno, "stat " + path);
  if (st.st_dev != device) return FailedPreconditionError(path + " is a mount point");
  std::unique_ptr<DIR, DirCloser> dir(::fdopendir(::dup(fd.get())));
  if (!dir) return Status::FromErrno(errno, "opendir " + path);
  while (dirent* entry = ::readdir(dir.get())) {
    std::string_view child = entry->d_name;
    if (child == "." || child == "..") continue;
    HR_RETURN_IF_ERROR(RemoveAllAt(fd.get(), entry->d_name, device, path + "/" + entry->d_name, depth + 1));
  }
  if (::unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT) {
    return Status::FromErrno(errno, "rmdir " + path);
  }
  return {};
}

}  // namespace

Status RemoveAll(const std::string& path) {
  struct stat st;
  if (::lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return {};
    return Status::FromErrno(errno, "stat " + path);
  }
  return RemoveAllAt(AT_FDCWD, path.c_str(), st.st_dev, path, 0);
}

}  // namespace headrace
