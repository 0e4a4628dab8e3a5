// The part of the FUSE kernel protocol that we speak ourselves: the INIT handshake, the resend notification and the ioctls of backing files. Everything else is
// libfuse's. Values from Linux' include/uapi/linux/fuse.h at protocol 7.45 (the headers of the build machine may be older).
// Plain values; nothing blocks.
#ifndef HEADRACE_FUSEFS_KERNEL_WIRE_H_
#define HEADRACE_FUSEFS_KERNEL_WIRE_H_

#include <sys/ioctl.h>

#include <cstdint>

namespace headrace::kernel::wire {

inline constexpr uint32_t kMajor = 7;
// What we understand; the kernel takes the smaller of both.
inline constexpr uint32_t kMinor = 45;
// Passthrough came with 7.40 (Linux 6.9); older kernels are served without.
inline constexpr uint32_t kOpForget = 2;
inline constexpr uint32_t kOpInit = 26;
inline constexpr uint32_t kOpInterrupt = 36;
inline constexpr uint32_t kOpBatchForget = 42;
// A notification (in OutHeader::error, with unique 0), Linux 6.9; and the mark of a request that was handed out before.
inline constexpr int32_t kNotifyResend = 7;
inline constexpr uint64_t kUniqueResend = 1ull << 63;

struct InHeader {
  uint32_t len;
  uint32_t opcode;
  uint64_t unique;
  uint64_t nodeid;
  uint32_t uid;
  uint32_t gid;
  uint32_t pid;
  uint16_t total_extlen;
  uint16_t padding;
};
static_assert(sizeof(InHeader) == 40);

struct OutHeader {
  uint32_t len;
  int32_t error;
  uint64_t unique;
};
static_assert(sizeof(OutHeader) == 16);

struct InitIn {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint32_t flags2;
  uint32_t unused[11];
};
static_assert(sizeof(InitIn) == 64);

struct InitOut {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint16_t max_background;
  uint16_t congestion_threshold;
  uint32_t max_write;
  uint32_t time_gran;
  uint16_t max_pages;
  uint16_t map_alignment;
  uint32_t flags2;
  uint32_t max_stack_depth;
  uint16_t request_timeout;
  uint16_t unused[11];
};
static_assert(sizeof(InitOut) == 64);

// INIT flags as one 64-bit word (flags2 << 32 | flags).
inline constexpr uint64_t kAsyncRead = 1ull << 0;
inline constexpr uint64_t kExportSupport = 1ull << 4;
inline constexpr uint64_t kBigWrites = 1ull << 5;
inline constexpr uint64_t kReaddirplus = 1ull << 13;
inline constexpr uint64_t kReaddirplusAuto = 1ull << 14;
inline constexpr uint64_t kAsyncDio = 1ull << 15;
inline constexpr uint64_t kParallelDirops = 1ull << 18;
inline constexpr uint64_t kMaxPages = 1ull << 22;
inline constexpr uint64_t kCacheSymlinks = 1ull << 23;
inline constexpr uint64_t kInitExt = 1ull << 30;
inline constexpr uint64_t kDirectIoAllowMmap = 1ull << 36;
inline constexpr uint64_t kPassthrough = 1ull << 37;
inline constexpr uint64_t kHasResend = 1ull << 39;
inline constexpr uint64_t kAllowIdmap = 1ull << 40;

struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
inline constexpr unsigned long kBackingOpen = _IOW(229, 1, BackingMap);
inline constexpr unsigned long kBackingClose = _IOW(229, 2, uint32_t);

}  // namespace headrace::kernel::wire

#endif  // HEADRACE_FUSEFS_KERNEL_WIRE_H_
