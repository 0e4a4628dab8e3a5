// InodeModes: which I/O mode each open inode is in, and its backing id. One inode has one mode at a time: chosen at its first open and kept
// until its last release, because the kernel breaks readers otherwise (README.md, "One mode for an inode").
//
// Threads: every method from any thread; one mutex, held across the registration ioctl (a table insert in the kernel, no I/O). No libfuse.
// Ownership: keeps the FileContent (hence the backing file) of every open inode alive. The registrar outlives it.
#ifndef HEADRACE_FUSEFS_KERNEL_INODE_MODES_H_
#define HEADRACE_FUSEFS_KERNEL_INODE_MODES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>

#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/stream/streamer.h"
#include "fusefs/vfs/vfs.h"

namespace headrace::kernel {

enum class IoMode : uint8_t {
  kPassthrough,  // the kernel reads the sealed backing file itself
  kDirect,       // every read() is a request; mmap goes through the page cache
  kCached,       // page cache, kept for ever: the content never changes
};

// Hands backing files to the kernel. Implemented on /dev/fuse (fuse_server.cc) and by the fake of the tests.
class BackingRegistrar {
 public:
  virtual ~BackingRegistrar() = default;
  // A backing id (> 0) for the open file.
  virtual Result<int> Register(int fd) = 0;
  virtual void Unregister(int backing_id) = 0;
};

class InodeModes {
 public:
  struct Opened {
    IoMode mode = IoMode::kDirect;
    int backing_id = 0;     // kPassthrough only
    bool first = false;     // no other open of the inode lives
    std::shared_ptr<stream::FileContent> content;
  };

  // Files up to `small_file_bytes` go through the page cache while they are not sealed. `passthrough`: the kernel has it.
  InodeModes(BackingRegistrar& registrar, uint64_t small_file_bytes, bool passthrough);
  ~InodeModes();

  // Counts one open of `node`. `content` is used if it is the first; later opens get what the first chose.
  Opened Open(vfs::NodeId node, std::shared_ptr<stream::FileContent> content);
  // The content of an open inode; null if it is not open.
  std::shared_ptr<stream::FileContent> Content(vfs::NodeId node) const;
  // Takes one open back. The last one frees the backing id. False: the inode was not open.
  bool Release(vfs::NodeId node);
  // Forgets every open inode and frees its backing id: the connection ended.
  void Clear();
  // Inode -> backing id of every inode in passthrough: state that a successor of this process must know.
  std::map<vfs::NodeId, int> BackingIds() const;
  size_t open_inodes() const;
  // How often the kernel refused a backing file.
  uint64_t registration_failures() const;

 private:
  struct State {
    IoMode mode = IoMode::kDirect;
    int backing_id = 0;
    uint64_t opens = 0;
    std::shared_ptr<stream::FileContent> content;
  };
  State Choose(std::shared_ptr<stream::FileContent> content) HR_REQUIRES(mu_);

  BackingRegistrar& registrar_;
  const uint64_t small_file_bytes_;
  const bool passthrough_;
  mutable Mutex mu_;
  std::unordered_map<vfs::NodeId, State> states_ HR_GUARDED_BY(mu_);
  uint64_t registration_failures_ HR_GUARDED_BY(mu_) = 0;
};

}  // namespace headrace::kernel

#endif  // HEADRACE_FUSEFS_KERNEL_INODE_MODES_H_
