// ProgramAnswers: what programs said, kept as long as they allow, and asked once by many at a time.
//
// Get(keys, ...) answers from the first key that has an answer that is fresh and not refused; else one caller runs `ask`, and others with the
// same first key wait for it (until it has ended: the program has its own time limit). A program is not started again for a key within
// kProgramPause of its last start, so that a registry that refuses everything does not start programs all day.
// Any thread; blocks as `ask` does. The lock is not held meanwhile.
#ifndef HEADRACE_FUSEFS_REGISTRY_PROGRAM_ANSWERS_H_
#define HEADRACE_FUSEFS_REGISTRY_PROGRAM_ANSWERS_H_

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/credential_source.h"

namespace headrace::registry {

// Credentials by the images that they are for (or by "" for whoever asked).
struct ProgramAnswer {
  std::vector<std::pair<std::string, Credentials>> credentials;
  std::string key;                       // kept under this one
  std::chrono::seconds lifetime{0};      // 0: not kept, but for kProgramPause
};

class ProgramAnswers {
 public:
  using Clock = std::chrono::steady_clock;
  using Ask = std::function<Result<ProgramAnswer>()>;
  // Picks credentials of an answer; nullopt if it has none that would do (all refused).
  using Pick = std::function<std::optional<Credentials>(const ProgramAnswer&)>;

  // Keys from the narrowest to the widest; `keys.front()` is also what single flight and the pause go by. The error of `ask` is passed on, and
  // again to those who ask within the pause. nullopt: it answered, and what it said is nothing for this question (or is refused).
  Result<std::optional<Credentials>> Get(const std::vector<std::string>& keys, const Pick& pick, const Ask& ask);

  explicit ProgramAnswers(std::chrono::milliseconds pause) : pause_(pause) {}

 private:
  struct Kept {
    ProgramAnswer answer;
    Clock::time_point expiry;
  };
  struct Flight {
    bool running = false;
    Clock::time_point started;
    Status failed;
    ProgramAnswer answer;  // what the last start said
  };
  std::optional<Credentials> FromKept(const std::vector<std::string>& keys, const Pick& pick) HR_REQUIRES(mu_);
  void MakeRoom() HR_REQUIRES(mu_);

  const std::chrono::milliseconds pause_;
  Mutex mu_;
  CondVar changed_;
  std::map<std::string, Kept> kept_ HR_GUARDED_BY(mu_);
  std::map<std::string, Flight> flights_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_PROGRAM_ANSWERS_H_
