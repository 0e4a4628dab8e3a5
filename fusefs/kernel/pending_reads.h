// PendingReads: the READ requests that wait for their bytes. Each is answered exactly once, by whoever comes first: the bytes, the death of
// its reader, or the end of the session (which frees it unanswered: the kernel, or a successor of this process, deals with it).
// A read whose content gives up after its deadline is answered with that error, or (ReadFailure::kWait) asks again, until the bytes come or its reader is killed.
//
// Threads: Start on FUSE threads, Finish on any thread, interrupts on FUSE threads and the timer's. One mutex, never held while replying.
// Ownership: the table is shared by its reads, so that a late Finish finds it; after Stop such a Finish does nothing.
// Only here and in operations.cc and fuse_server.cc is libfuse known.
#ifndef HEADRACE_FUSEFS_KERNEL_PENDING_READS_H_
#define HEADRACE_FUSEFS_KERNEL_PENDING_READS_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>

#include "fusefs/base/executor.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/stream/streamer.h"

struct fuse_req;

namespace headrace::kernel {

class PendingReads;

// What becomes of a read for which there are no bytes at its deadline.
enum class ReadFailure { kError, kWait };

class PendingRead : public std::enable_shared_from_this<PendingRead> {
 public:
  // Asks the content for the bytes and answers with what comes. Never waits.
  void ReadFrom(const std::shared_ptr<stream::FileContent>& content, uint64_t offset, uint64_t size);
  // Answers with the bytes or the error, unless the request was answered or given up already.
  void Finish(const Status& status, std::span<const uint8_t> bytes);
  // The same for a request that waits for something else than bytes (an open): `reply` answers it, or is not called.
  void Complete(const std::function<void(fuse_req* req)>& reply);

 private:
  friend class PendingReads;
  static void OnInterrupt(fuse_req* req, void* read);
  // Calls `reply(req)` if nobody answered the request before.
  template <typename Reply>
  void AnswerOnce(const Reply& reply);
  void CheckReader();
  // False if nobody waits any more.
  bool AskAgainLater(const std::shared_ptr<stream::FileContent>& content, uint64_t offset, uint64_t size, const Status& status);

  std::shared_ptr<PendingReads> table_;
  fuse_req* req_ = nullptr;
  uint64_t id_ = 0;
  pid_t tid_ = 0;  // thread that reads, 0 if the kernel does not say
};

class PendingReads : public std::enable_shared_from_this<PendingReads> {
 public:
  // `timer` and `metrics` live until Stop() returned (timer: until its tasks are dropped).
  PendingReads(Timer& timer, Metrics& metrics, ReadFailure on_failure = ReadFailure::kError)
      : timer_(timer), metrics_(metrics), on_failure_(on_failure) {}

  // Takes over `req`: from now on only the returned object answers it.
  // `resent`: a predecessor had it, and may have been told already that its reader was killed.
  std::shared_ptr<PendingRead> Start(fuse_req* req, bool resent = false);
  // Frees every unanswered request without an answer and waits for replies under way. REQUIRES: no Start any more.
  // False if a reply did not end within the time (then the session must not be destroyed).
  bool Stop(std::chrono::nanoseconds timeout);
  size_t waiting() const;

 private:
  friend class PendingRead;
  // True for the one caller that may answer; it calls Replied() afterwards.
  bool Take(uint64_t id);
  void Replied();
  // True if the read is not answered: then the session stays until Replied(). *log: a line may be written about it.
  bool Hold(uint64_t id, bool* log);

  Timer& timer_;
  Metrics& metrics_;
  const ReadFailure on_failure_;
  mutable Mutex mu_;
  CondVar idle_;
  uint64_t next_id_ HR_GUARDED_BY(mu_) = 1;
  size_t replying_ HR_GUARDED_BY(mu_) = 0;
  std::chrono::steady_clock::time_point next_log_ HR_GUARDED_BY(mu_);
  std::unordered_map<uint64_t, std::shared_ptr<PendingRead>> live_ HR_GUARDED_BY(mu_);
};

// True if the thread has SIGKILL pending (what the kernel makes of every fatal signal): it waits for nothing but our answer.
// False also if it cannot be seen.
bool ThreadIsDying(pid_t tid);

}  // namespace headrace::kernel

#endif  // HEADRACE_FUSEFS_KERNEL_PENDING_READS_H_
