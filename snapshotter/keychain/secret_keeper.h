// SecretKeeper: remembers what images were pulled with and sees to it that headrace-fused knows it, also after that was restarted.
//
// Tell() hands one secret over and then calls `done`, in any case within `tell_timeout`: a pull does not wait for a daemon that is down.
// A thread asks the daemon every `check_every` which process it is, and tells everything again when it is another one, or when something
// could not be told before.
// Kept in memory only, the last kSecretsMax images; a restart of this process forgets them (README.md).
// Threads: any thread; Tell never blocks; `done` is called by the keeper's thread, in the order of Tell. The
// destructor drops what was not told yet (its `done` is called) and joins.
// Never logged: users, passwords, tokens. Logged: that telling fails, once for each outage.
#ifndef HEADRACE_SNAPSHOTTER_KEYCHAIN_SECRET_KEEPER_H_
#define HEADRACE_SNAPSHOTTER_KEYCHAIN_SECRET_KEEPER_H_

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "snapshotter/keychain/pull_secret.h"

namespace headrace::snapshotter {

class SecretKeeper {
 public:
  // Tells the daemon (possibly nothing) and answers which process it is. Blocks for at most the given time.
  using TellDaemon = std::function<Result<std::string>(const std::vector<PullSecret>& secrets,
                                                       std::chrono::milliseconds timeout)>;
  struct Options {
    std::chrono::milliseconds tell_timeout{2000};
    std::chrono::milliseconds check_every{3000};
  };

  explicit SecretKeeper(TellDaemon tell) : SecretKeeper(std::move(tell), Options()) {}
  SecretKeeper(TellDaemon tell, Options options);
  ~SecretKeeper();
  SecretKeeper(const SecretKeeper&) = delete;
  SecretKeeper& operator=(const SecretKeeper&) = delete;

  void Tell(PullSecret secret, std::function<void()> done);

 private:
  struct Waiting {
    PullSecret secret;
    std::function<void()> done;
  };
  void Run();
  void Check();
  void TellOne(Waiting waiting);
  void Keep(const PullSecret& secret);
  void NoteOutcome(const Status& status);

  const TellDaemon tell_;
  const Options options_;
  Mutex mu_;
  CondVar changed_;
  bool stopping_ HR_GUARDED_BY(mu_) = false;
  std::deque<Waiting> queue_ HR_GUARDED_BY(mu_);

  // The keeper's thread only.
  struct Kept {
    PullSecret secret;
    uint64_t turn = 0;
  };
  std::map<std::string, Kept> kept_;  // by image and user
  uint64_t turn_ = 0;
  std::string instance_;  // of the daemon that knows all that is kept; "" = none does
  bool failing_ = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_KEYCHAIN_SECRET_KEEPER_H_
