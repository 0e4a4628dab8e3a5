// RangeFetch: one ranged GET of adjacent chunks: waits for its turn, cuts the body into chunks as it arrives, hands each complete one to
// the pool to be decoded and verified, and tells the content which chunks it could not bring. Internal to stream/.
// Threads: OnData and OnDone on the source's thread; Begin and Cancel on any.
#ifndef HEADRACE_FUSEFS_STREAM_RANGE_FETCH_H_
#define HEADRACE_FUSEFS_STREAM_RANGE_FETCH_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/registry/range_source.h"
#include "fusefs/stream/buffer_pool.h"
#include "fusefs/stream/scheduler.h"
#include "fusefs/stream/streamer.h"

namespace headrace::stream {

class Content;
class Core;
struct Flight;

// Why a range is fetched, for the metrics.
enum class RangeKind : uint8_t { kDemand, kReadAhead, kFill };

struct ArrivedChunk;

// Complete compressed chunks that wait for a core. A worker that finds a backlog takes two at a time: their digests cost hardly more than one.
class DecodeQueue {
 public:
  void Push(std::shared_ptr<ArrivedChunk> chunk);
  // One or two; nothing if others took them all.
  std::vector<std::shared_ptr<ArrivedChunk>> Take();
  // Drops all: the tasks that would take them do not run any more, and they keep their owner alive.
  void Clear();

 private:
  // With fewer behind it a second chunk is better off on another core.
  static constexpr size_t kBacklog = 2;
  Mutex mu_;
  std::deque<std::shared_ptr<ArrivedChunk>> queue_ HR_GUARDED_BY(mu_);
};

class RangeFetch : public Job, public registry::RangeSink, public std::enable_shared_from_this<RangeFetch> {
 public:
  struct Part {
    std::shared_ptr<Flight> flight;
    const format::Chunk* chunk;  // of the layer; lies where the one before ends
  };
  // REQUIRES: at least one part.
  RangeFetch(std::shared_ptr<Core> core, std::shared_ptr<Content> content, std::shared_ptr<const LayerSource> layer,
             const std::vector<Part>& parts, RangeKind kind);
  ~RangeFetch() override;

  // Every chunk of it, whatever became of them.
  const std::vector<std::weak_ptr<Flight>>& flights() const { return flights_; }

  // False: it waits in the queue.
  bool has_turn() const { return has_turn_.load(std::memory_order_relaxed); }
  // Compressed bytes.
  uint64_t bytes() const { return end_ - begin_; }

  // Job
  uint64_t cost() const override { return cost_; }
  bool cancelled() const override { return cancelled_.load(std::memory_order_acquire); }
  void Begin() override;

  // Nobody wants what has not arrived yet: gives back memory and budget now; the source is told at its next call.
  void Cancel();

  // RangeSink
  void OnSource(uint64_t source) override { from_.store(source, std::memory_order_relaxed); }
  bool OnData(std::span<const uint8_t> data) override;
  void OnDone(Status status) override;

 private:
  struct Slot {
    std::shared_ptr<Flight> flight;
    const format::Chunk* chunk = nullptr;
    Buffer compressed;
    Charge charge;
  };
  friend struct ArrivedChunk;
  friend class Core;

  bool Consume(std::span<const uint8_t> data, std::vector<std::shared_ptr<ArrivedChunk>>* complete);
  // On the pool: chunks of any ranges.
  static void DecodeSome(Core& core);
  void Decoded(ArrivedChunk& arrived, const Status& status);
  void Ended(Status status);
  void EndTurn();

  const std::shared_ptr<Core> core_;
  const std::shared_ptr<Content> content_;
  const std::shared_ptr<const LayerSource> layer_;
  const uint64_t begin_;  // of the range in the blob
  const uint64_t end_;
  uint64_t cost_ = 0;  // constant after the constructor, as flights_
  std::vector<std::weak_ptr<Flight>> flights_;
  const RangeKind kind_;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> has_turn_{false};
  std::atomic<uint64_t> from_{0};  // RangeSink::OnSource
  Mutex mu_;
  std::vector<Slot> slots_ HR_GUARDED_BY(mu_);
  size_t next_ HR_GUARDED_BY(mu_) = 0;     // slot that is being filled
  size_t filled_ HR_GUARDED_BY(mu_) = 0;   // its bytes so far
  bool done_ HR_GUARDED_BY(mu_) = false;
  Status own_error_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_RANGE_FETCH_H_
