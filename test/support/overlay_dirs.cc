#include "test/support/overlay_dirs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <sstream>

#include "fusefs/base/file.h"

namespace headrace::test {
namespace {

using format::EntryType;

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

std::string BaseOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Status Check(int rc, const std::string& what) { return rc < 0 ? Status::FromErrno(errno, what) : OkStatus(); }

// Metadata of directories in the merged tree so far: explicit entries only.
using DirMeta = std::map<std::string, format::Entry>;

void EraseTree(DirMeta& dirs, const std::string& path, bool itself) {
  std::erase_if(dirs, [&](const auto& d) {
    if (d.first == path) return itself;
    return path.empty() || d.first.starts_with(path + "/");
  });
}

class LayerOnDisk {
 public:
  LayerOnDisk(std::string root, DirMeta& merged) : root_(std::move(root)), merged_(merged) {}

  Status Write(const TreeLayer& layer) {
    HR_RETURN_IF_ERROR(Check(::mkdir(root_.c_str(), 0755), root_));
    dirs_.insert("");
    for (const TreeEntry& entry : layer) HR_RETURN_IF_ERROR(Extract(entry));
    HR_RETURN_IF_ERROR(ApplyWhiteouts());
    return FinishDirectories();
  }

 private:
  std::string Real(const std::string& path) const { return path.empty() ? root_ : root_ + "/" + path; }

  Status Extract(const TreeEntry& item) {
    const format::Entry& e = item.meta;
    const std::string parent = ParentOf(e.name);
    HR_RETURN_IF_ERROR(MakeParents(e.name.empty() ? "" : parent));
    const std::string base = BaseOf(e.name);
    if (base == ".wh..wh..opq") {
      opaque_.insert(parent);
      return OkStatus();
    }
    if (base.starts_with(".wh.")) {
      whiteouts_.insert((parent.empty() ? "" : parent + "/") + base.substr(4));
      return OkStatus();
    }
    if (e.type == EntryType::kDirectory) {
      explicit_[e.name] = e;
      if (dirs_.insert(e.name).second) return Check(::mkdir(Real(e.name).c_str(), 0755), e.name);
      return OkStatus();
    }
    files_.insert(e.name);
    if (e.type == EntryType::kHardlink) return Check(::link(Real(e.link_target).c_str(), Real(e.name).c_str()), e.name);
    if (::unlink(Real(e.name).c_str()) < 0 && errno != ENOENT) return Status::FromErrno(errno, e.name);
    HR_RETURN_IF_ERROR(Create(item));
    return SetMeta(e);
  }

  Status MakeParents(const std::string& dir) {
    if (dirs_.contains(dir)) return OkStatus();
    HR_RETURN_IF_ERROR(MakeParents(ParentOf(dir)));
    dirs_.insert(dir);
    return Check(::mkdir(Real(dir).c_str(), 0755), dir);
  }

  Status Create(const TreeEntry& item) {
    const format::Entry& e = item.meta;
    const std::string path = Real(e.name);
    const dev_t dev = makedev(e.dev_major, e.dev_minor);
    switch (e.type) {
      case EntryType::kSymlink: return Check(::symlink(e.link_target.c_str(), path.c_str()), e.name);
      case EntryType::kFifo: return Check(::mknod(path.c_str(), S_IFIFO | 0600, 0), e.name);
      case EntryType::kCharDevice: return Check(::mknod(path.c_str(), S_IFCHR | 0600, dev), e.name);
      case EntryType::kBlockDevice: return Check(::mknod(path.c_str(), S_IFBLK | 0600, dev), e.name);
      default: break;
    }
    HR_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_CREAT | O_EXCL | O_WRONLY));
    return WriteFull(fd.get(), {reinterpret_cast<const uint8_t*>(item.content.data()), item.content.size()});
  }

  Status SetMeta(const format::Entry& e) {
    const std::string path = Real(e.name);
    HR_RETURN_IF_ERROR(Check(::lchown(path.c_str(), e.uid, e.gid), "chown " + e.name));
    if (e.type != EntryType::kSymlink) HR_RETURN_IF_ERROR(Check(::chmod(path.c_str(), e.mode), "chmod " + e.name));
    for (const auto& [name, value] : e.xattrs) {
      if (name.starts_with("trusted.overlay.")) continue;  // never shown
      const int rc = ::lsetxattr(path.c_str(), name.c_str(), value.data(), value.size(), 0);
      HR_RETURN_IF_ERROR(Check(rc, name + " " + e.name));
    }
    return SetTime(path, e.mtime_s, e.mtime_ns);
  }

  static Status SetTime(const std::string& path, int64_t seconds, uint32_t ns) {
    const struct timespec times[2] = {{seconds, static_cast<long>(ns)}, {seconds, static_cast<long>(ns)}};
    return Check(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), "utimens " + path);
  }

  // They are about the layers below only, so they come after everything else.
  Status ApplyWhiteouts() {
    for (const std::string& path : whiteouts_) {
      EraseTree(merged_, path, true);
      if (files_.contains(path)) continue;
      if (dirs_.contains(path)) {
        opaque_.insert(path);
      } else {
        HR_RETURN_IF_ERROR(Check(::mknod(Real(path).c_str(), S_IFCHR, makedev(0, 0)), "whiteout " + path));
      }
    }
    for (const std::string& path : opaque_) {
      EraseTree(merged_, path, false);
      HR_RETURN_IF_ERROR(Check(::lsetxattr(Real(path).c_str(), "trusted.overlay.opaque", "y", 1, 0), "opaque " + path));
    }
    for (const std::string& path : files_) EraseTree(merged_, path, true);
    return OkStatus();
  }

  // Times of directories last: what was made in them changed those.
  Status FinishDirectories() {
    for (auto it = dirs_.rbegin(); it != dirs_.rend(); ++it) {
      if (auto own = explicit_.find(*it); own != explicit_.end()) merged_[*it] = own->second;
      auto meta = merged_.find(*it);
      if (meta == merged_.end()) {
        HR_RETURN_IF_ERROR(SetTime(Real(*it), 0, 0));
        continue;
      }
      format::Entry e = meta->second;
      e.name = *it;
      HR_RETURN_IF_ERROR(SetMeta(e));
    }
    return OkStatus();
  }

  const std::string root_;
  DirMeta& merged_;
  DirMeta explicit_;
  std::set<std::string> dirs_, files_, whiteouts_, opaque_;
};

std::map<std::string, std::string> ReadXattrs(const std::string& path) {
  std::map<std::string, std::string> found;
  std::vector<char> names(65536), value(65536);
  const ssize_t n = ::llistxattr(path.c_str(), names.data(), names.size());
  for (ssize_t at = 0; at < n;) {
    const std::string name = &names[static_cast<size_t>(at)];
    at += static_cast<ssize_t>(name.size()) + 1;
    const ssize_t size = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    found[name] = size < 0 ? "error " + std::string(std::strerror(errno))
                           : std::string(value.data(), static_cast<size_t>(size));
  }
  return found;
}

Result<std::vector<std::string>> ListNames(const std::string& path) {
  DIR* dir = ::opendir(path.c_str());
  if (dir == nullptr) return Status::FromErrno(errno, "opendir " + path);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(dir);
  return names;
}

Result<NodeDump> DumpNode(const std::string& path, struct stat& st) {
  HR_RETURN_IF_ERROR(Check(::lstat(path.c_str(), &st), "lstat " + path));
  NodeDump node;
  node.mode = st.st_mode;
  node.uid = st.st_uid;
  node.gid = st.st_gid;
  node.rdev = S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? st.st_rdev : 0;
  node.mtime_s = st.st_mtim.tv_sec;
  node.mtime_ns = st.st_mtim.tv_nsec;
  node.xattrs = ReadXattrs(path);
  if (S_ISDIR(st.st_mode)) return node;
  node.size = static_cast<uint64_t>(st.st_size);
  node.nlink = st.st_nlink;
  if (S_ISREG(st.st_mode)) {
    HR_ASSIGN_OR_RETURN(node.content, ReadFile(path, 1u << 30));
  } else if (S_ISLNK(st.st_mode)) {
    std::vector<char> target(4096);
    const ssize_t n = ::readlink(path.c_str(), target.data(), target.size());
    HR_RETURN_IF_ERROR(Check(static_cast<int>(n), "readlink " + path));
    node.content.assign(target.data(), static_cast<size_t>(n));
  }
  return node;
}

}  // namespace

Result<std::vector<std::string>> WriteOverlayDirs(const std::vector<TreeLayer>& layers, const std::string& dir) {
  HR_RETURN_IF_ERROR(MakeDirs(dir, 0755));
  ::umask(0);
  DirMeta merged;
  std::vector<std::string> paths;
  for (size_t i = 0; i < layers.size(); ++i) {
    paths.push_back(dir + "/" + std::to_string(i));
    Status status = LayerOnDisk(paths.back(), merged).Write(layers[i]);
    if (!status.ok()) return status.Annotate("layer " + std::to_string(i));
  }
  return paths;
}

Status MountPrivateTmpfs(const std::string& dir) {
  HR_RETURN_IF_ERROR(Check(::unshare(CLONE_NEWNS), "unshare"));
  HR_RETURN_IF_ERROR(Check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make mounts private"));
  return Check(::mount("tmpfs", dir.c_str(), "tmpfs", 0, "mode=0755"), "mount tmpfs at " + dir);
}

Status MountOverlay(const std::vector<std::string>& lower, const std::string& empty, const std::string& target) {
  HR_RETURN_IF_ERROR(MakeDirs(empty, 0755));
  HR_RETURN_IF_ERROR(MakeDirs(target, 0755));
  std::string options = "lowerdir=";
  for (auto it = lower.rbegin(); it != lower.rend(); ++it) options += *it + ":";
  options += empty;
  return Check(::mount("overlay", target.c_str(), "overlay", MS_RDONLY, options.c_str()), "mount overlay " + options);
}

Result<TreeDump> DumpDirectory(const std::string& root) {
  TreeDump dump;
  std::map<ino_t, std::vector<std::string>> groups;
  std::vector<std::string> todo{""};
  while (!todo.empty()) {
    const std::string path = todo.back();
    todo.pop_back();
    const std::string real = path.empty() ? root : root + "/" + path;
    struct stat st;
    Result<NodeDump> node = DumpNode(real, st);
    // overlayfs lists whiteouts in a directory that only one layer has, but does not find them.
    if (!node.ok() && node.status().code() == StatusCode::kNotFound && !path.empty()) continue;
    HR_ASSIGN_OR_RETURN(dump[path], std::move(node));
    if (!S_ISDIR(st.st_mode)) {
      groups[st.st_ino].push_back(path);
      continue;
    }
    HR_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListNames(real));
    for (const std::string& name : names) todo.push_back(path.empty() ? name : path + "/" + name);
  }
  for (const auto& [ino, paths] : groups) {
    const std::string& first = *std::min_element(paths.begin(), paths.end());
    for (const std::string& path : paths) dump[path].group = first;
  }
  return dump;
}

std::string NodeDump::ToString() const {
  std::ostringstream out;
  out << std::oct << "mode=" << mode << std::dec << " uid=" << uid << " gid=" << gid << " size=" << size
      << " rdev=" << rdev << " nlink=" << nlink << " mtime=" << mtime_s << "." << mtime_ns << " group=" << group
      << " content=" << content.size() << " bytes, hash " << std::hash<std::string>()(content) << " xattrs:";
  for (const auto& [name, value] : xattrs) out << " " << name << "(" << value.size() << ")";
  return out.str();
}

std::string CompareDumps(const TreeDump& got, const TreeDump& want, bool nlink) {
  std::string differences;
  for (const auto& [path, node] : want) {
    auto it = got.find(path);
    if (it == got.end()) {
      differences += "missing: " + path + "\n  want " + node.ToString() + "\n";
      continue;
    }
    NodeDump have = it->second;
    if (!nlink) have.nlink = node.nlink;
    if (have == node) continue;
    differences += "differs: " + path + "\n  got  " + have.ToString() + "\n  want " + node.ToString() + "\n";
  }
  for (const auto& [path, node] : got) {
    if (!want.contains(path)) differences += "too much: " + path + "\n  got  " + node.ToString() + "\n";
  }
  return differences;
}

}  // namespace headrace::test
