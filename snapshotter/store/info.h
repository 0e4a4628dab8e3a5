// What the snapshotter knows about a snapshot, as plain values. key = name of an active snapshot or
// view, name = of a committed one (containerd's words); both live in one name space.
#ifndef HEADRACE_SNAPSHOTTER_STORE_INFO_H_
#define HEADRACE_SNAPSHOTTER_STORE_INFO_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace headrace::snapshotter {

// Values are those of the wire enum containerd.services.snapshots.v1.Kind, and are what the
// database holds.
enum class Kind : int { kView = 1, kActive = 2, kCommitted = 3 };

using Labels = std::map<std::string, std::string>;

struct Info {
  std::string name;
  std::string parent;  // "" = none
  Kind kind = Kind::kActive;
  int64_t created_ns = 0;  // since the epoch, UTC
  int64_t updated_ns = 0;
  Labels labels;  // never an empty value: an empty value is how a label is deleted
};

// What a lazily served layer is made of (proto/headrace/control.proto, Layer and MountRequest).
struct LazyLayer {
  std::string image_ref;
  std::string manifest_digest;
  std::string blob_digest;
  std::string toc;             // value of the label containerd.io/snapshot/headrace.toc
  bool above_foreign = false;  // its segment stands on ordinary snapshots

  bool operator==(const LazyLayer&) const = default;
};

struct Usage {
  int64_t size = 0;  // bytes on disk
  int64_t inodes = 0;

  bool operator==(const Usage&) const = default;
};

struct Record {
  uint64_t id = 0;  // never used again, also not after a removal, a crash or a failed operation
  Info info;
  std::optional<LazyLayer>
      lazy;  // set: committed and served by headrace-fused; has no directory of its own
  std::optional<Usage> usage;  // of committed ordinary snapshots, once measured
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_STORE_INFO_H_
