#include "snapshotter/cli/tree_scan.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>

#include "fusefs/base/file.h"
#include "fusefs/base/text.h"

namespace headrace::cli {
namespace {

using format::Entry;
using format::EntryType;

constexpr size_t kNameMax = 4096;
constexpr size_t kComponentMax = 255;
constexpr size_t kEntriesMax = 4'000'000;
constexpr size_t kReadSize = 256 << 10;  // stays in a core's cache until it is copied
constexpr size_t kXattrBytesMax = 64 << 10;  // the kernel's own limit for one value and for the list of names

int64_t Nanoseconds(const timespec& t) { return t.tv_sec * 1'000'000'000ll + t.tv_nsec; }

FileStamp StampOf(const struct stat& st) {
  return {st.st_dev, st.st_ino, Nanoseconds(st.st_mtim), Nanoseconds(st.st_ctim), static_cast<uint64_t>(st.st_size)};
}

Result<std::vector<std::pair<std::string, std::string>>> ReadXattrs(const std::string& path) {
  std::vector<std::pair<std::string, std::string>> out;
  std::string names(kXattrBytesMax, '\0');
  const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
  if (size < 0) {
    if (errno == ENOTSUP || errno == EPERM) return out;
    return Status::FromErrno(errno, "extended attributes of " + path);
  }
  names.resize(static_cast<size_t>(size));
  std::string value(size > 0 ? kXattrBytesMax : 0, '\0');
  for (std::string_view name : Split(names, '\0')) {
    if (!name.starts_with("user.") && name != "security.capability") continue;
    const std::string key(name);
    const ssize_t n = ::lgetxattr(path.c_str(), key.c_str(), value.data(), value.size());
    if (n < 0) return Status::FromErrno(errno, "extended attribute " + key + " of " + path);
    out.emplace_back(key, value.substr(0, static_cast<size_t>(n)));
  }
  std::sort(out.begin(), out.end());
  return out;
}

class Scanner {
 public:
  explicit Scanner(const ScanOptions& options) : options_(options) {}

  Result<Tree> Run(const std::string& dir) {
    AddPrefix();
    std::vector<std::pair<std::string, std::string>> todo = {{dir, options_.prefix}};
    while (!todo.empty()) {
      const auto [source, name] = std::move(todo.back());
      todo.pop_back();
      HR_RETURN_IF_ERROR(ScanDirectory(source, name, todo));
    }
    std::sort(tree_.files.begin(), tree_.files.end(),
              [](const ScannedFile& a, const ScannedFile& b) { return a.entry.name < b.entry.name; });
    LinkHardLinks();
    return std::move(tree_);
  }

 private:
  using Todo = std::vector<std::pair<std::string, std::string>>;

  void AddPrefix() {
    for (size_t end = 0; end < options_.prefix.size();) {
      end = std::min(options_.prefix.find('/', end + 1), options_.prefix.size());
      ScannedFile file;
      file.entry.type = EntryType::kDirectory;
      file.entry.name = options_.prefix.substr(0, end);
      file.entry.mode = 0755;
      file.entry.uid = options_.uid;
      file.entry.gid = options_.gid;
      file.entry.mtime_s = options_.time_max;
      tree_.files.push_back(std::move(file));
    }
  }

  Status ScanDirectory(const std::string& source, const std::string& name, Todo& todo) {
    std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(source.c_str()), [](DIR* d) { return ::closedir(d); });
    if (!dir) return Status::FromErrno(errno, "open directory " + source);
    for (;;) {
      errno = 0;
      dirent* child = ::readdir(dir.get());
      if (child == nullptr) break;
      const std::string_view base = child->d_name;
      if (base == "." || base == "..") continue;
      const std::string path = source + "/" + child->d_name;
      if (base.starts_with(".wh.")) {
        return InvalidArgumentError(path + ": names that start with .wh. mean a deletion in an image; rename it");
      }
      HR_RETURN_IF_ERROR(AddFile(path, name.empty() ? std::string(base) : name + "/" + child->d_name, todo));
    }
    return errno == 0 ? OkStatus() : Status::FromErrno(errno, "read directory " + source);
  }

  Status AddFile(const std::string& path, const std::string& name, Todo& todo) {
    if (name.size() > kNameMax) return InvalidArgumentError(path + ": the name in the image is longer than 4096 bytes");
    if (tree_.files.size() >= kEntriesMax) return ResourceExhaustedError(path + ": more than 4000000 files");
    struct stat st;
    if (::lstat(path.c_str(), &st) != 0) return Status::FromErrno(errno, path);
    ScannedFile file;
    file.source = path;
    file.entry.name = name;
    file.entry.mode = st.st_mode & 07777;
    file.entry.uid = options_.uid;
    file.entry.gid = options_.gid;
    file.entry.mtime_s = options_.keep_mtime ? st.st_mtim.tv_sec : std::min<int64_t>(st.st_mtim.tv_sec, options_.time_max);
    HR_ASSIGN_OR_RETURN(const bool take, SetType(st, path, file));
    if (!take) return {};
    HR_ASSIGN_OR_RETURN(file.entry.xattrs, ReadXattrs(path));
    if (file.entry.type == EntryType::kDirectory) todo.emplace_back(path, name);
    if (file.entry.type == EntryType::kRegular && st.st_nlink > 1) {
      linked_[{st.st_dev, st.st_ino}].push_back(name);
    }
    tree_.files.push_back(std::move(file));
    return {};
  }

  // False: the file is left out.
  Result<bool> SetType(const struct stat& st, const std::string& path, ScannedFile& file) {
    Entry& entry = file.entry;
    switch (st.st_mode & S_IFMT) {
      case S_IFREG:
        entry.type = EntryType::kRegular;
        entry.size = static_cast<uint64_t>(st.st_size);
        file.stamp = StampOf(st);
        return true;
      case S_IFDIR:
        entry.type = EntryType::kDirectory;
        return true;
      case S_IFLNK: {
        std::string target(kNameMax, '\0');
        const ssize_t n = ::readlink(path.c_str(), target.data(), target.size());
        if (n < 0) return Status::FromErrno(errno, "read link " + path);
        entry.type = EntryType::kSymlink;
        entry.link_target = target.substr(0, static_cast<size_t>(n));
        entry.mode = 0777;
        return true;
      }
      case S_IFCHR:
      case S_IFBLK:
        entry.type = S_ISCHR(st.st_mode) ? EntryType::kCharDevice : EntryType::kBlockDevice;
        entry.dev_major = major(st.st_rdev);
        entry.dev_minor = minor(st.st_rdev);
        return true;
      case S_IFIFO:
        entry.type = EntryType::kFifo;
        return true;
      default:
        tree_.warnings.push_back(path + ": a socket cannot be in an image; left out");
        return false;
    }
  }

  void LinkHardLinks() {
    std::map<std::string, std::string> target_of;
    for (auto& [inode, names] : linked_) {
      std::sort(names.begin(), names.end());
      for (size_t i = 1; i < names.size(); ++i) target_of[names[i]] = names[0];
    }
    if (target_of.empty()) return;
    for (ScannedFile& file : tree_.files) {
      auto it = target_of.find(file.entry.name);
      if (it == target_of.end()) continue;
      file.entry.type = EntryType::kHardlink;
      file.entry.link_target = it->second;
      file.entry.size = 0;
      file.entry.xattrs.clear();
    }
  }

  const ScanOptions& options_;
  Tree tree_;
  std::map<std::pair<dev_t, ino_t>, std::vector<std::string>> linked_;
};

Status Changed(const ScannedFile& file) {
  return AbortedError(file.source + " changed while the image was built; build again when nobody writes to it");
}

}  // namespace

Result<Tree> ScanTree(const std::string& dir, const ScanOptions& options) {
  struct stat st;
  if (::stat(dir.c_str(), &st) != 0) return Status::FromErrno(errno, dir);
  if (!S_ISDIR(st.st_mode)) return InvalidArgumentError(dir + " is not a directory");
  return Scanner(options).Run(dir);
}

Result<std::string> CleanImagePath(std::string_view text) {
  std::string out;
  for (std::string_view part : Split(text, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == ".." || part.size() > kComponentMax || part.starts_with(".wh.")) {
      return InvalidArgumentError("'" + std::string(text) + "' cannot be a path in an image");
    }
    out += (out.empty() ? "" : "/") + std::string(part);
  }
  if (out.size() > kNameMax) return InvalidArgumentError("a path in an image has at most 4096 bytes");
  return out;
}

Status ReadScannedFile(const ScannedFile& file, const std::function<Status(std::span<const uint8_t>)>& sink) {
  HR_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(file.source, O_RDONLY | O_NOFOLLOW));
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return Status::FromErrno(errno, "stat " + file.source);
  if (StampOf(st) != file.stamp) return Changed(file);
  // Only advice: sequential reading of a file that is not needed again.
  static_cast<void>(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL));
  std::vector<uint8_t> buffer(std::min<uint64_t>(kReadSize, std::max<uint64_t>(file.entry.size, 1)));
  for (uint64_t offset = 0; offset < file.entry.size;) {
    const size_t want = static_cast<size_t>(std::min<uint64_t>(buffer.size(), file.entry.size - offset));
    Result<size_t> got = PreadFull(fd.get(), std::span(buffer).first(want), offset);
    if (!got.ok()) return got.status().Annotate(file.source);
    if (*got != want) return Changed(file);
    HR_RETURN_IF_ERROR(sink(std::span(buffer).first(want)));
    offset += want;
  }
  if (::fstat(fd.get(), &st) != 0) return Status::FromErrno(errno, "stat " + file.source);
  return StampOf(st) == file.stamp ? OkStatus() : Changed(file);
}

}  // namespace headrace::cli
