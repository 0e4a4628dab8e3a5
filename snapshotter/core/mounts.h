// What containerd is told to mount for a snapshot. Pure.
#ifndef HEADRACE_SNAPSHOTTER_CORE_MOUNTS_H_
#define HEADRACE_SNAPSHOTTER_CORE_MOUNTS_H_

#include <string>
#include <vector>

#include "snapshotter/store/info.h"

namespace headrace::snapshotter {

// containerd.types.Mount.
struct Mount {
  std::string type;
  std::string source;
  std::vector<std::string> options;

  bool operator==(const Mount&) const = default;
};

struct MountPlan {
  Kind kind = Kind::kActive;        // kActive or kView
  std::string directory;            // of the snapshot itself; holds fs/ and, when active, work/
  std::vector<std::string> lowers;  // directories below it, top first
  bool image_volume_view = false;   // show lowers[0] alone, read-only (see Snapshotter::Mounts)
  bool index_off = false;           // this kernel's overlayfs knows the option `index`
};

// no lower, active  bind rw of fs/            (containerd unpacks the lowest layer into it)
// no lower, view    bind ro of fs/            (an empty directory)
// active            overlay with upperdir
// view, one lower   bind ro of it
// view              overlay without upperdir, hence read-only
// image volume      bind ro of the merged view
std::vector<Mount> ComposeMounts(const MountPlan& plan);

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_CORE_MOUNTS_H_
