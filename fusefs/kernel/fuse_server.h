// FuseServer: the mounted file system while this process serves it: channel, libfuse session, worker threads, replies.
//
// Threads: `threads` workers take requests (each has an epoll of its own, so that a request wakes one of them); they never wait for the
// network. A timer thread watches interrupted reads. Public methods from any thread except the workers; Stop blocks for the workers.
// Ownership: Vfs and Metrics outlive the server. Open files keep their FileContents, so Stop() comes before the Streamer goes.
// Errors of Start: what the machine lacks, or what is mounted at the mount point.
#ifndef HEADRACE_FUSEFS_KERNEL_FUSE_SERVER_H_
#define HEADRACE_FUSEFS_KERNEL_FUSE_SERVER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"
#include "fusefs/kernel/pending_reads.h"
#include "fusefs/vfs/vfs.h"

namespace headrace::kernel {

struct FuseServerOptions {
  std::string mountpoint;
  unsigned threads = 4;
  uint64_t read_ahead_bytes = 4ull << 20;   // of the kernel, for mmap and page-cached files
  uint64_t small_file_bytes = 4ull << 20;   // files up to this size live in the page cache
  ReadFailure on_read_failure = ReadFailure::kError;
};

// A session that another process served, as somebody kept it for us.
struct Predecessor {
  UniqueFd device;     // of /dev/fuse
  UniqueFd table;      // its SessionTable
  std::string holder;  // who kept it, for the log
};

// What must be kept for a successor, borrowed.
struct SessionDescriptors {
  int device = -1;
  int table = -1;
};

class FuseServer {
 public:
  // Goes on with the first of the `predecessors` whose connection lives and is mounted at the mount point: every request that it left is answered, what is open
  // stays open. Without one it mounts anew. FailedPrecondition: a predecessor's state cannot be read by this program, and its readers would be lost.
  // `on_end` is called once, on a worker, when the connection ended without Stop (somebody unmounted or aborted it).
  static Result<std::unique_ptr<FuseServer>> Start(const FuseServerOptions& options, vfs::Vfs& vfs, Metrics& metrics,
                                                   std::function<void()> on_end, std::vector<Predecessor> predecessors = {});
  virtual ~FuseServer() = default;  // Stop()

  // The kernel forgets the name of a mount that Vfs no longer has. Never from a FUSE handler; blocks until the kernel did it.
  virtual void InvalidateMount(const std::string& id) = 0;
  // The kernel drops what it has read of the file. The same rules.
  virtual void DropPages(vfs::NodeId node) = 0;
  virtual SessionDescriptors Descriptors() const = 0;
  // The kernel can hand a request out twice (Linux 6.9): without that nobody can succeed us.
  virtual bool can_be_succeeded() const = 0;
  virtual bool took_over() const = 0;
  virtual std::map<vfs::NodeId, int> BackingIds() const = 0;
  // READ requests that are not answered yet.
  virtual size_t waiting_reads() const = 0;
  virtual size_t open_inodes() const = 0;
  // For how long the worker that is longest at one request is at it; 0: all wait for the kernel. They never wait for the network, so that
  // more than a moment means that the machine's disk, or this process, hangs.
  virtual std::chrono::nanoseconds LongestRequest() const = 0;
  // Ends serving: unmounts (lazily), ends the workers, gives up unanswered reads, lets go of all contents. Idempotent.
  virtual void Stop() = 0;
  // The same, but the mount stays, and all that is open in it and unanswered is left to whoever has the descriptors.
  virtual void StopForSuccessor() = 0;
};

}  // namespace headrace::kernel

#endif  // HEADRACE_FUSEFS_KERNEL_FUSE_SERVER_H_
