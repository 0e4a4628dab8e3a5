// Trees as plain values, and mounts that go away: what the tests with real mounts compare and hold.
#ifndef HEADRACE_TEST_SNAPSHOTTER_MOUNTED_TREE_H_
#define HEADRACE_TEST_SNAPSHOTTER_MOUNTED_TREE_H_

#include <map>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "snapshotter/core/mounts.h"

namespace headrace::snapshotter {

// path -> "type mode uid gid [content | target]"; directories included, the root as "".
using Tree = std::map<std::string, std::string>;
Tree ReadTree(const std::string& root);

// Mounts what the snapshotter answered, as containerd would (bind then remounted read-only, overlay
// with its options); unmounts when it goes. Needs a private mount namespace.
class Mounted {
 public:
  Mounted(const std::vector<Mount>& mounts, std::string target);
  ~Mounted();
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;
  const Status& status() const { return status_; }
  const std::string& path() const { return target_; }

 private:
  std::string target_;
  Status status_;
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_TEST_SNAPSHOTTER_MOUNTED_TREE_H_
