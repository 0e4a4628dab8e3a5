// NodeRoot: the files of a node, below a directory that stands for its "/" (the node itself, an image that is being built, a test's made-up one).
// Paths are given as the node sees them, absolute. Blocks on the local disk. Any thread.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_NODE_ROOT_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_NODE_ROOT_H_

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fusefs/base/status.h"

namespace headrace::cli {

class NodeRoot {
 public:
  // "/" or a directory.
  explicit NodeRoot(std::string root);
  // True if it is this machine itself: only then are programs, sockets and the kernel asked.
  bool is_this_machine() const { return root_.empty(); }
  std::string At(const std::string& path) const { return root_ + path; }
  bool Exists(const std::string& path) const;
  bool IsDirectory(const std::string& path) const;
  bool IsSocket(const std::string& path) const;
  // nullopt: no such file. Files above kFileMax are an error.
  Result<std::optional<std::string>> Read(const std::string& path) const;
  // The same for files of /proc and /sys: what cannot be read is empty; without white space at the end.
  std::string Line(const std::string& path) const;
  // Names in a directory, sorted; none if there is none.
  std::vector<std::string> List(const std::string& directory) const;
  // Files that a pattern names: no '*', or one in the last component ("/etc/containerd/conf.d/*.toml"), as in containerd's imports. Sorted.
  std::vector<std::string> Glob(const std::string& pattern) const;
  // The same node as it would be with other contents of some files (nullopt: without the file); what writes does not see them.
  NodeRoot With(std::map<std::string, std::optional<std::string>> files) const;

  static constexpr uint64_t kFileMax = 1 << 20;

 private:
  std::string root_;
  std::map<std::string, std::optional<std::string>> instead_;
};

// "/a/b" of "/a/b/c"; "/" of "/c".
std::string DirectoryOf(const std::string& path);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_NODE_ROOT_H_
