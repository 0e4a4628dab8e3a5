// The FUSE channel: mount(2), the INIT handshake spoken by ourselves, and the descriptor of /dev/fuse with what a successor of this process
// would need (facts: README.md, "Handshake"). No libfuse here.
//
// Ownership: Channel owns its descriptor. Closing the last descriptor of the connection ends it for every reader.
// Threads: Open and Detach block (mount(2), one read of the device) and are called by one thread at start and stop.
// Errors: FailedPrecondition and PermissionDenied say what the machine lacks (/dev/fuse, root).
#ifndef HEADRACE_FUSEFS_KERNEL_CHANNEL_H_
#define HEADRACE_FUSEFS_KERNEL_CHANNEL_H_

#include <cstdint>
#include <string>

#include "fusefs/base/file.h"
#include "fusefs/base/status.h"
#include "fusefs/kernel/wire.h"

namespace headrace::kernel {

inline constexpr uint32_t kMaxPages = 256;            // of 4 KiB: one request moves 1 MiB at most (facts/kernel: more brought little)
inline constexpr uint32_t kMaxWrite = 128 << 10;      // nobody writes; it bounds the buffer that a request is read into
inline constexpr uint16_t kMaxBackground = 256;       // read-ahead requests in flight, of 1 MiB each
inline constexpr uint16_t kCongestionThreshold = 192;
// A request is never larger: header, arguments, kMaxWrite of payload.
inline constexpr size_t kRequestBytesMax = kMaxWrite + (64 << 10);

struct Channel {
  UniqueFd device;         // of /dev/fuse, non-blocking
  std::string init_bytes;  // the raw INIT request: a successor feeds it to its libfuse
  uint64_t flags = 0;      // what kernel and we agreed on (wire::k...)
};

// Unmounts what a dead daemon left at `mountpoint` (only file systems of type fuse.headrace). OK if there is nothing.
Status CleanStaleMount(const std::string& mountpoint);

// Mounts at `mountpoint` (made if missing) and shakes hands. The kernel queues requests from now on; nobody answers them yet.
Result<Channel> OpenChannel(const std::string& mountpoint);

// The answer to an INIT request: what we want and the kernel has. InvalidArgument: not an INIT, or a kernel without our major version.
Result<wire::InitOut> AnswerInit(const std::string& init_bytes);

// st_dev of the file system of ours that is mounted at `mountpoint`, without asking it anything (nobody may be serving it). NotFound: none is.
Result<uint64_t> MountedDevice(const std::string& mountpoint);

// OK while the connection of the descriptor lives. Unavailable: it was aborted, or its file system has no user any more.
Status CheckConnection(int device);

// Asks the kernel to hand out again, first of all and marked with wire::kUniqueResend, every request that was taken from this connection and not answered.
Status AskAgain(int device);

// Lazy unmount: the name is gone at once, open files live as long as the connection. OK if not mounted.
Status DetachMount(const std::string& mountpoint);

// Kernel read-ahead of the mounted file system (its BDI). Needs the file system to answer getattr.
Status SetReadAhead(const std::string& mountpoint, uint64_t kib);

}  // namespace headrace::kernel

#endif  // HEADRACE_FUSEFS_KERNEL_CHANNEL_H_
