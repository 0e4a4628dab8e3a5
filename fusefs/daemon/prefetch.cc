#include "fusefs/daemon/prefetch.h"

#include <algorithm>
#include <list>
#include <string>
#include <thread>
#include <utility>

#include "fusefs/base/text.h"

namespace headrace::daemon {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;

// Files under way at a time: enough bytes for the widest wire, and few enough that a stop leaves whole files and not parts of all.
constexpr uint64_t kOpenBytes = uint64_t{256} << 20;
constexpr size_t kOpenFiles = 256;
constexpr uint64_t kRoomBytes = uint64_t{4} << 20;

struct Item {
  std::shared_ptr<const stream::LayerSource> layer;
  uint32_t entry = 0;
  uint64_t size = 0;
};

struct Open {
  std::shared_ptr<stream::FileContent> content;
  Item item;
};

std::vector<Item> ItemsOf(const std::vector<std::shared_ptr<const stream::LayerSource>>& layers) {
  std::vector<Item> items;
  for (const auto& layer : layers) {
    const auto& entries = layer->index->entries;
    for (uint32_t i = 0; i < entries.size(); ++i) {
      if (entries[i].type == format::EntryType::kRegular && entries[i].size > 0) items.push_back({layer, i, entries[i].size});
    }
  }
  return items;
}

class Filling {
 public:
  Filling(std::vector<Item> items, stream::Streamer& streamer, cache::ContentStore& cache, const PrefetchOptions& options)
      : items_(std::move(items)), streamer_(streamer), cache_(cache), options_(options) {
    for (const Item& item : items_) state_.total_bytes += item.size;
    state_.files = items_.size();
    last_progress_ = last_room_ = last_ask_ = std::chrono::steady_clock::now();
  }

  bool ended() const { return next_ == items_.size() && open_.empty(); }
  const PrefetchState& state() const { return state_; }

  Status Step() {
    HR_RETURN_IF_ERROR(OpenMore());
    const TimePoint now = std::chrono::steady_clock::now();
    // What a failing registry did not give within the deadline of reads is given up by the streamer; and what the cache did not take is gone.
    const bool ask = now - last_ask_ > options_.ask_again;
    if (ask) last_ask_ = now;
    uint64_t resident = 0;
    for (auto it = open_.begin(); it != open_.end();) {
      if (it->content->complete()) {
        Close(it->item.size);
        it = open_.erase(it);
        continue;
      }
      resident += it->content->resident();
      if (ask) HR_RETURN_IF_ERROR(AskAgain(*it));
      ++it;
    }
    if (closed_bytes_ + resident > state_.done_bytes) last_progress_ = now;
    state_.done_bytes = closed_bytes_ + resident;
    return StillGoing(now);
  }

 private:
  Status OpenMore() {
    for (; next_ < items_.size() && open_.size() < kOpenFiles && (open_bytes_ < kOpenBytes || open_.empty()); ++next_) {
      const Item& item = items_[next_];
      auto content = streamer_.Open(item.layer, item.entry);
      if (!content.ok()) return content.status();
      open_bytes_ += item.size;
      if ((*content)->complete()) {
        Close(item.size);
        continue;
      }
      if (!cache_.HasRoom(std::min(item.size, kRoomBytes))) {
        open_bytes_ -= item.size;
        return OkStatus();
      }
      (*content)->FetchAll();
      open_.push_back({std::move(*content), item});
    }
    return OkStatus();
  }
  // Opened anew, because the cache may have had no room for it when it was opened.
  Status AskAgain(Open& open) {
    open.content.reset();
    HR_ASSIGN_OR_RETURN(open.content, streamer_.Open(open.item.layer, open.item.entry));
    open.content->FetchAll();
    return OkStatus();
  }
  void Close(uint64_t size) {
    open_bytes_ -= size;
    closed_bytes_ += size;
    ++state_.done_files;
  }
  Status StillGoing(TimePoint now) {
    if (ended()) return OkStatus();
    if (cache_.HasRoom(kRoomBytes)) last_room_ = now;
    const std::string what = HumanBytes(state_.done_bytes) + " of " + HumanBytes(state_.total_bytes) + " are here: ";
    if (now - last_room_ > options_.full && now - last_progress_ > options_.full) {
      return ResourceExhaustedError(what + "the cache is full and nothing in it may be evicted (cache.budget, cache.free_min)");
    }
    if (now - last_progress_ > options_.stall) return UnavailableError(what + "nothing has come for " + std::to_string(options_.stall.count() / 1000) + " s");
    return OkStatus();
  }

  const std::vector<Item> items_;
  stream::Streamer& streamer_;
  cache::ContentStore& cache_;
  const PrefetchOptions options_;
  PrefetchState state_;
  size_t next_ = 0;
  std::list<Open> open_;
  uint64_t open_bytes_ = 0;
  uint64_t closed_bytes_ = 0;
  TimePoint last_progress_, last_room_, last_ask_;
};

}  // namespace

Status Prefetch(const std::vector<std::shared_ptr<const stream::LayerSource>>& layers, stream::Streamer& streamer, cache::ContentStore& cache, const PrefetchOptions& options,
                const std::function<bool(const PrefetchState&)>& report) {
  Filling filling(ItemsOf(layers), streamer, cache, options);
  TimePoint report_at{};
  for (;;) {
    HR_RETURN_IF_ERROR(filling.Step());
    const TimePoint now = std::chrono::steady_clock::now();
    const bool ended = filling.ended();
    if (ended || now >= report_at) {
      report_at = now + options.report;
      if (!report(filling.state())) return CancelledError("the caller has gone");
    }
    if (ended) return OkStatus();
    std::this_thread::sleep_for(options.look);
  }
}

}  // namespace headrace::daemon
