#include "fusefs/stream/read_op.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fusefs/stream/content.h"

namespace headrace::stream {

void ReadOp::Supply(uint64_t begin, std::span<const uint8_t> bytes) {
  const uint64_t from = std::max(begin, offset);
  const uint64_t to = std::min(begin + bytes.size(), offset + size);
  HEADRACE_CHECK(from < to);
  const std::span<const uint8_t> mine = bytes.subspan(from - begin, to - from);
  if (mine.size() == size) {
    Answer(OkStatus(), mine);
    return;
  }
  if (!answered()) std::memcpy(buffer.bytes().data() + (from - offset), mine.data(), mine.size());
  SupplyInPlace();
}

void ReadOp::SupplyZeros(uint64_t begin, uint64_t count) {
  const uint64_t from = std::max(begin, offset);
  const uint64_t to = std::min(begin + count, offset + size);
  HEADRACE_CHECK(from < to && buffer.valid());
  std::memset(buffer.bytes().data() + (from - offset), 0, to - from);
  SupplyInPlace();
}

void ReadOp::SupplyInPlace() {
  if (pieces_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (buffer.valid()) Answer(OkStatus(), std::as_const(buffer).bytes());
}

void ReadOp::Fail(Status status) {
  // Whatever it was that failed, for the one who reads it is an I/O error (not ENOENT or EACCES of an open file).
  Answer(std::move(status).WithErrno(EIO), {});
}

// Without a lock held, like all that answers.
void ReadOp::Answer(Status status, std::span<const uint8_t> bytes) {
  if (answered_.exchange(true, std::memory_order_acq_rel)) return;
  const bool waited = deadlines_ != nullptr && deadlines_->Remove(*this);
  if (content) content->CountAnswer(waited ? std::chrono::steady_clock::now() - started : std::chrono::nanoseconds(0), size, status);
  FileContent::ReadDone done = std::move(done_);
  done(std::move(status), bytes);
}

bool Deadlines::Add(const std::shared_ptr<ReadOp>& op) {
  MutexLock lock(mu_);
  if (op->answered()) return false;
  op->position_ = waiting_.insert(waiting_.end(), op);
  op->listed_ = true;
  Metrics::Add(metrics_.reads_waiting);
  return !std::exchange(armed_, true);
}

void Deadlines::Unlist(ReadOp& op) {
  waiting_.erase(op.position_);
  op.listed_ = false;
  Metrics::Add(metrics_.reads_waiting, -1);
  Metrics::Add(metrics_.reads_stalled);
  Metrics::Add(metrics_.read_stall_us,
               std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - op.started).count());
}

bool Deadlines::Remove(ReadOp& op) {
  MutexLock lock(mu_);
  const bool listed = op.listed_;
  if (listed) Unlist(op);
  return listed;
}

std::vector<std::shared_ptr<ReadOp>> Deadlines::TakeExpired(TimePoint now, TimePoint* next) {
  std::vector<std::shared_ptr<ReadOp>> out;
  MutexLock lock(mu_);
  while (!waiting_.empty() && waiting_.front()->deadline <= now) {
    out.push_back(waiting_.front());
    Unlist(*out.back());
  }
  armed_ = !waiting_.empty();
  *next = armed_ ? waiting_.front()->deadline : TimePoint::max();
  return out;
}

std::vector<std::shared_ptr<ReadOp>> Deadlines::TakeAll() {
  std::vector<std::shared_ptr<ReadOp>> out;
  MutexLock lock(mu_);
  while (!waiting_.empty()) {
    out.push_back(waiting_.front());
    Unlist(*out.back());
  }
  return out;
}

}  // namespace headrace::stream
