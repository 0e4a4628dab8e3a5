// Operations: the FUSE requests of a read-only file system, translated to vfs::Vfs and back. Metadata is answered on the FUSE thread from
// memory; READ is answered by whoever has the bytes (pending_reads.h). What changes something is EROFS.
//
// Threads: every handler from any FUSE thread. No handler waits for the network, and none holds a lock while it answers.
// Ownership: borrows everything; all of it outlives the session.
// Errors: StatusToErrno. ENOSYS is remembered by the kernel per opcode for the life of the mount: it is left to libfuse, for exactly the
// opcodes whose handler is absent in MakeOperations() (flush, fsync, access, lseek, poll, statx...: the kernel then does without).
#ifndef HEADRACE_FUSEFS_KERNEL_OPERATIONS_H_
#define HEADRACE_FUSEFS_KERNEL_OPERATIONS_H_

#include <cstdint>
#include <memory>

#include "fusefs/base/metrics.h"
#include "fusefs/kernel/inode_modes.h"
#include "fusefs/kernel/pending_reads.h"
#include "fusefs/vfs/vfs.h"

struct fuse_lowlevel_ops;

namespace headrace::kernel {

// What the handlers work on: the session's user data.
struct OperationsContext {
  vfs::Vfs& vfs;
  InodeModes& modes;
  Metrics& metrics;
  std::shared_ptr<PendingReads> reads;
};

// Which request the calling thread handles, for the handlers: libfuse does not show it. `unique` without the mark of a resent one.
struct RequestMark {
  uint64_t unique = 0;
  bool resent = false;
};
void BeginRequest(RequestMark mark);

// The table for fuse_session_new.
std::unique_ptr<fuse_lowlevel_ops> MakeOperations();

}  // namespace headrace::kernel

#endif  // HEADRACE_FUSEFS_KERNEL_OPERATIONS_H_
