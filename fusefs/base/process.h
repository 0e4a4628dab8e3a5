// What every daemon of ours does to its process: tells its supervisor how far it is, takes the descriptors it may have, and keeps its
// directory to itself.
// Any thread; nothing blocks.
#ifndef HEADRACE_FUSEFS_BASE_PROCESS_H_
#define HEADRACE_FUSEFS_BASE_PROCESS_H_

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include "fusefs/base/file.h"
#include "fusefs/base/status.h"

namespace headrace {

// sd_notify(3) without libsystemd: one datagram to $NOTIFY_SOCKET ("READY=1", "STOPPING=1"). Nobody who listens is fine.
// `descriptors` go with it ("FDSTORE=1\nFDNAME=..."). Errors: the socket is set but does not take it.
Status NotifySupervisor(const std::string& state, std::span<const int> descriptors = {});
// True if there is somebody who is told.
bool HasSupervisor();

// sd_watchdog_enabled(3): within this time "WATCHDOG=1" must come, or the supervisor kills this process ($WATCHDOG_USEC). 0: it does not watch.
std::chrono::microseconds WatchdogInterval();

// Raises RLIMIT_NOFILE to its hard limit: every open content holds two or three descriptors, every level of a tree walk one.
Status RaiseDescriptorLimit();

// Bytes of memory that this process may use: the machine's, or less if a control group (version 2) of its says so. Reads a few small files.
uint64_t MemoryLimit();

// Makes `root` if it is missing and locks it for this process, until the descriptor is closed: two processes on one root would remove
// each other's files. FailedPrecondition if another one has the lock; `program` names it in the message.
Result<UniqueFd> LockRoot(const std::string& root, const std::string& program);

}  // namespace headrace

#endif  // HEADRACE_FUSEFS_BASE_PROCESS_H_
