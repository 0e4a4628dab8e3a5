#include "snapshotter/core/mounts.h"

namespace headrace::snapshotter {

std::vector<Mount> ComposeMounts(const MountPlan& plan) {
  if (plan.image_volume_view) return {{"bind", plan.lowers.front(), {"rbind", "ro"}}};
  bool active = plan.kind == Kind::kActive;
  if (plan.lowers.empty())
    return {{"bind", plan.directory + "/fs", {active ? "rw" : "ro", "rbind"}}};
  if (!active && plan.lowers.size() == 1) return {{"bind", plan.lowers.front(), {"ro", "rbind"}}};

  Mount mount{"overlay", "overlay", {}};
  // index=on would tie the upper directory to these very lower directories by file handle; a node
  // that is rebooted or whose headrace-fused is mounted anew would not mount its containers again.
  if (plan.index_off) mount.options.push_back("index=off");
  if (active) {
    mount.options.push_back("workdir=" + plan.directory + "/work");
    mount.options.push_back("upperdir=" + plan.directory + "/fs");
  }
  std::string lowerdir = "lowerdir=";
  for (size_t i = 0; i < plan.lowers.size(); ++i) {
    if (i > 0) lowerdir += ':';
    lowerdir += plan.lowers[i];
  }
  mount.options.push_back(std::move(lowerdir));
  return {std::move(mount)};
}

}  // namespace headrace::snapshotter
