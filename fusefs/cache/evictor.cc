#include "fusefs/cache/evictor.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "fusefs/base/executor.h"
#include "fusefs/base/log.h"
#include "fusefs/cache/store_shared.h"

namespace headrace::cache {
namespace {

// Others fill the file system without telling us.
constexpr std::chrono::seconds kLookEvery{10};
constexpr std::chrono::hours kAgeEvery{1};
// A pass that could free nothing is not tried again at once, however many are refused: only when something was let go, or after the longer one.
constexpr std::chrono::milliseconds kRestMin{20};
constexpr std::chrono::seconds kRestMax{1};
constexpr int kRestFactor = 10;
// What is left of a look is used so long.
constexpr std::chrono::seconds kLeftFor{60};
constexpr size_t kLeftMax = size_t{1} << 17;
// At the start nothing is written before it is known what is here; a large cache is counted while it serves.
constexpr std::chrono::seconds kCountWait{2};
constexpr std::chrono::minutes kPruneWait{30};

// Times of last use are on the disk, in the clock of the machine.
int64_t NowSeconds() { return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

Evictor::Evictor(ContentStore& store, std::chrono::seconds max_age) : store_(store), max_age_s_(max_age.count()) {}

Evictor::~Evictor() { Stop(); }

void Evictor::Start() {
  thread_ = std::thread([this] {
    SetThreadName("cache-evict");
    Run();
  });
  Space& space = store_.shared_->space;
  if (space.limits().budget == 0) return;
  MutexLock lock(mu_);
  changed_.WaitFor(mu_, kCountWait, [&] { return space.counted(); });
}

void Evictor::Stop() {
  store_.shared_->space.Stop();
  if (thread_.joinable()) thread_.join();
  MutexLock lock(mu_);
  changed_.NotifyAll();
}

void Evictor::Run() {
  Space& space = store_.shared_->space;
  uint64_t bytes = 0;
  for (const StoredContent& content : store_.List()) bytes += content.bytes;
  space.Counted(bytes);
  {
    MutexLock lock(mu_);
    changed_.NotifyAll();
  }
  auto age_at = std::chrono::steady_clock::now();
  while (!space.stopping()) {
    space.WaitForWork(std::chrono::steady_clock::now() + kLookEvery);
    while (!space.stopping() && TakeTask()) {
    }
    if (!store_.may_evict_.load(std::memory_order_acquire)) continue;
    const auto start = std::chrono::steady_clock::now();
    const uint64_t let_go = space.let_go();
    const bool too_much = space.Excess() > 0;
    const bool fruitless = too_much && MakeRoom() == 0;
    const auto now = std::chrono::steady_clock::now();
    space.SetStuck(fruitless);
    space.PassEnded();
    if (now >= age_at && max_age_s_.load(std::memory_order_relaxed) > 0) {
      ForgetOld();
      age_at = now + std::min<std::chrono::seconds>(kAgeEvery, std::chrono::seconds(max_age_s_.load(std::memory_order_relaxed) / 8 + 1));
    }
    if (!fruitless) continue;
    const auto least = std::max<std::chrono::steady_clock::duration>(kRestMin, kRestFactor * (now - start));
    space.Rest(let_go, now + least, now + std::max<std::chrono::steady_clock::duration>(kRestMax, least));
  }
}

std::vector<StoredContent> Evictor::Candidates(uint64_t* used) {
  std::vector<StoredContent> all = store_.List();
  if (used != nullptr) *used = std::accumulate(all.begin(), all.end(), uint64_t{0}, [](uint64_t sum, const StoredContent& content) { return sum + content.bytes; });
  std::erase_if(all, [](const StoredContent& content) { return content.open || content.pinned; });
  std::sort(all.begin(), all.end(), [](const StoredContent& a, const StoredContent& b) {
    return a.mounted != b.mounted ? b.mounted : a.last_use != b.last_use ? a.last_use < b.last_use : a.id < b.id;
  });
  return all;
}

uint64_t Evictor::MakeRoom() {
  Space& space = store_.shared_->space;
  const auto start = std::chrono::steady_clock::now();
  const uint64_t wanted = space.Excess();
  uint64_t freed = 0;
  size_t contents = 0;
  bool looked = false;
  if (start - left_since_ > kLeftFor) left_.clear();
  while (freed < wanted && space.StillExcess() > 0 && !space.stopping()) {
    if (left_.empty()) {
      if (looked) break;
      std::vector<StoredContent> candidates = Candidates();
      left_.assign(candidates.begin(), candidates.end());
      left_since_ = start;
      looked = true;
      continue;
    }
    const uint64_t bytes = store_.Evict(left_.front());
    left_.pop_front();
    freed += bytes;
    contents += bytes > 0;
  }
  // Idle contents of mounts are the last resort of one pass: at the next one others may be no longer mounted.
  std::erase_if(left_, [](const StoredContent& content) { return content.mounted; });
  if (left_.size() > kLeftMax) left_.resize(kLeftMax);
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start).count();
  if (freed > 0) {
    log::Info("cache evicted contents={} bytes={} used={} budget={} free={} ms={}", contents, freed, space.used(), space.limits().budget, space.Free(), took);
  } else if (!said_full_) {
    log::Warn("cache is full and nothing in it may be evicted, what is read is not kept used={} budget={} free={} floor={}", space.used(), space.limits().budget, space.Free(), space.Floor());
  }
  said_full_ = freed == 0;
  return freed;
}

void Evictor::ForgetOld() {
  const int64_t before = NowSeconds() - max_age_s_.load(std::memory_order_relaxed);
  size_t contents = 0;
  uint64_t freed = 0;
  for (const StoredContent& content : Candidates()) {
    if (content.mounted || content.last_use >= before || store_.shared_->space.stopping()) continue;
    const uint64_t bytes = store_.Evict(content);
    freed += bytes;
    contents += bytes > 0;
  }
  if (contents > 0) log::Info("cache evicted what was not used for a long time contents={} bytes={}", contents, freed);
}

Pruned Evictor::RunPrune(const PruneRequest& request) {
  Pruned pruned;
  uint64_t used = 0;
  const int64_t before = NowSeconds() - request.min_age.count();
  for (const StoredContent& content : Candidates(&used)) {
    if (used <= request.keep_bytes || store_.shared_->space.stopping()) break;
    if ((content.mounted && !request.mounted) || content.last_use > before) continue;
    const uint64_t bytes = request.dry_run ? content.bytes : store_.Evict(content);
    used -= std::min(used, bytes);
    pruned.bytes += bytes;
    pruned.contents += bytes > 0 || request.dry_run;
  }
  return pruned;
}

bool Evictor::TakeTask() {
  std::shared_ptr<Task> task;
  {
    MutexLock lock(mu_);
    if (tasks_.empty()) return false;
    task = tasks_.front();
    tasks_.pop_front();
  }
  const Pruned pruned = RunPrune(task->request);
  MutexLock lock(mu_);
  task->done = pruned;
  changed_.NotifyAll();
  return true;
}

Result<Pruned> Evictor::Prune(const PruneRequest& request) {
  auto task = std::make_shared<Task>(Task{request, std::nullopt});
  Space& space = store_.shared_->space;
  {
    MutexLock lock(mu_);
    tasks_.push_back(task);
  }
  space.Hurry();
  MutexLock lock(mu_);
  changed_.WaitFor(mu_, kPruneWait, [&] { return task->done.has_value() || space.stopping(); });
  if (!task->done) return CancelledError("the cache is being closed");
  return *task->done;
}

}  // namespace headrace::cache
