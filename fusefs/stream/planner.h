// Planner: what is fetched before anybody asked for it: the rest of the files that are being read, small files beside those that are opened, then the shards
// that come next, then (slowly) the rest of the image. It decides range by range, when there is room for one, so that a reader's turn of mind changes what comes next at once.
//
// Order: files that are read now, at the cursor that has the smallest lead; files of which only the head was looked at, in natural order; files of
// the same directory and suffix, in natural order; other files of the image ("fill"), within `fill_rate`.
// Nothing is planned for a content that has no usable cache: there would be nowhere to put it. After failures planning rests, longer each time,
// and what failed is planned again; readers that wait are not its business (content_retry.cc).
//
// Threads: one of its own ("plan"), which may open cache files (local disk); public methods from any thread, they never block.
// Internal to stream/. Ownership: shared, because listeners come late; Stop() joins, after which it does nothing.
#ifndef HEADRACE_FUSEFS_STREAM_PLANNER_H_
#define HEADRACE_FUSEFS_STREAM_PLANNER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/stream/content.h"
#include "fusefs/stream/core.h"
#include "fusefs/stream/image_files.h"
#include "fusefs/stream/neighbours.h"
#include "fusefs/stream/window_tuner.h"

namespace headrace::stream {

class Planner : public std::enable_shared_from_this<Planner> {
 public:
  using Opener = std::function<std::shared_ptr<Content>(const FilePlace&)>;

  // `under_way`: told how many bytes are on their way to the cache, on the planner's thread; as long as Stop has not returned.
  Planner(std::shared_ptr<Core> core, Opener open, std::function<void(uint64_t)> under_way);
  ~Planner();
  void Start();
  void Stop();

  ImageFiles& files() { return files_; }
  // The content deserves to be fetched whole; or a part of it that was planned did not come.
  void Want(const std::shared_ptr<Content>& content);
  // A small file was opened: those beside it may be next.
  void OpenedSmall(FilePlace place);
  // Nothing of this layer is planned any more, unless it is wanted again.
  void Drop(const std::shared_ptr<const LayerSource>& layer);
  // A planned range failed, or one came.
  void Failed(const Status& why);
  void Succeeded() { failures_.store(0, std::memory_order_relaxed); }
  // There may be room.
  void Poke();

 private:
  enum class Step : uint8_t {
    kStarted,  // a range
    kBlocked,  // there is something, but no room for it now
    kNothing,
  };
  struct Known {
    std::shared_ptr<Content> content;
    FilePlace place;
  };

  void Run();
  TimePoint NextWake(TimePoint now);
  // True: a file was touched first.
  bool TakeInbox();
  void DropLayer(const LayerSource& layer);
  void Tune(TimePoint now);
  void PlanAll();
  void LetGo(TimePoint now);
  // Of what readers have behind them, when nothing else may leave the cache.
  void GiveBack(uint64_t bytes);
  void ForgetAhead(TimePoint now);
  // Of a shard that nobody touched: what comes next of it may make others go.
  bool MayPlanAhead(const Known& file);
  Step PlanOne(uint64_t room);
  Step PlanTouched(uint64_t room, TimePoint now);
  Step PlanFile(const Known& file, uint64_t room, RangeKind kind);
  // File after file, as `take` gives them; `current` is the one that is being planned.
  template <typename Take>
  Step PlanSuccession(std::optional<Known>& current, uint64_t room, RangeKind kind, const Take& take);
  Step PlanNextFile(uint64_t room);
  Step PlanNeighbours(uint64_t room);
  Step PlanFill(uint64_t room, TimePoint now);
  void CountFillTokens(TimePoint now);
  // The file that was taken is opened; nothing if all of it is here.
  std::optional<Known> OpenTaken(const FilePlace& place);

  const std::shared_ptr<Core> core_;
  const Opener open_;
  const std::function<void(uint64_t)> under_way_;
  ImageFiles files_;
  std::atomic<unsigned> failures_{0};
  std::atomic<bool> poked_{false};
  Mutex mu_;
  CondVar wake_;
  std::vector<std::shared_ptr<Content>> inbox_ HR_GUARDED_BY(mu_);
  std::vector<FilePlace> opened_small_ HR_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<const LayerSource>> dropped_ HR_GUARDED_BY(mu_);
  TimePoint rest_until_ HR_GUARDED_BY(mu_){};
  bool stopping_ HR_GUARDED_BY(mu_) = false;

  // Its thread only.
  std::vector<Known> touched_;
  std::optional<Known> next_;      // the shard that is being planned before anybody touched it
  std::vector<FilePlace> ahead_;   // those that are here, or were, and nobody touched since
  bool ahead_enough_ = false;      // nobody touched them for long: nothing more goes for what is ahead
  std::weak_ptr<Content> reading_; // the file that was touched last, and when
  TimePoint touched_at_{};
  std::optional<Known> fill_;
  Neighbours neighbours_;
  std::optional<Known> neighbour_;
  std::optional<FilePlace> last_;       // of those that have a next: the file that was touched last
  std::optional<FilePlace> fill_from_;  // the file that was touched last
  WindowTuner tuner_;
  bool window_was_limit_ = false;
  bool cache_full_ = false;        // nothing was planned for want of room; and everything in the cache is in use
  bool stuck_ = false;
  uint64_t lead_max_ = 0;          // of one of the files that are being read, when the cache takes nothing: what is ahead of its reader waits in memory
  bool holding_ = false;           // nothing is planned before hold_until_
  TimePoint hold_until_{};
  double fill_tokens_ = 0;         // bytes that the fill may ask for now
  TimePoint fill_time_{};          // when they were counted
  std::thread thread_;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_PLANNER_H_
