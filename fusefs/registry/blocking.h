// The bridge from exchanges (network thread) to blocking calls (the caller's thread).
//
// CallGate: counts blocking calls, so that a Client's destructor can end and await them.
// Collector: gathers a small answer. DownloadPipe and UploadPipe: a body in motion between the two threads, at most kStreamBufferBytes of it
// in memory; the network thread pauses the transfer instead of waiting.
// All objects are shared by the two threads and thread-safe; the methods that wait are for the caller's thread and have deadlines.
#ifndef HEADRACE_FUSEFS_REGISTRY_BLOCKING_H_
#define HEADRACE_FUSEFS_REGISTRY_BLOCKING_H_

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/registry/exchange.h"

namespace headrace::registry {

using Deadline = std::chrono::steady_clock::time_point;

class CallGate {
 public:
  // RAII of one blocking call; ok() is false when the client is going down.
  class Call {
   public:
    explicit Call(CallGate& gate) : gate_(gate), ok_(gate.Enter()) {}
    ~Call() { if (ok_) gate_.Leave(); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    bool ok() const { return ok_; }

   private:
    CallGate& gate_;
    const bool ok_;
  };
  // While tracked, Close cancels it. False when already closed.
  bool Track(const std::shared_ptr<Exchange>& exchange);
  void Untrack(const std::shared_ptr<Exchange>& exchange);
  // False when closed meanwhile.
  bool Pause(std::chrono::nanoseconds time);
  // Refuses new calls, cancels those under way, waits until they have returned.
  void Close();

 private:
  bool Enter();
  void Leave();
  Mutex mu_;
  CondVar changed_;
  bool closed_ HR_GUARDED_BY(mu_) = false;
  size_t calls_ HR_GUARDED_BY(mu_) = 0;
  std::set<std::shared_ptr<Exchange>> exchanges_ HR_GUARDED_BY(mu_);
};

// What all handlers below share: the end of the exchange.
class WaitingHandler : public ExchangeHandler {
 public:
  void OnDone(ExchangeResult result) override;
  // Waits for the end; at the deadline cancels the exchange and gives DeadlineExceeded.
  ExchangeResult Await(Exchange& exchange, Deadline deadline);

 protected:
  // Waits until the exchange is done (true) or `ready` (false) or the deadline (false). REQUIRES: mu_.
  bool WaitDone(Deadline deadline, const std::function<bool()>& ready) HR_REQUIRES(mu_);
  Mutex mu_;
  CondVar changed_;
  std::optional<ExchangeResult> result_ HR_GUARDED_BY(mu_);
};

class Collector : public WaitingHandler {
 public:
  using Check = std::function<Status(const HttpHead&)>;
  explicit Collector(uint64_t bytes_max, Check check = nullptr) : bytes_max_(bytes_max), check_(std::move(check)) {}
  Status OnAnswer(const HttpHead& head) override;
  HttpHandler::Flow OnBody(std::span<const uint8_t> data) override;
  void OnDone(ExchangeResult result) override;
  // After Await.
  const HttpHead& head() const { return head_; }
  std::string& body() { return body_; }

 private:
  const uint64_t bytes_max_;
  const Check check_;
  HttpHead head_;
  std::string body_;
  bool too_large_ = false;
};

class DownloadPipe : public WaitingHandler {
 public:
  using Check = std::function<Status(const HttpHead&)>;
  explicit DownloadPipe(Check check) : check_(std::move(check)) {}
  Status OnAnswer(const HttpHead& head) override { return check_(head); }
  HttpHandler::Flow OnBody(std::span<const uint8_t> data) override;
  // The next piece; empty at the end of the body, on failure and at the deadline: Await tells.
  std::vector<uint8_t> Take(Exchange& exchange, Deadline deadline);

 private:
  const Check check_;
  std::deque<std::vector<uint8_t>> pieces_ HR_GUARDED_BY(mu_);
  uint64_t bytes_ HR_GUARDED_BY(mu_) = 0;
  bool paused_ HR_GUARDED_BY(mu_) = false;
};

class UploadPipe : public WaitingHandler {
 public:
  Status OnAnswer(const HttpHead&) override { return OkStatus(); }
  HttpHandler::Flow OnBody(std::span<const uint8_t>) override { return HttpHandler::Flow::kContinue; }
  size_t OnSend(std::span<uint8_t> buffer) override;
  // Hands over the next piece, waiting for room; false when the exchange ended or the deadline passed.
  bool Give(Exchange& exchange, std::vector<uint8_t> piece, Deadline deadline);
  // No more pieces.
  void GiveEnd(Exchange& exchange);

 private:
  std::deque<std::vector<uint8_t>> pieces_ HR_GUARDED_BY(mu_);
  size_t front_used_ HR_GUARDED_BY(mu_) = 0;
  uint64_t bytes_ HR_GUARDED_BY(mu_) = 0;
  bool paused_ HR_GUARDED_BY(mu_) = false;
  bool end_ HR_GUARDED_BY(mu_) = false;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_BLOCKING_H_
