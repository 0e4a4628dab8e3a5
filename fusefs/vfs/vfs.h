// Vfs: the semantics of the read-only file system, without libfuse: names, attributes, directories, extended
// attributes and opens, over the immutable trees of tree/. One superblock: node 1 is the root, its children
// are the mounted snapshot ids, each the merged view of a chain. What users are promised is in README.md (SEMANTICS).
//
// Node ids: slot << 32 | index (README.md). Slots are given by the caller (who persists them) and never reused
// for something else, so ids survive a restart.
// Threads: every method from any thread, Emit runs on the caller's, without a lock held. Metadata calls answer
// from memory; the first look into a mount's directory computes the merge (CPU, no I/O). Nothing here waits
// for the network. Lookups are counted for each slot, so that a removed mount's nodes answer until the kernel
// forgets them.
// Errors: NotFound (ENOENT); with errno_override: ENOTDIR, EISDIR, EINVAL, ESTALE (no such node, or gone),
// ENODATA (no such extended attribute). ERANGE is kernel/'s. A merge beyond the limits of tree/: ResourceExhausted.
#ifndef HEADRACE_FUSEFS_VFS_VFS_H_
#define HEADRACE_FUSEFS_VFS_VFS_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"
#include "fusefs/stream/streamer.h"

namespace headrace::vfs {

using NodeId = uint64_t;
inline constexpr NodeId kRootNode = 1;
constexpr NodeId MakeNode(uint32_t slot, uint32_t index) { return (NodeId{slot} << 32) | index; }

// One lazy snapshot to be shown.
struct MountSpec {
  std::string id;             // directory name under the root: decimal snapshot id
  std::string parent_id;      // "" = lowest of its segment
  bool above_foreign = false;
  uint32_t layer_slot = 0;    // of this content: blob and table of contents (the same under two mounts: same slot), > 0
  uint32_t view_slot = 0;     // of this mount's merged directories, > 0, distinct from every layer slot
  std::shared_ptr<const stream::LayerSource> layer;
};

struct MountInfo {
  std::string id;
  std::string blob_digest;
  std::string image_ref;
  uint64_t size = 0;   // decoded bytes of the layer's regular files
  uint64_t files = 0;
};

class Vfs {
 public:
  static std::unique_ptr<Vfs> Create(stream::Streamer& streamer, Metrics& metrics);
  virtual ~Vfs() = default;

  // -- mounts (control side)
  // AlreadyExists: the id is mounted with another content (same content: OK). NotFound: parent_id.
  // InvalidArgument: a tree that cannot be, slots that contradict those in use, above_foreign other than the
  // parent's. FailedPrecondition: a hard link of the layer leads to a file that no lazy layer below has, so
  // the layer can only be unpacked. Errors name the blob.
  virtual Result<MountInfo> AddMount(const MountSpec& spec) = 0;
  // FailedPrecondition: another mount has it as parent. NotFound: unknown. The caller invalidates the kernel's
  // entry (root, id) afterwards.
  virtual Status RemoveMount(const std::string& id) = 0;
  virtual Result<MountInfo> GetMount(const std::string& id) const = 0;
  virtual std::vector<MountInfo> ListMounts() const = 0;

  // -- nodes (kernel side). struct stat: st_ino = node id, st_mode with type bits, nlink, rdev, times;
  // st_blocks from the size.
  // Lookup counts one reference of the kernel on the node's slot (so does every entry of ReadDir with `plus`);
  // Forget takes n back. "." and ".." may be looked up, "." also in what is no directory.
  virtual Result<struct stat> Lookup(NodeId parent, std::string_view name) = 0;
  virtual void Forget(NodeId node, uint64_t n) = 0;
  virtual Result<struct stat> GetAttr(NodeId node) const = 0;
  virtual Result<std::string> ReadLink(NodeId node) const = 0;
  // Calls `emit(name, attr, next_cookie)` for the entries after `cookie` (0 = from the start, "." and ".."
  // included) until it returns false: that entry was not taken (it did not fit). Cookies stay valid as long as
  // the directory: they are positions
  // (in the root, which changes: they follow the view slot, so no mount is shown twice or skipped). `plus`:
  // attr is complete and every entry taken, but "." and "..", counts as looked up. Without `plus` only st_ino
  // and the type in st_mode are set.
  using Emit = std::function<bool(const std::string& name, const struct stat& attr, uint64_t next_cookie)>;
  virtual Status ReadDir(NodeId node, uint64_t cookie, bool plus, const Emit& emit) = 0;
  // Raw value; NotFound with errno_override ENODATA if there is none. trusted.overlay.* of an image is never shown.
  virtual Result<std::string> GetXattr(NodeId node, std::string_view name) const = 0;
  // Names, each ended by a NUL, as listxattr(2) gives them.
  virtual Result<std::string> ListXattr(NodeId node) const = 0;
  // Regular files only (EISDIR, EINVAL...). Two opens of one content give the same object.
  virtual Result<std::shared_ptr<stream::FileContent>> Open(NodeId node) = 0;
};

}  // namespace headrace::vfs

#endif  // HEADRACE_FUSEFS_VFS_VFS_H_
