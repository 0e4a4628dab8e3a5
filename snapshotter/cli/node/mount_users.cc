#include "snapshotter/cli/node/mount_users.h"

#include "fusefs/base/text.h"

namespace headrace::cli {
namespace {

// proc(5): id, parent, device, root, mount point, options, optional fields, "-", type, source, super options.
struct Mount {
  std::string_view device, root, target, type, options;
};

Mount Parse(std::string_view line) {
  Mount mount;
  const std::vector<std::string_view> fields = Split(line, ' ');
  if (fields.size() < 10) return mount;
  mount.device = fields[2], mount.root = fields[3], mount.target = fields[4];
  for (size_t i = 6; i + 3 < fields.size(); ++i) {
    if (fields[i] != "-") continue;
    mount.type = fields[i + 1], mount.options = fields[i + 3];
    break;
  }
  return mount;
}

// An overlay whose directories lie below `place`. A chain's long list may be relative, but upperdir never is.
bool StandsOn(std::string_view options, const std::string& place) {
  for (const char* before : {"lowerdir=", "upperdir=", ":"}) {
    if (options.find(before + place + "/") != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> FindMountUsers(std::string_view mountinfo, const HeadracePlaces& places) {
  std::string_view device;
  const std::vector<std::string_view> lines = Split(mountinfo, '\n');
  for (std::string_view line : lines) {
    if (const Mount mount = Parse(line); mount.target == places.mountpoint) device = mount.device;
  }
  const std::string snapshots = places.snapshotter_root + "/snapshots/";
  std::vector<std::string> users;
  for (std::string_view line : lines) {
    const Mount mount = Parse(line);
    if (mount.target.empty() || mount.target == places.mountpoint) continue;
    const bool bound = (!device.empty() && mount.device == device) || mount.root.find(snapshots) != std::string_view::npos;
    const bool overlay = mount.type == "overlay" && (StandsOn(mount.options, places.mountpoint) || StandsOn(mount.options, places.snapshotter_root));
    if (bound || overlay) users.emplace_back(mount.target);
  }
  return users;
}

}  // namespace headrace::cli
