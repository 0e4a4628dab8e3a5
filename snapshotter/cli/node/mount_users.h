// Who uses what Headrace serves: mounts of pods that stand on the FUSE file system or on the snapshotter's directories, as /proc/self/mountinfo has them.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_MOUNT_USERS_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_MOUNT_USERS_H_

#include <string>
#include <string_view>
#include <vector>

namespace headrace::cli {

struct HeadracePlaces {
  std::string mountpoint;        // of headrace-fused
  std::string snapshotter_root;
};

// Where those mounts are, in the order of the table; the mount point of headrace-fused itself is none.
std::vector<std::string> FindMountUsers(std::string_view mountinfo, const HeadracePlaces& places);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_MOUNT_USERS_H_
