#include "test/cache/disk_recorder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdarg>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <utility>

#include "fusefs/base/status.h"

// What the linker calls the C library's own. The names are the linker's; 64: _FILE_OFFSET_BITS is 64 everywhere.
extern "C" {
int __real_open64(const char* path, int flags, ...);                            // NOLINT
int __real_close(int fd);                                                      // NOLINT
ssize_t __real_pwrite64(int fd, const void* bytes, size_t size, off_t offset);   // NOLINT
ssize_t __real_write(int fd, const void* bytes, size_t size);                  // NOLINT
int __real_ftruncate64(int fd, off_t size);                                      // NOLINT
int __real_truncate64(const char* path, off_t size);                             // NOLINT
int __real_fallocate64(int fd, int mode, off_t offset, off_t size);              // NOLINT
int __real_fsync(int fd);                                                      // NOLINT
int __real_fdatasync(int fd);                                                  // NOLINT
int __real_rename(const char* from, const char* to);                           // NOLINT
int __real_unlink(const char* path);                                           // NOLINT
int __real_mkdir(const char* path, mode_t mode);                               // NOLINT
int __real_fstat64(int fd, struct stat* st);                                     // NOLINT
int __real_stat64(const char* path, struct stat* st);                            // NOLINT
}

namespace headrace::test {

using Kind = DiskOp::Kind;
using FileKey = std::pair<dev_t, ino_t>;

struct DiskRecorder::State {
  std::string root;
  DiskModel model;
  std::map<int, uint32_t> open;       // descriptors to nodes
  std::map<int, uint64_t> positions;  // of write(2)
  std::map<FileKey, uint32_t> real;   // what the files really are, to nodes

  // The path below the root, or false.
  bool Below(const char* path, std::string* rest) const {
    const std::string p = path;
    if (!p.starts_with(root + "/") && p != root) return false;
    *rest = p.substr(std::min(p.size(), root.size() + 1));
    return true;
  }
  uint32_t NodeOf(int fd) const {
    const auto it = open.find(fd);
    return it == open.end() ? 0 : it->second;
  }
  uint32_t NodeOf(const char* path) const {
    std::string rest;
    if (std::string(path).starts_with("/proc/self/fd/")) return NodeOf(std::atoi(path + 14));
    return Below(path, &rest) ? model.Find(rest) : 0;
  }
  // The directory of a path, and the last name.
  std::pair<uint32_t, std::string> Parent(const std::string& rest) const {
    const size_t slash = rest.rfind('/');
    if (slash == std::string::npos) return {1, rest};
    return {model.Find(rest.substr(0, slash)), rest.substr(slash + 1)};
  }
  void SetName(const std::string& rest, uint32_t child, bool directory) {
    const auto [parent, name] = Parent(rest);
    HEADRACE_CHECK(parent != 0);
    model.Apply({.kind = Kind::kName, .node = parent, .name = name, .child = child, .directory = directory});
  }
  // A file without names and descriptors is gone, and the kernel may use its number again.
  void ReleaseIfGone(uint32_t node) {
    for (const auto& [fd, of] : open) {
      if (of == node) return;
    }
    model.Release(node);
    if (model.now().at(node).inode == 0) std::erase_if(real, [node](const auto& entry) { return entry.second == node; });
  }
  void Register(const std::string& path, uint32_t node) {
    struct stat st;
    HEADRACE_CHECK(__real_stat64(path.c_str(), &st) == 0);
    real[{st.st_dev, st.st_ino}] = node;
  }
};

namespace {

std::recursive_mutex mu;                         // over each call and its record: one order for both
std::shared_ptr<DiskRecorder::State> recording;  // guarded by mu

void Show(struct stat* st) {
  if (!recording) return;
  const auto it = recording->real.find({st->st_dev, st->st_ino});
  if (it == recording->real.end()) return;
  const DiskNode& node = recording->model.now().at(it->second);
  st->st_ino = node.inode;
  st->st_mtim = {static_cast<time_t>(node.modified), 0};
  st->st_ctim = {static_cast<time_t>(node.changed), 0};
}

int Sync(int fd, Kind kind) {
  const std::lock_guard lock(mu);
  const uint32_t node = recording ? recording->NodeOf(fd) : 0;
  if (node == 0) return kind == Kind::kSyncAll ? __real_fsync(fd) : __real_fdatasync(fd);
  recording->model.Apply({.kind = kind, .node = node});
  return 0;
}

void Wrote(int fd, const void* bytes, ssize_t size, uint64_t offset) {
  const uint32_t node = recording ? recording->NodeOf(fd) : 0;
  if (node == 0 || size <= 0) return;
  recording->model.Apply(
      {.kind = Kind::kWrite, .node = node, .offset = offset, .bytes = std::string(static_cast<const char*>(bytes), static_cast<size_t>(size))});
}

void Truncated(uint32_t node, off_t size) {
  if (node != 0) recording->model.Apply({.kind = Kind::kTruncate, .node = node, .size = static_cast<uint64_t>(size)});
}

void Build(DiskRecorder::State& state, const DiskState& base, uint32_t id, const std::string& path) {
  const DiskNode& node = base.at(id);
  if (node.directory) {
    HEADRACE_CHECK(__real_mkdir(path.c_str(), 0700) == 0);
    for (const auto& [name, child] : node.names) Build(state, base, child, path + "/" + name);
  } else {
    const int fd = __real_open64(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    HEADRACE_CHECK(fd >= 0);
    HEADRACE_CHECK(__real_write(fd, node.bytes.data(), node.bytes.size()) == static_cast<ssize_t>(node.bytes.size()));
    __real_close(fd);
  }
  state.Register(path, id);
}

std::string Compare(const DiskState& state, uint32_t id, const std::string& path) {
  const DiskNode& node = state.at(id);
  if (!node.directory) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream bytes;
    bytes << in.rdbuf();
    return in.good() && bytes.str() == node.bytes ? "" : path + " has other bytes than the model";
  }
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    ++count;
    const auto it = node.names.find(entry.path().filename());
    if (it == node.names.end()) return entry.path().string() + " is not in the model";
    if (std::string found = Compare(state, it->second, entry.path()); !found.empty()) return found;
  }
  return count == node.names.size() ? "" : path + " misses names of the model";
}

}  // namespace

DiskRecorder::DiskRecorder(std::string root, DiskState base) : state_(std::make_shared<State>()) {
  state_->root = std::move(root);
  Build(*state_, base, 1, state_->root);
  state_->model = DiskModel(std::move(base));
  const std::lock_guard lock(mu);
  HEADRACE_CHECK(recording == nullptr);
  recording = state_;
}

DiskRecorder::~DiskRecorder() {
  const std::lock_guard lock(mu);
  recording = nullptr;
}

void DiskRecorder::Mark(const std::string& name) {
  const std::lock_guard lock(mu);
  state_->model.Apply({.kind = Kind::kMark, .name = name});
}

size_t DiskRecorder::changes() const {
  const std::lock_guard lock(mu);
  return state_->model.ops().size();
}

DiskModel DiskRecorder::model() const {
  const std::lock_guard lock(mu);
  return state_->model;
}

std::string DiskRecorder::Difference() const {
  const std::lock_guard lock(mu);
  return Compare(state_->model.now(), 1, state_->root);
}

// NOLINTBEGIN: names and shapes of the C library's functions
extern "C" {

int __wrap_open64(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  const std::lock_guard lock(mu);
  std::string rest;
  const uint32_t before = recording ? recording->NodeOf(path) : 0;
  const int fd = __real_open64(path, flags, mode);
  if (fd < 0 || !recording) return fd;
  uint32_t node = before;
  if (node == 0 && (flags & O_CREAT) != 0 && recording->Below(path, &rest)) {
    node = recording->model.NewNode();
    recording->SetName(rest, node, false);
    recording->Register(path, node);
  }
  if (node == 0) return fd;
  recording->open[fd] = node;
  recording->positions[fd] = 0;
  if (before != 0 && (flags & O_TRUNC) != 0) Truncated(node, 0);
  return fd;
}

int __wrap_close(int fd) {
  const std::lock_guard lock(mu);
  const uint32_t node = recording ? recording->NodeOf(fd) : 0;
  if (node != 0) {
    recording->open.erase(fd);
    recording->ReleaseIfGone(node);
  }
  return __real_close(fd);
}

ssize_t __wrap_pwrite64(int fd, const void* bytes, size_t size, off_t offset) {
  const std::lock_guard lock(mu);
  const ssize_t n = __real_pwrite64(fd, bytes, size, offset);
  Wrote(fd, bytes, n, static_cast<uint64_t>(offset));
  return n;
}

ssize_t __wrap_write(int fd, const void* bytes, size_t size) {
  const std::lock_guard lock(mu);
  const ssize_t n = __real_write(fd, bytes, size);
  if (n <= 0 || !recording) return n;
  Wrote(fd, bytes, n, recording->positions[fd]);
  recording->positions[fd] += static_cast<uint64_t>(n);
  return n;
}

int __wrap_ftruncate64(int fd, off_t size) {
  const std::lock_guard lock(mu);
  const int result = __real_ftruncate64(fd, size);
  if (result == 0 && recording) Truncated(recording->NodeOf(fd), size);
  return result;
}

int __wrap_truncate64(const char* path, off_t size) {
  const std::lock_guard lock(mu);
  const int result = __real_truncate64(path, size);
  if (result == 0 && recording) Truncated(recording->NodeOf(path), size);
  return result;
}

int __wrap_fallocate64(int fd, int mode, off_t offset, off_t size) {
  const std::lock_guard lock(mu);
  const int result = __real_fallocate64(fd, mode, offset, size);
  const uint32_t node = recording ? recording->NodeOf(fd) : 0;
  if (result == 0 && node != 0) {
    HEADRACE_CHECK(mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE));
    recording->model.Apply(
        {.kind = Kind::kPunch, .node = node, .offset = static_cast<uint64_t>(offset), .size = static_cast<uint64_t>(size)});
  }
  return result;
}

int __wrap_fsync(int fd) { return Sync(fd, Kind::kSyncAll); }
int __wrap_fdatasync(int fd) { return Sync(fd, Kind::kSyncData); }

int __wrap_rename(const char* from, const char* to) {
  const std::lock_guard lock(mu);
  const uint32_t node = recording ? recording->NodeOf(from) : 0;
  const uint32_t replaced = recording ? recording->NodeOf(to) : 0;
  const int result = __real_rename(from, to);
  std::string rest_from, rest_to;
  if (result != 0 || node == 0 || !recording->Below(from, &rest_from) || !recording->Below(to, &rest_to)) return result;
  const auto [source, source_name] = recording->Parent(rest_from);
  const auto [parent, name] = recording->Parent(rest_to);
  recording->model.Apply({.kind = Kind::kName, .node = parent, .name = name, .child = node, .from = source, .from_name = source_name});
  if (replaced != 0) recording->ReleaseIfGone(replaced);
  return result;
}

int __wrap_unlink(const char* path) {
  const std::lock_guard lock(mu);
  const uint32_t node = recording ? recording->NodeOf(path) : 0;
  const int result = __real_unlink(path);
  std::string rest;
  if (result != 0 || node == 0 || !recording->Below(path, &rest)) return result;
  recording->SetName(rest, 0, false);
  recording->model.Apply({.kind = Kind::kTouch, .node = node});
  recording->ReleaseIfGone(node);
  return result;
}

int __wrap_mkdir(const char* path, mode_t mode) {
  const std::lock_guard lock(mu);
  const int result = __real_mkdir(path, mode);
  std::string rest;
  if (result != 0 || !recording || !recording->Below(path, &rest)) return result;
  const uint32_t node = recording->model.NewNode();
  recording->SetName(rest, node, true);
  recording->Register(path, node);
  return result;
}

int __wrap_fstat64(int fd, struct stat* st) {
  const std::lock_guard lock(mu);
  const int result = __real_fstat64(fd, st);
  if (result == 0) Show(st);
  return result;
}

int __wrap_stat64(const char* path, struct stat* st) {
  const std::lock_guard lock(mu);
  const int result = __real_stat64(path, st);
  if (result == 0) Show(st);
  return result;
}

}  // extern "C"
// NOLINTEND

}  // namespace headrace::test
