#include "fusefs/kernel/pending_reads.h"

#include <cerrno>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/kernel/fuse_lowlevel.h"

namespace headrace::kernel {
namespace {

// The kernel reports only the first signal of a waiting reader; a later SIGKILL is found by looking, this often.
constexpr std::chrono::milliseconds kLookAgain{100};
constexpr std::chrono::seconds kAskAgain{1};   // a content that failed at once must not be asked in a circle
constexpr std::chrono::seconds kLogPause{10};  // between two lines about reads that wait on

}  // namespace

bool ThreadIsDying(pid_t tid) {
  if (tid <= 0) return false;
  auto text = ReadFile("/proc/" + std::to_string(tid) + "/status", 64 << 10);
  if (!text.ok()) return false;
  constexpr std::string_view kKey = "\nSigPnd:\t";
  size_t at = text->find(kKey);
  if (at == std::string::npos) return false;
  constexpr unsigned long long kSigkillBit = 1ull << (9 - 1);
  return (std::strtoull(text->c_str() + at + kKey.size(), nullptr, 16) & kSigkillBit) != 0;
}

template <typename Reply>
void PendingRead::AnswerOnce(const Reply& reply) {
  if (!table_->Take(id_)) return;
  // Waits for an interrupt handler of this request that runs now; none runs afterwards.
  fuse_req_interrupt_func(req_, nullptr, nullptr);
  reply(req_);
  table_->Replied();
}

void PendingRead::Finish(const Status& status, std::span<const uint8_t> bytes) {
  AnswerOnce([&](fuse_req* req) {
    Metrics& metrics = table_->metrics_;
    if (status.ok()) {
      Metrics::Add(metrics.fuse_reads);
      Metrics::Add(metrics.fuse_read_bytes, static_cast<int64_t>(bytes.size()));
      fuse_reply_buf(req, reinterpret_cast<const char*>(bytes.data()), bytes.size());
    } else {
      if (status.code() != StatusCode::kCancelled) Metrics::Add(metrics.fuse_read_errors);
      fuse_reply_err(req, StatusToErrno(status));
    }
  });
}

void PendingRead::ReadFrom(const std::shared_ptr<stream::FileContent>& content, uint64_t offset, uint64_t size) {
  try {
    content->Read(offset, size, [self = shared_from_this(), content, offset, size](const Status& status, std::span<const uint8_t> bytes) {
      const bool may_wait = self->table_->on_failure_ == ReadFailure::kWait && status.code() != StatusCode::kCancelled;
      if (!status.ok() && may_wait && self->AskAgainLater(content, offset, size, status)) return;
      self->Finish(status, bytes);
    });
  } catch (const std::bad_alloc&) {
    Finish(ResourceExhaustedError("out of memory"), {});
  }
}

bool PendingRead::AskAgainLater(const std::shared_ptr<stream::FileContent>& content, uint64_t offset, uint64_t size, const Status& status) {
  bool log_it = false;
  if (!table_->Hold(id_, &log_it)) return false;
  Metrics::Add(table_->metrics_.reads_past_deadline);
  if (log_it) log::Warn("a read is past its deadline and waits on (stream.after_deadline = \"wait\") error=\"{}\"", status.ToString());
  // The table keeps this read as long as it is not answered.
  table_->timer_.After(kAskAgain, [weak = weak_from_this(), content, offset, size] {
    if (auto alive = weak.lock()) alive->ReadFrom(content, offset, size);
  });
  table_->Replied();
  return true;
}

void PendingRead::Complete(const std::function<void(fuse_req* req)>& reply) { AnswerOnce(reply); }

// Runs with libfuse's lock of the request held: it must not answer here.
void PendingRead::OnInterrupt(fuse_req* /*req*/, void* read) {
  auto* self = static_cast<PendingRead*>(read);
  std::weak_ptr<PendingRead> weak = self->weak_from_this();
  self->table_->timer_.After({}, [weak] {
    if (auto alive = weak.lock()) alive->CheckReader();
  });
}

// A signal came to the reader. Only a dying reader is let go: EINTR from a file surprises programs, and for a page fault it is SIGBUS.
void PendingRead::CheckReader() {
  if (ThreadIsDying(tid_)) {
    Finish(CancelledError("the reader was killed"), {});
    return;
  }
  {
    MutexLock lock(table_->mu_);
    if (!table_->live_.contains(id_)) return;
  }
  std::weak_ptr<PendingRead> weak = weak_from_this();
  table_->timer_.After(kLookAgain, [weak] {
    if (auto alive = weak.lock()) alive->CheckReader();
  });
}

std::shared_ptr<PendingRead> PendingReads::Start(fuse_req* req, bool resent) {
  auto read = std::make_shared<PendingRead>();
  read->table_ = shared_from_this();
  read->req_ = req;
  read->tid_ = fuse_req_ctx(req)->pid;
  {
    MutexLock lock(mu_);
    read->id_ = next_id_++;
    live_.emplace(read->id_, read);
  }
  Metrics::Add(metrics_.reads_waiting);
  fuse_req_interrupt_func(req, &PendingRead::OnInterrupt, read.get());
  if (resent) PendingRead::OnInterrupt(req, read.get());
  return read;
}

bool PendingReads::Take(uint64_t id) {
  std::shared_ptr<PendingRead> taken;  // its destructor, if it is the last reference, runs without the lock
  MutexLock lock(mu_);
  auto it = live_.find(id);
  if (it == live_.end()) return false;
  taken = std::move(it->second);
  live_.erase(it);
  ++replying_;
  Metrics::Add(metrics_.reads_waiting, -1);
  return true;
}

bool PendingReads::Hold(uint64_t id, bool* log) {
  const auto now = std::chrono::steady_clock::now();
  MutexLock lock(mu_);
  if (!live_.contains(id)) return false;
  ++replying_;
  *log = now >= next_log_;
  if (*log) next_log_ = now + kLogPause;
  return true;
}

void PendingReads::Replied() {
  MutexLock lock(mu_);
  if (--replying_ == 0) idle_.NotifyAll();
}

bool PendingReads::Stop(std::chrono::nanoseconds timeout) {
  std::unordered_map<uint64_t, std::shared_ptr<PendingRead>> abandoned;
  {
    MutexLock lock(mu_);
    abandoned.swap(live_);
  }
  for (auto& [id, read] : abandoned) {
    fuse_req_interrupt_func(read->req_, nullptr, nullptr);
    fuse_reply_none(read->req_);
    Metrics::Add(metrics_.reads_waiting, -1);
  }
  MutexLock lock(mu_);
  return idle_.WaitFor(mu_, timeout, [&] { return replying_ == 0; });
}

size_t PendingReads::waiting() const {
  MutexLock lock(mu_);
  return live_.size();
}

}  // namespace headrace::kernel
