#include "fusefs/stream/planner.h"

#include <algorithm>
#include <utility>

#include "fusefs/base/log.h"

namespace headrace::stream {
namespace {

// Without a poke nothing changes but the clock; an idle planner looks up once a minute.
constexpr std::chrono::seconds kIdle{60};
constexpr std::chrono::milliseconds kFillTick{100};
// What the cache would not keep is not fetched ahead; after so long it is asked again whether it has room.
constexpr std::chrono::milliseconds kFullTick{100};
// Unused buffers that an idle daemon keeps, and how long after the last range the others go.
constexpr size_t kIdleBufferBytes = size_t{16} << 20;
constexpr std::chrono::seconds kTrimAfter{2};
// Files of an image that were touched and are not all here: each keeps descriptors of its cache file open.
constexpr size_t kTouchedMax = 1024;
constexpr size_t kOpenedSmallMax = 1024;
// Shards that came before anybody touched them: where others must go for them a quarter of the cache (but one may always be ahead), for so long.
constexpr uint64_t kAheadShare = 4;
constexpr std::chrono::minutes kAheadFor{5};
// Half of what is kept in memory of what the cache does not take (core.cc).
constexpr uint64_t kMemoryLead = uint64_t{32} << 20;
// At once of what readers have behind them: less often than once a range.
constexpr unsigned kGiveBackRanges = 4;
// The kernel reads ahead in several requests, and its workers take them in any order: when a file is touched first, those get the connections that are there before anything is planned.
constexpr std::chrono::milliseconds kFirstReads{2};

}  // namespace

Planner::Planner(std::shared_ptr<Core> core, Opener open, std::function<void(uint64_t)> under_way)
    : core_(std::move(core)),
      open_(std::move(open)),
      under_way_(std::move(under_way)),
      files_(core_->options.small_file_bytes),
      neighbours_(core_->options.small_file_bytes),
      tuner_(core_->options.ranges_first, core_->options.ranges_max) {}

Planner::~Planner() { Stop(); }

void Planner::Start() {
  core_->scheduler->SetWindow(tuner_.window());
  core_->metrics.range_window.store(tuner_.window(), std::memory_order_relaxed);
  core_->scheduler->SetListener([weak = weak_from_this()] {
    if (const std::shared_ptr<Planner> self = weak.lock()) self->Poke();
  });
  thread_ = std::thread([this] {
    SetThreadName("plan");
    Run();
  });
}

void Planner::Stop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  if (thread_.joinable()) thread_.join();
  touched_.clear();
  ahead_.clear();
  next_.reset();
  fill_.reset();
  neighbour_.reset();
}

void Planner::Poke() {
  if (poked_.exchange(true, std::memory_order_acq_rel)) return;
  // Under the lock, or the thread could miss it between its look and its sleep.
  MutexLock lock(mu_);
  wake_.NotifyOne();
}

void Planner::Want(const std::shared_ptr<Content>& content) {
  {
    MutexLock lock(mu_);
    inbox_.push_back(content);
  }
  Poke();
}

void Planner::OpenedSmall(FilePlace place) {
  {
    MutexLock lock(mu_);
    if (opened_small_.size() >= kOpenedSmallMax) return;  // a hint; more than it can look at help nobody
    opened_small_.push_back(std::move(place));
  }
  Poke();
}

void Planner::Drop(const std::shared_ptr<const LayerSource>& layer) {
  {
    MutexLock lock(mu_);
    dropped_.push_back(layer);
  }
  Poke();
}

void Planner::Failed(const Status& why) {
  const unsigned tries = failures_.fetch_add(1, std::memory_order_relaxed) + 1;
  const TimePoint until = std::chrono::steady_clock::now() + core_->RetryPause(tries, UnavailableError("").WithRetryAfter(why.retry_after()));
  MutexLock lock(mu_);
  rest_until_ = std::max(rest_until_, until);
}

void Planner::Run() {
  for (;;) {
    const TimePoint wake = NextWake(std::chrono::steady_clock::now());
    bool poked = false;
    {
      MutexLock lock(mu_);
      poked = wake_.WaitUntil(mu_, wake, [this] { return stopping_ || poked_.load(std::memory_order_acquire); });
      if (stopping_) return;
    }
    if (!poked && core_->scheduler->active() == 0) core_->buffers->Trim(kIdleBufferBytes);
    poked_.store(false, std::memory_order_release);
    const bool first_touch = TakeInbox();
    const TimePoint now = std::chrono::steady_clock::now();
    ForgetAhead(now);
    if (first_touch && !holding_) hold_until_ = now + kFirstReads;
    holding_ = (holding_ || first_touch) && now < hold_until_;
    if (holding_) continue;
    Tune(now);
    cache_full_ = stuck_ = false;
    PlanAll();
  }
}

TimePoint Planner::NextWake(TimePoint now) {
  TimePoint wake = now + (core_->buffers->idle_bytes() > kIdleBufferBytes ? kTrimAfter : kIdle);
  if (core_->scheduler->active() > 0) wake = std::min(wake, now + WindowTuner::kTick);
  if (fill_) wake = std::min(wake, now + kFillTick);
  if (cache_full_) wake = std::min(wake, now + kFullTick);
  if (!ahead_.empty()) wake = std::min(wake, std::max(touched_at_ + kAheadFor, now));
  if (holding_) wake = std::min(wake, hold_until_);
  MutexLock lock(mu_);
  if (rest_until_ > now) wake = std::min(wake, rest_until_);
  return wake;
}

void Planner::DropLayer(const LayerSource& layer) {
  const auto is_of = [&](const FilePlace& place) { return place.layer->blob.digest == layer.blob.digest; };
  std::erase_if(touched_, [&](const Known& known) { return is_of(known.place); });
  std::erase_if(ahead_, is_of);
  if (next_ && is_of(next_->place)) next_.reset();
  if (fill_ && is_of(fill_->place)) fill_.reset();
  if (neighbour_ && is_of(neighbour_->place)) neighbour_.reset();
  neighbours_.Drop(layer.blob.digest);
  if (last_ && is_of(*last_)) last_.reset();
  if (fill_from_ && is_of(*fill_from_)) fill_from_.reset();
}

bool Planner::TakeInbox() {
  bool first_touch = false;
  std::vector<std::shared_ptr<Content>> wanted;
  std::vector<std::shared_ptr<const LayerSource>> dropped;
  std::vector<FilePlace> opened_small;
  {
    MutexLock lock(mu_);
    wanted.swap(inbox_);
    dropped.swap(dropped_);
    opened_small.swap(opened_small_);
  }
  for (const FilePlace& place : opened_small) neighbours_.Opened(place);
  for (const auto& layer : dropped) DropLayer(*layer);
  for (const std::shared_ptr<Content>& content : wanted) {
    const auto is_it = [&](const Known& known) { return known.content == content; };
    const bool known = std::any_of(touched_.begin(), touched_.end(), is_it);
    Known file{content, content->Place()};
    files_.Take(file.place);
    std::erase_if(ahead_, [&](const FilePlace& place) { return ImageFiles::Same(place, file.place); });
    ahead_enough_ = false;
    reading_ = content;
    touched_at_ = std::chrono::steady_clock::now();
    fill_from_ = file.place;
    if (KindOf(file.place.meta().name) != FileKind::kPlain) last_ = file.place;
    if (known || touched_.size() >= kTouchedMax) continue;
    // In natural order: of files that are only touched the first goes first.
    const auto before = [](const Known& a, const Known& b) { return NaturalLess(a.place.meta().name, b.place.meta().name); };
    touched_.insert(std::upper_bound(touched_.begin(), touched_.end(), file, before), std::move(file));
    first_touch = true;
  }
  return first_touch;
}

void Planner::Tune(TimePoint now) {
  const bool full = std::exchange(window_was_limit_, false) || core_->scheduler->active() >= tuner_.window();
  if (!tuner_.Tick(now, core_->arrived_bytes.load(std::memory_order_relaxed), full)) return;
  core_->scheduler->SetWindow(tuner_.window());
  core_->metrics.range_window.store(tuner_.window(), std::memory_order_relaxed);
}

void Planner::PlanAll() {
  for (;;) {
    under_way_(core_->scheduler->used() / 2);
    // Room first: a range that failed says so before its turn ends, so whoever sees its room finds the pause.
    const uint64_t room = core_->scheduler->Room();
    {
      MutexLock lock(mu_);
      if (stopping_ || rest_until_ > std::chrono::steady_clock::now()) return;
    }
    // After a failure one range at a time asks whether the registry is back.
    if (failures_.load(std::memory_order_relaxed) > 0 && core_->scheduler->active() > 0) return;
    if (room == 0) {
      window_was_limit_ = core_->scheduler->active() >= tuner_.window();
      return;
    }
    if (PlanOne(room) == Step::kStarted) continue;
    if (stuck_) LetGo(std::chrono::steady_clock::now());
    return;
  }
}

Planner::Step Planner::PlanOne(uint64_t room) {
  const TimePoint now = std::chrono::steady_clock::now();
  Step step = PlanTouched(room, now);
  if (step == Step::kNothing) step = PlanNeighbours(room);
  if (step == Step::kNothing) step = PlanNextFile(room);
  if (step == Step::kNothing) step = PlanFill(room, now);
  return step;
}

Planner::Step Planner::PlanTouched(uint64_t room, TimePoint now) {
  while (!touched_.empty()) {
    auto best = touched_.end();
    uint64_t least = 0, active = 0;
    for (auto it = touched_.begin(); it != touched_.end(); ++it) {
      if (!it->content->tracker().Active(now)) continue;
      ++active;
      const uint64_t lead = it->content->tracker().Lead();
      if (best == touched_.end() || lead < least) {
        best = it;
        least = lead;
      }
    }
    lead_max_ = active > 0 ? kMemoryLead / active : 0;
    if (best == touched_.end()) best = touched_.begin();
    const Step step = PlanFile(*best, room, RangeKind::kReadAhead);
    if (step != Step::kNothing) return step;
    touched_.erase(best);  // all of it is here or on its way
  }
  return Step::kNothing;
}

// A file that the planner has open cannot be evicted: when the cache is full it keeps only those that are being read. The others are wanted again when they are read again.
void Planner::LetGo(TimePoint now) {
  std::erase_if(touched_, [&](const Known& known) {
    if (known.content->tracker().Active(now)) return false;
    known.content->tracker().ForgetWhole();
    files_.PutBack(known.place);
    return true;
  });
  for (std::optional<Known>* ahead : {&next_, &fill_, &neighbour_}) {
    if (*ahead) files_.PutBack((*ahead)->place);
    ahead->reset();
  }
}

void Planner::GiveBack(uint64_t bytes) {
  uint64_t given = 0;
  for (const Known& known : touched_) {
    if (given >= bytes) return;
    given += known.content->GiveBack(bytes - given);
  }
}

void Planner::ForgetAhead(TimePoint now) {
  if (ahead_.empty() || now - touched_at_ < kAheadFor) return;
  const std::shared_ptr<Content> reading = reading_.lock();
  if (reading && reading->tracker().Active(now)) {  // a large one
    touched_at_ = now;
    return;
  }
  ahead_.clear();
  ahead_enough_ = true;
}

// While there is spare room, all that comes next is welcome. Where something must go for it, that should be what was read, not what is about to be: so no more than a part of the cache is ahead
// of the readers, and nothing more when they stay away.
bool Planner::MayPlanAhead(const Known& file) {
  const std::shared_ptr<Content>& content = file.content;
  if (content->HasSpare(tuner_.RangeBytes(core_->options.range_bytes_max))) return true;
  if (ahead_enough_) return false;
  uint64_t bytes = content->size();
  for (const FilePlace& place : ahead_) bytes += place.meta().size;
  return ahead_.empty() || bytes <= content->CacheBytes() / kAheadShare;
}

Planner::Step Planner::PlanFile(const Known& file, uint64_t room, RangeKind kind) {
  if (kind == RangeKind::kFill && fill_tokens_ < 0) return Step::kBlocked;
  const uint64_t bytes = tuner_.RangeBytes(core_->options.range_bytes_max);
  if (kind != RangeKind::kFill && file.content->IsStuck(bytes)) GiveBack(kGiveBackRanges * bytes);
  Content::Planned planned = file.content->PlanRange(room, bytes, kind, lead_max_);
  if (planned.full && kind != RangeKind::kFill) {
    cache_full_ = true;
    stuck_ = stuck_ || file.content->IsStuck(bytes);
  }
  if (!planned.range) return planned.more ? Step::kBlocked : Step::kNothing;
  if (kind == RangeKind::kFill) fill_tokens_ -= static_cast<double>(planned.range->bytes());
  core_->scheduler->StartPlanned(planned.range);
  return Step::kStarted;
}

std::optional<Planner::Known> Planner::OpenTaken(const FilePlace& place) {
  std::shared_ptr<Content> content = open_(place);
  if (!content || !content->Plannable()) return std::nullopt;
  return Known{std::move(content), place};
}

template <typename Take>
Planner::Step Planner::PlanSuccession(std::optional<Known>& current, uint64_t room, RangeKind kind, const Take& take) {
  for (;;) {
    if (current) {
      const bool ahead = &current == &next_;
      if (ahead && !MayPlanAhead(*current)) return Step::kBlocked;
      const Step step = PlanFile(*current, room, kind);
      if (step != Step::kNothing) return step;
      if (ahead) ahead_.push_back(current->place);
      current.reset();
    }
    const std::optional<FilePlace> place = take();
    if (!place) return Step::kNothing;
    current = OpenTaken(*place);
  }
}

Planner::Step Planner::PlanNextFile(uint64_t room) {
  return PlanSuccession(next_, room, RangeKind::kReadAhead, [this] { return last_ ? files_.TakeNext(*last_) : std::nullopt; });
}

Planner::Step Planner::PlanNeighbours(uint64_t room) {
  return PlanSuccession(neighbour_, room, RangeKind::kReadAhead, [this] { return neighbours_.Take(); });
}

// Tokens are bytes that may be asked for: a tenth of a second's worth at most is saved up, so that the rate holds for every second; a range may
// overdraw them.
void Planner::CountFillTokens(TimePoint now) {
  const double rate = static_cast<double>(core_->fill_rate.load(std::memory_order_relaxed));
  const double passed = std::chrono::duration<double>(now - fill_time_).count();
  fill_tokens_ = std::min(fill_tokens_ + passed * rate, rate / 10);
  fill_time_ = now;
}

Planner::Step Planner::PlanFill(uint64_t room, TimePoint now) {
  if (core_->fill_rate.load(std::memory_order_relaxed) == 0 || !fill_from_) return Step::kNothing;
  CountFillTokens(now);
  return PlanSuccession(fill_, room, RangeKind::kFill, [this] { return files_.TakeFill(*fill_from_); });
}

}  // namespace headrace::stream
