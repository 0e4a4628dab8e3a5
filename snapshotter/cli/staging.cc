#include "snapshotter/cli/staging.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string_view>

#include "fusefs/base/log.h"

namespace headrace::cli {
namespace {

constexpr std::string_view kPrefix = ".headrace-staging-";
constexpr int kTriesMax = 20;

// Whether `path` is still the directory that is open.
bool IsSame(const std::string& path, int fd) {
  struct stat by_name, open;
  return ::lstat(path.c_str(), &by_name) == 0 && ::fstat(fd, &open) == 0 && by_name.st_dev == open.st_dev &&
         by_name.st_ino == open.st_ino;
}

// A directory that nobody has locked belongs to a process that was killed. Whoever takes the lock removes it; a process that has just
// made one and not locked it yet notices (NewDirectory) and makes another. What cannot be removed stays: it is not ours to fail for.
void RemoveIfAbandoned(const std::string& path) {
  Result<UniqueFd> fd = OpenFile(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  struct stat st;
  if (!fd.ok() || ::fstat(fd->get(), &st) != 0 || st.st_uid != ::geteuid()) return;
  if (::flock(fd->get(), LOCK_EX | LOCK_NB) != 0 || !IsSame(path, fd->get())) return;
  if (Status s = RemoveAll(path); s.ok()) {
    log::Debug("removed {}, which a process that was killed had left", path);
  } else {
    log::Warn("left behind by a process that was killed, and cannot be removed: {}", s.ToString());
  }
}

void Sweep(const std::string& parent) {
  std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(parent.c_str()), [](DIR* d) { return ::closedir(d); });
  if (!dir) return;
  while (dirent* entry = ::readdir(dir.get())) {
    if (std::string_view(entry->d_name).starts_with(kPrefix)) RemoveIfAbandoned(parent + "/" + entry->d_name);
  }
}

// A new directory and its lock; nothing if another process swept it away between its making and its locking.
Result<std::optional<std::pair<std::string, UniqueFd>>> NewDirectory(const std::string& parent) {
  std::string path = parent + "/" + std::string(kPrefix) + "XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) return Status::FromErrno(errno, "making a temporary directory in " + parent);
  std::optional<std::pair<std::string, UniqueFd>> out;
  Result<UniqueFd> fd = OpenFile(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!fd.ok() && fd.status().code() == StatusCode::kNotFound) return out;
  if (!fd.ok()) return fd.status();
  // A file system without locks: then nobody sweeps there either.
  if (::flock(fd->get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return out;
  if (IsSame(path, fd->get())) out.emplace(path, std::move(*fd));
  return out;
}

}  // namespace

StagedBlob::~StagedBlob() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

Status StagedBlob::Where(Status status) const {
  if (status.ok()) return status;
  return status.Annotate("writing the temporary file " + path_ +
                         " (layers are compressed there first; choose another place with --tmp-dir)");
}

Status StagedBlob::Append(std::span<const uint8_t> data) {
  HR_RETURN_IF_ERROR(Where(direct_ ? direct_->Append(data) : WriteFull(fd_.get(), data)));
  size_ += data.size();
  return {};
}

Status StagedBlob::Close(Durable durable) {
  if (direct_) {
    Status status = direct_->Finish(durable);
    direct_.reset();
    return Where(std::move(status));
  }
  if (fd_.valid() && durable == Durable::kYes && ::fsync(fd_.get()) != 0) return Status::FromErrno(errno, "fsync " + path_);
  fd_.Reset();
  return {};
}

Result<std::unique_ptr<Staging>> Staging::Create(const std::string& parent, ReadBack read_back, Interrupt* interrupt) {
  Sweep(parent);
  for (int tries = 0; tries < kTriesMax; ++tries) {
    HR_ASSIGN_OR_RETURN(auto made, NewDirectory(parent));
    if (!made) continue;
    if (interrupt != nullptr) interrupt->Protect(made->first);
    return std::unique_ptr<Staging>(new Staging(made->first, std::move(made->second), read_back, interrupt));
  }
  return UnavailableError("making a temporary directory in " + parent + ": another process takes it away each time");
}

Staging::~Staging() {
  if (Status s = RemoveAll(path_); !s.ok()) log::Warn("temporary directory left behind: {}", s.ToString());
  if (interrupt_ != nullptr) interrupt_->Release(path_);
}

Result<std::unique_ptr<StagedBlob>> Staging::NewBlob() {
  const std::string path = path_ + "/" + std::to_string(next_++);
  if (read_back_ == ReadBack::kNever) {
    HR_ASSIGN_OR_RETURN(std::unique_ptr<DirectFile> file, DirectFile::Create(path));
    return std::make_unique<StagedBlob>(path, std::move(file));
  }
  HR_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_EXCL, 0644));
  return std::make_unique<StagedBlob>(path, std::move(fd));
}

}  // namespace headrace::cli
