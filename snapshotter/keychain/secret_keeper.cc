#include "snapshotter/keychain/secret_keeper.h"

#include <algorithm>

#include "fusefs/base/executor.h"
#include "fusefs/base/log.h"

namespace headrace::snapshotter {
namespace {

constexpr size_t kSecretsMax = 4096;
constexpr size_t kTellAtOnce = 100;  // far below the size limit of a gRPC message

}  // namespace

SecretKeeper::SecretKeeper(TellDaemon tell, Options options)
    : tell_(std::move(tell)), options_(options), thread_([this] {
        SetThreadName("keychain");
        Run();
      }) {}

SecretKeeper::~SecretKeeper() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void SecretKeeper::Tell(PullSecret secret, std::function<void()> done) {
  {
    MutexLock lock(mu_);
    queue_.push_back({std::move(secret), std::move(done)});
  }
  changed_.NotifyAll();
}

void SecretKeeper::Run() {
  auto next_check = std::chrono::steady_clock::now() + options_.check_every;
  for (;;) {
    std::deque<Waiting> waiting;
    bool stopping;
    {
      MutexLock lock(mu_);
      changed_.WaitUntil(mu_, next_check, [this] { return stopping_ || !queue_.empty(); });
      waiting.swap(queue_);
      stopping = stopping_;
    }
    for (Waiting& one : waiting) {
      if (stopping) one.done();
      else TellOne(std::move(one));
    }
    if (stopping) return;
    if (std::chrono::steady_clock::now() < next_check) continue;
    Check();
    next_check = std::chrono::steady_clock::now() + options_.check_every;
  }
}

void SecretKeeper::Keep(const PullSecret& secret) {
  if (kept_.size() >= kSecretsMax) {
    kept_.erase(std::min_element(kept_.begin(), kept_.end(), [](const auto& a, const auto& b) {
      return a.second.turn < b.second.turn;
    }));
  }
  kept_[secret.image + "\n" + secret.username] = {secret, ++turn_};
}

void SecretKeeper::TellOne(Waiting waiting) {
  Keep(waiting.secret);
  Result<std::string> told = tell_({waiting.secret}, options_.tell_timeout);
  NoteOutcome(told.status());
  // A daemon that failed, or another one than before: Check tells it everything.
  if (!told.ok() || *told != instance_) instance_.clear();
  waiting.done();
}

void SecretKeeper::Check() {
  if (kept_.empty()) return;
  Result<std::string> asked = tell_({}, options_.tell_timeout);
  NoteOutcome(asked.status());
  if (!asked.ok() || *asked == instance_) return;
  std::vector<const Kept*> in_order;
  for (const auto& [key, kept] : kept_) in_order.push_back(&kept);
  std::sort(in_order.begin(), in_order.end(),
            [](const Kept* a, const Kept* b) { return a->turn < b->turn; });
  for (size_t i = 0; i < in_order.size(); i += kTellAtOnce) {
    std::vector<PullSecret> some;
    for (size_t j = i; j < std::min(i + kTellAtOnce, in_order.size()); ++j) {
      some.push_back(in_order[j]->secret);
    }
    Result<std::string> told = tell_(some, options_.tell_timeout);
    NoteOutcome(told.status());
    if (!told.ok() || *told != *asked) return;  // the next check begins anew
  }
  instance_ = *asked;
}

void SecretKeeper::NoteOutcome(const Status& status) {
  const bool failing = !status.ok();
  if (failing && !failing_) {
    log::Warn("headrace-fused is not told the credentials of pulls; they are told later error=\"{}\"", status.ToString());
  }
  failing_ = failing;
}

}  // namespace headrace::snapshotter
