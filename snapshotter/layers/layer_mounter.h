// LayerMounter: the seam between the snapshotter and headrace-fused. Three methods; ids are the
// snapshotter's, never reused. Implementations: ControlClient (control_client.h, the control
// socket) and the fake of the tests. Thread-safe. Every call blocks at most until its deadline;
// Mount waits for a registry.
#ifndef HEADRACE_SNAPSHOTTER_LAYERS_LAYER_MOUNTER_H_
#define HEADRACE_SNAPSHOTTER_LAYERS_LAYER_MOUNTER_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "fusefs/base/status.h"
#include "snapshotter/store/info.h"

namespace headrace::snapshotter {

struct MountSpec {
  uint64_t id = 0;
  std::optional<uint64_t> parent_id;  // the lazy snapshot right below; none = lowest of its segment
  LazyLayer layer;
  bool no_fill = false;  // label headrace.fill=off
};

struct MountAnswer {
  std::string path;      // the directory with the merged view of its segment up to the layer
  bool pending = false;  // no table of contents: the whole layer is being read first; no path yet, ask again
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;

  bool operator==(const MountAnswer&) const = default;
};

class LayerMounter {
 public:
  virtual ~LayerMounter() = default;
  // Shows the layer, or says how far it is. Idempotent. Errors as in proto/headrace/control.proto. Unavailable also when the daemon does
  // not answer.
  virtual Result<MountAnswer> Mount(const MountSpec& spec,
                                    std::chrono::steady_clock::time_point deadline) = 0;
  // The same directory if the id is served; NotFound if the daemon does not know it; Unavailable if
  // the daemon does not answer.
  virtual Result<std::string> Check(uint64_t id) = 0;
  // An unknown id is OK.
  virtual Status Unmount(uint64_t id) = 0;
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_LAYERS_LAYER_MOUNTER_H_
