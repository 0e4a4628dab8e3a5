#include "test/snapshotter/mounted_tree.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "fusefs/base/file.h"

namespace headrace::snapshotter {
namespace {

std::string Describe(const std::string& path) {
  struct stat st;
  if (::lstat(path.c_str(), &st) != 0) return "gone";
  std::string out = std::to_string(st.st_mode) + " " + std::to_string(st.st_uid) + ":" +
                    std::to_string(st.st_gid);
  if (S_ISREG(st.st_mode)) {
    Result<std::string> content = ReadFile(path, 1 << 20);
    out += " n" + std::to_string(st.st_nlink) + " " +
           (content.ok() ? *content : content.status().ToString());
  } else if (S_ISLNK(st.st_mode)) {
    out += " -> " + std::filesystem::read_symlink(path).string();
  }
  return out;
}

Status MountOne(const Mount& mount, const std::string& target) {
  bool read_only =
      std::find(mount.options.begin(), mount.options.end(), "ro") != mount.options.end();
  if (mount.type == "bind") {
    if (::mount(mount.source.c_str(), target.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
      return Status::FromErrno(errno, "bind " + mount.source);
    }
    if (read_only &&
        ::mount(nullptr, target.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) != 0) {
      return Status::FromErrno(errno, "remount " + mount.source);
    }
    return {};
  }
  // containerd goes to the common directory and uses relative paths when the options do not fit
  // into a page.
  std::string prefix;
  std::string lowerdir;
  std::string rest;
  for (const std::string& option : mount.options) {
    if (option.starts_with("lowerdir="))
      lowerdir = option;
    else
      rest += (rest.empty() ? "" : ",") + option;
  }
  std::string all = rest + (rest.empty() ? "" : ",") + lowerdir;
  std::string old = std::filesystem::current_path();
  if (all.size() > 3500) {
    size_t snapshots = lowerdir.find("/snapshots/");
    prefix = lowerdir.substr(9, snapshots + 11 - 9);
    std::string shorter;
    for (size_t i = 9; i < lowerdir.size();) {
      size_t end = std::min(lowerdir.find(':', i), lowerdir.size());
      shorter += (shorter.empty() ? "" : ":") +
                 lowerdir.substr(i + prefix.size(), end - i - prefix.size());
      i = end + 1;
    }
    all = rest + (rest.empty() ? "" : ",") + "lowerdir=" + shorter;
    std::filesystem::current_path(prefix);
  }
  int rc = ::mount("overlay", target.c_str(), "overlay", 0, all.c_str());
  int err = errno;
  std::filesystem::current_path(old);
  return rc == 0 ? OkStatus() : Status::FromErrno(err, "overlay " + all.substr(0, 200));
}

}  // namespace

Tree ReadTree(const std::string& root) {
  Tree tree;
  tree[""] = Describe(root);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    tree[entry.path().string().substr(root.size())] = Describe(entry.path().string());
  }
  return tree;
}

Mounted::Mounted(const std::vector<Mount>& mounts, std::string target)
    : target_(std::move(target)) {
  status_ = MakeDirs(target_);
  if (status_.ok() && mounts.size() != 1) status_ = InternalError("expected one mount");
  if (status_.ok()) status_ = MountOne(mounts.front(), target_);
}

Mounted::~Mounted() { ::umount2(target_.c_str(), MNT_DETACH); }

}  // namespace headrace::snapshotter
