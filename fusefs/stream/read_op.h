// ReadOp: one Read on its way, and Deadlines: the reads that wait, in the order in which they run out of time.
// Internal to stream/. Any thread; no lock is held while `done` is called.
#ifndef HEADRACE_FUSEFS_STREAM_READ_OP_H_
#define HEADRACE_FUSEFS_STREAM_READ_OP_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "fusefs/base/metrics.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/stream/buffer_pool.h"
#include "fusefs/stream/streamer.h"

namespace headrace::stream {

class Content;
class Deadlines;
using TimePoint = std::chrono::steady_clock::time_point;

// A read of [offset, offset + size) of one content: pieces come in from any thread; the last one, or the first failure, answers.
class ReadOp : public std::enable_shared_from_this<ReadOp> {
 public:
  ReadOp(std::shared_ptr<Content> of, uint64_t from, uint64_t bytes, FileContent::ReadDone callback)
      : content(std::move(of)), offset(from), size(bytes), done_(std::move(callback)) {}

  // How many pieces are to come (chunks, plus one for the thread that issues the read). Before any piece comes.
  void Expect(int pieces) { pieces_.store(pieces, std::memory_order_relaxed); }
  // The bytes of the file from `begin` on are these; those that belong to this read are taken. One piece.
  void Supply(uint64_t begin, std::span<const uint8_t> bytes);
  // So many zeros. One piece.
  void SupplyZeros(uint64_t begin, uint64_t count);
  // The piece is already in buffer.
  void SupplyInPlace();
  // Answers with the error, unless it was answered.
  void Fail(Status status);
  bool waits_for_others() const { return pieces_.load(std::memory_order_acquire) > 1; }
  bool answered() const { return answered_.load(std::memory_order_acquire); }

  const std::shared_ptr<Content> content;
  const uint64_t offset;
  const uint64_t size;
  TimePoint started;
  TimePoint deadline;
  Buffer buffer;  // assembled here; not used if one chunk holds everything

 private:
  friend class Deadlines;
  void Answer(Status status, std::span<const uint8_t> bytes);

  FileContent::ReadDone done_;
  std::atomic<int> pieces_{0};
  std::atomic<bool> answered_{false};
  Deadlines* deadlines_ = nullptr;  // set before the op is shared with other threads
  bool listed_ = false;             // guarded by the lock of Deadlines, as the position
  std::list<std::shared_ptr<ReadOp>>::iterator position_;
};

// All reads have the same time to live, so the order of arrival is the order of deadlines and one timer is enough.
class Deadlines {
 public:
  explicit Deadlines(Metrics& metrics) : metrics_(metrics) {}
  void Attach(ReadOp& op) { op.deadlines_ = this; }
  // True: the caller sets a timer for op's deadline.
  bool Add(const std::shared_ptr<ReadOp>& op);
  // True: it was waiting.
  bool Remove(ReadOp& op);
  // Takes out what has run out at `now`; *next: when to come again (time_point::max(): no timer is needed).
  std::vector<std::shared_ptr<ReadOp>> TakeExpired(TimePoint now, TimePoint* next);
  std::vector<std::shared_ptr<ReadOp>> TakeAll();

 private:
  void Unlist(ReadOp& op) HR_REQUIRES(mu_);

  Metrics& metrics_;
  Mutex mu_;
  std::list<std::shared_ptr<ReadOp>> waiting_ HR_GUARDED_BY(mu_);
  bool armed_ HR_GUARDED_BY(mu_) = false;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_READ_OP_H_
