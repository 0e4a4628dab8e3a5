#include "fusefs/registry/blocking.h"

#include <algorithm>

#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

constexpr std::chrono::hours kNoDeadline{24 * 365};

}  // namespace

bool CallGate::Enter() {
  MutexLock lock(mu_);
  if (closed_) return false;
  ++calls_;
  return true;
}

void CallGate::Leave() {
  MutexLock lock(mu_);
  --calls_;
  changed_.NotifyAll();
}

bool CallGate::Track(const std::shared_ptr<Exchange>& exchange) {
  MutexLock lock(mu_);
  if (!closed_) exchanges_.insert(exchange);
  return !closed_;
}

void CallGate::Untrack(const std::shared_ptr<Exchange>& exchange) {
  MutexLock lock(mu_);
  exchanges_.erase(exchange);
}

bool CallGate::Pause(std::chrono::nanoseconds time) {
  MutexLock lock(mu_);
  return !changed_.WaitFor(mu_, time, [this] { return closed_; });
}

void CallGate::Close() {
  MutexLock lock(mu_);
  closed_ = true;
  for (const auto& exchange : exchanges_) exchange->Cancel();
  changed_.NotifyAll();
  while (!changed_.WaitFor(mu_, kNoDeadline, [this] { return calls_ == 0; })) {
  }
}

void WaitingHandler::OnDone(ExchangeResult result) {
  MutexLock lock(mu_);
  result_ = std::move(result);
  changed_.NotifyAll();
}

bool WaitingHandler::WaitDone(Deadline deadline, const std::function<bool()>& ready) {
  changed_.WaitUntil(mu_, deadline, [&] { return result_.has_value() || ready(); });
  return result_.has_value();
}

ExchangeResult WaitingHandler::Await(Exchange& exchange, Deadline deadline) {
  MutexLock lock(mu_);
  if (WaitDone(deadline, [] { return false; })) return *result_;
  exchange.Cancel();  // OnDone follows at once
  while (!WaitDone(std::chrono::steady_clock::now() + kNoDeadline, [] { return false; })) {
  }
  ExchangeResult result = *result_;
  if (result.status.code() == StatusCode::kCancelled) {
    result.status = DeadlineExceededError(result.status.message() + ": the deadline passed");
  }
  return result;
}

Status Collector::OnAnswer(const HttpHead& head) {
  head_ = head;
  if (check_) HR_RETURN_IF_ERROR(check_(head));
  if (bytes_max_ == 0 || head.content_length.value_or(0) <= bytes_max_) return OkStatus();
  return FailedPreconditionError("an answer of " + std::to_string(*head.content_length) + " bytes is larger than the limit of " +
                                 std::to_string(bytes_max_));
}

HttpHandler::Flow Collector::OnBody(std::span<const uint8_t> data) {
  if (bytes_max_ == 0) return HttpHandler::Flow::kContinue;  // not wanted
  if (data.size() > bytes_max_ - body_.size()) {
    too_large_ = true;
    return HttpHandler::Flow::kStop;
  }
  body_.append(reinterpret_cast<const char*>(data.data()), data.size());
  return HttpHandler::Flow::kContinue;
}

void Collector::OnDone(ExchangeResult result) {
  if (too_large_) {
    result.status = FailedPreconditionError(result.status.message() + ": the answer is larger than the limit of " +
                                            std::to_string(bytes_max_) + " bytes");
  }
  WaitingHandler::OnDone(std::move(result));
}

HttpHandler::Flow DownloadPipe::OnBody(std::span<const uint8_t> data) {
  MutexLock lock(mu_);
  if (bytes_ > 0 && bytes_ + data.size() > kStreamBufferBytes) {
    paused_ = true;
    return HttpHandler::Flow::kPause;
  }
  pieces_.emplace_back(data.begin(), data.end());
  bytes_ += data.size();
  changed_.NotifyAll();
  return HttpHandler::Flow::kContinue;
}

std::vector<uint8_t> DownloadPipe::Take(Exchange& exchange, Deadline deadline) {
  std::vector<uint8_t> piece;
  bool resume = false;
  {
    MutexLock lock(mu_);
    WaitDone(deadline, [this]() HR_REQUIRES(mu_) { return !pieces_.empty(); });
    if (pieces_.empty()) return piece;
    piece = std::move(pieces_.front());
    pieces_.pop_front();
    bytes_ -= piece.size();
    if (paused_ && bytes_ <= kStreamBufferBytes / 2) {
      paused_ = false;
      resume = true;
    }
  }
  if (resume) exchange.Resume();
  return piece;
}

size_t UploadPipe::OnSend(std::span<uint8_t> buffer) {
  MutexLock lock(mu_);
  size_t given = 0;
  while (given < buffer.size() && !pieces_.empty()) {
    const std::vector<uint8_t>& front = pieces_.front();
    size_t n = std::min(buffer.size() - given, front.size() - front_used_);
    std::copy_n(front.data() + front_used_, n, buffer.data() + given);
    given += n;
    front_used_ += n;
    bytes_ -= n;
    if (front_used_ == front.size()) {
      pieces_.pop_front();
      front_used_ = 0;
    }
  }
  if (given == 0 && !end_) {
    paused_ = true;
    return HttpHandler::kSendPause;
  }
  changed_.NotifyAll();
  return given;
}

bool UploadPipe::Give(Exchange& exchange, std::vector<uint8_t> piece, Deadline deadline) {
  bool resume;
  {
    MutexLock lock(mu_);
    auto room = [&]() HR_REQUIRES(mu_) { return bytes_ == 0 || bytes_ + piece.size() <= kStreamBufferBytes; };
    if (WaitDone(deadline, room) || !room()) return false;
    bytes_ += piece.size();
    pieces_.push_back(std::move(piece));
    resume = std::exchange(paused_, false);
  }
  if (resume) exchange.Resume();
  return true;
}

void UploadPipe::GiveEnd(Exchange& exchange) {
  bool resume;
  {
    MutexLock lock(mu_);
    end_ = true;
    resume = std::exchange(paused_, false);
  }
  if (resume) exchange.Resume();
}

}  // namespace headrace::registry
