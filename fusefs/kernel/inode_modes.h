// InodeModes: which I/O mode each open inode is in, and its backing id. One inode has one mode at a time: chosen at its first open and kept
// until its last release, because the kernel breaks readers otherwise (README.md, "One mode for an inode"). All of it is in a SessionTable too, so that it
// outlives this process.
//
// Threads: every method from any thread; one mutex, held across the registration ioctl (a table insert in the kernel, no I/O). No libfuse.
// Ownership: keeps the FileContent (hence the backing file) of every open inode alive. Registrar and table outlive it.
#ifndef HEADRACE_FUSEFS_KERNEL_INODE_MODES_H_
#define HEADRACE_FUSEFS_KERNEL_INODE_MODES_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/kernel/session_table.h"
#include "fusefs/stream/streamer.h"
#include "fusefs/vfs/vfs.h"

namespace headrace::kernel {

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
    bool claimed = false;   // a predecessor counted it
    uint32_t answer = SessionTable::kNone;  // to be given to Answered or TakeBack
    std::shared_ptr<stream::FileContent> content;
  };
  struct Released {
    bool known = false;    // the inode was open
    bool claimed = false;  // a predecessor counted it
    uint32_t answer = SessionTable::kNone;
  };

  // Files up to `small_file_bytes` go through the page cache while they are not sealed. `passthrough`: the kernel has it.
  // What `table` says is open is open: a predecessor's.
  InodeModes(BackingRegistrar& registrar, SessionTable& table, uint64_t small_file_bytes, bool passthrough);
  ~InodeModes();

  // Counts one open of `node` for the request `unique`, once: a request that a predecessor counted and did not answer gets what that chose. `content` is used if
  // it is the first; later opens get what the first chose. ResourceExhausted: too many inodes are open or answers under way.
  Result<Opened> Open(vfs::NodeId node, const std::shared_ptr<stream::FileContent>& content, uint64_t unique);
  // The content of an open inode; null if it is not open, or opened by a predecessor and not read since: Keep gives it one.
  std::shared_ptr<stream::FileContent> Content(vfs::NodeId node) const;
  void Keep(vfs::NodeId node, const std::shared_ptr<stream::FileContent>& content);
  // Takes one open back. The last one frees the backing id.
  Released Release(vfs::NodeId node, uint64_t unique);
  // The kernel has taken the answer to an Open or Release.
  void Answered(uint32_t answer);
  // The kernel gave up the request of this Open: it does not count.
  void TakeBack(vfs::NodeId node, uint32_t answer);
  // No request comes again any more: what a predecessor did not live to mark as answered was.
  void SettleUnanswered();

  // Forgets every open inode and frees its backing id: the connection ended.
  void Clear();
  // Lets go of the contents; the table and the backing ids stay for a successor. Nothing may be called after it.
  void Leave();
  // Inode -> backing id of every inode in passthrough.
  std::map<vfs::NodeId, int> BackingIds() const;
  size_t open_inodes() const;
  uint64_t opens() const;
  // How often the kernel refused a backing file.
  uint64_t registration_failures() const;

 private:
  struct State {
    OpenInode inode;
    uint32_t place = SessionTable::kNone;
    std::shared_ptr<stream::FileContent> content;
  };
  OpenInode Choose(vfs::NodeId node, const stream::FileContent& content) HR_REQUIRES(mu_);
  // Counts the open of the inode down by `change` (which writes it to the table) and forgets it if it was the last.
  std::shared_ptr<stream::FileContent> CloseOnce(std::unordered_map<vfs::NodeId, State>::iterator it, uint32_t* answer, uint64_t unique) HR_REQUIRES(mu_);
  // The answer of a predecessor's that waits for this request, kNone if there is none.
  uint32_t Claim(uint64_t unique) HR_REQUIRES(mu_);

  BackingRegistrar& registrar_;
  const uint64_t small_file_bytes_;
  const bool passthrough_;
  mutable Mutex mu_;
  SessionTable& table_ HR_GUARDED_BY(mu_);
  std::unordered_map<vfs::NodeId, State> states_ HR_GUARDED_BY(mu_);
  std::map<uint64_t, uint32_t> unanswered_ HR_GUARDED_BY(mu_);  // of predecessors
  uint64_t registration_failures_ HR_GUARDED_BY(mu_) = 0;
  bool left_ HR_GUARDED_BY(mu_) = false;
};

}  // namespace headrace::kernel

#endif  // HEADRACE_FUSEFS_KERNEL_INODE_MODES_H_
