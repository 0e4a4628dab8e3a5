#include "fusefs/registry/program_answers.h"

#include <exception>

#include "fusefs/registry/limits.h"

namespace headrace::registry {

std::optional<Credentials> ProgramAnswers::FromKept(const std::vector<std::string>& keys, const Pick& pick) {
  const auto now = Clock::now();
  for (const std::string& key : keys) {
    auto found = kept_.find(key);
    if (found == kept_.end()) continue;
    if (found->second.expiry <= now) {
      kept_.erase(found);
    } else if (std::optional<Credentials> picked = pick(found->second.answer)) {
      return picked;
    }
  }
  return std::nullopt;
}

void ProgramAnswers::MakeRoom() {
  const auto now = Clock::now();
  if (kept_.size() >= kProgramAnswersMax) {
    std::erase_if(kept_, [now](const auto& item) { return item.second.expiry <= now; });
    if (kept_.size() >= kProgramAnswersMax) kept_.clear();  // costs one start of a program each
  }
  if (flights_.size() >= kProgramAnswersMax) {
    std::erase_if(flights_, [&](const auto& item) { return !item.second.running && item.second.started + pause_ <= now; });
  }
}

Result<std::optional<Credentials>> ProgramAnswers::Get(const std::vector<std::string>& keys, const Pick& pick, const Ask& ask) {
  const std::string& key = keys.front();
  {
    MutexLock lock(mu_);
    // The longest program that a configuration allows, and some; the one who runs it always comes back.
    changed_.WaitFor(mu_, kProgramTimeoutMax + std::chrono::seconds(10), [&] {
      auto found = flights_.find(key);
      return found == flights_.end() || !found->second.running;
    });
    if (std::optional<Credentials> picked = FromKept(keys, pick)) return picked;
    MakeRoom();
    Flight& flight = flights_[key];
    if (flight.running) return DeadlineExceededError("another one has been asking for too long");
    if (flight.started != Clock::time_point() && Clock::now() < flight.started + pause_) {
      if (!flight.failed.ok()) return flight.failed;
      return pick(flight.answer);
    }
    flight.running = true;
    flight.started = Clock::now();
  }
  Result<ProgramAnswer> asked = UnknownError("the program's answer could not be read");
  try {
    asked = ask();
  } catch (const std::exception&) {  // what() may quote the answer
  }
  MutexLock lock(mu_);
  Flight& flight = flights_[key];
  flight.running = false;
  flight.started = Clock::now();
  flight.failed = asked.status();
  flight.answer = asked.ok() ? *asked : ProgramAnswer{};
  changed_.NotifyAll();
  if (!asked.ok()) return asked.status();
  if (asked->lifetime.count() > 0) kept_[asked->key] = {*asked, Clock::now() + asked->lifetime};
  return pick(*asked);
}

}  // namespace headrace::registry
