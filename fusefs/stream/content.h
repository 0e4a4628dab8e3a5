// Content: the bytes of one file content: what is in the cache, and the flights of the chunks that are not (README.md has their states).
// Internal to stream/. Any thread; mu_ guards the table of flights and is never held across I/O, callbacks or other locks.
#ifndef HEADRACE_FUSEFS_STREAM_CONTENT_H_
#define HEADRACE_FUSEFS_STREAM_CONTENT_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/cache/content_file.h"
#include "fusefs/stream/core.h"
#include "fusefs/stream/image_files.h"
#include "fusefs/stream/range_fetch.h"
#include "fusefs/stream/read_op.h"
#include "fusefs/stream/read_tracker.h"
#include "fusefs/stream/streamer.h"

namespace headrace::stream {

// A chunk that is on its way to the readers that wait for it. In the table of its content until its bytes are in the cache file.
// Guarded by the content's lock, but for `chunk`, and for `bytes` once the state is kReady (constant from then on).
struct Flight {
  enum class State : uint8_t {
    kVerifying,  // read from the cache and compared, on the pool
    kRange,      // part of `range`: queued, being fetched, or being decoded
    kPaused,     // failed; tried again when the pause is over
    kReady,      // verified; being written to the cache
  };
  explicit Flight(uint32_t index) : chunk(index) {}

  const uint32_t chunk;
  State state = State::kRange;
  std::vector<std::shared_ptr<ReadOp>> waiters;
  TimePoint want_until = TimePoint::min();  // tried again until then; planned flights that nobody joined: never, the planner plans them again
  unsigned tries = 0;                       // that failed, one after the other
  bool planned = false;                     // made by the planner
  Status last_error;
  std::shared_ptr<RangeFetch> range;
  Buffer bytes;
};

class Content : public FileContent, public std::enable_shared_from_this<Content> {
 public:
  enum class Origin : uint8_t { kWire, kCache };

  // `file` may be null: served without the cache.
  Content(std::shared_ptr<Core> core, const cache::ContentSpec& spec, std::shared_ptr<cache::ContentFile> file,
          std::shared_ptr<const LayerSource> layer, uint32_t entry_index);

  // Another layer that holds the same content: asked in turn when tries fail.
  void AddSource(std::shared_ptr<const LayerSource> layer, uint32_t entry_index);
  // Chunks that are zeros become holes of the cache file, so that it can be complete. Blocks on the disk.
  void MarkHoles();
  bool HasHolesToMark() const;
  // Its cache file is of no use any more (content_file.h): whoever opens the content now gets another object with another file; this one goes on without.
  bool Stale() const { return file_ && !file_->Untouched(); }

  // For the planner. The file as it was opened last.
  FilePlace Place() const;
  ReadTracker& tracker() { return tracker_; }
  // Something of it is missing, and there is a place to put it.
  bool Plannable() const { return file_ && file_->usable() && !file_->complete(); }
  struct Planned {
    std::shared_ptr<RangeFetch> range;  // to be started now, or null
    bool more = false;                  // null range: something is left, but not within `room` (or a part is being verified first)
    bool full = false;                  // the cache takes nothing now
  };
  // The next absent chunks, as its tracker says, as one range of about `bytes` (a chunk at least) that costs at most `room`. When everything in the cache is in use they can only wait for
  // their readers in memory: while the leads of all are less than `lead_max`.
  Planned PlanRange(uint64_t room, uint64_t bytes, RangeKind kind, uint64_t lead_max);
  // So many bytes fit without anything being evicted; and how many there are at most.
  bool HasSpare(uint64_t bytes) const { return !file_ || file_->HasSpare(bytes); }
  uint64_t CacheBytes() const { return file_ ? file_->CacheBytes() : 0; }
  // Everything in the cache is in use: so many bytes more would not fit.
  bool IsStuck(uint64_t bytes) const { return file_ && file_->IsStuck(bytes); }
  // Gives back about `bytes` of the cache that readers have behind them, so that what is before them fits; how many it were.
  uint64_t GiveBack(uint64_t bytes);

  // FileContent
  uint64_t size() const override { return spec_.size; }
  bool sealed() const override { return file_ && file_->sealed(); }
  bool complete() const override { return file_ && file_->complete(); }
  void AwaitSeal(std::chrono::milliseconds most, std::function<void()> done) override;
  int backing_fd() const override;
  void Read(uint64_t offset, uint64_t size, ReadDone done) override;
  void FetchAll() override;

  uint64_t resident() const override;
  // For people (content_status.cc): how it is read and why reads wait.
  void Describe(FileState& state) const;
  // A read was answered that the cache alone could not answer; it had to wait if `waited` is not 0.
  void CountAnswer(std::chrono::nanoseconds waited, uint64_t bytes, const Status& status);

  // Verified bytes of a flight: readers first, then the cache.
  void Deliver(const std::shared_ptr<Flight>& flight, Buffer bytes, Origin origin);
  // These flights did not get their bytes. `progress`: others of the same range did.
  void FetchFailed(const std::vector<std::shared_ptr<Flight>>& flights, const Status& status, bool progress);
  // The deadline of a read has passed.
  void Expire(const std::shared_ptr<ReadOp>& op, TimePoint now);
  // A ready flight that the cache did not take.
  void Forget(const std::shared_ptr<Flight>& flight);
  // Ends all flights. The gate is closed.
  void Close();
  // "17 of usr/lib/x [68, 72)" for logs.
  std::string Describe(const std::shared_ptr<Flight>& flight) const;

 private:
  struct Source {
    std::shared_ptr<const LayerSource> layer;
    uint32_t first_chunk = 0;
  };
  // What a read or FetchAll found to do; done after mu_ is released.
  struct Plan {
    std::vector<uint32_t> zeros, cached;
    std::vector<std::shared_ptr<Flight>> ready, verify, fetch;
    std::vector<std::shared_ptr<RangeFetch>> promote, ranges;
  };
  using Flights = std::vector<std::shared_ptr<Flight>>;
  using Ops = std::vector<std::shared_ptr<ReadOp>>;

  // Geometry of a chunk (place in the file, digest): the same in every source.
  const format::Chunk& chunk(uint32_t index) const {
    return home_.layer->index->chunks[home_.first_chunk + index];
  }
  std::string Where() const;
  uint32_t ChunkAt(uint64_t offset) const;
  bool AllPresent(uint32_t first, uint32_t end) const;
  cache::ChunkState StateOf(uint32_t index) const;
  bool ReadCached(uint64_t offset, uint64_t size, ReadDone& done);
  void ReadThrough(uint64_t offset, uint64_t size, ReadDone done);
  void Join(uint32_t index, const std::shared_ptr<ReadOp>& op, Plan* plan) HR_REQUIRES(mu_);
  void MakeRanges(const Flights& flights, Plan* plan, RangeKind kind = RangeKind::kDemand) HR_REQUIRES(mu_);
  void Launch(Plan& plan, Priority priority);
  void SupplyCached(const std::shared_ptr<ReadOp>& op, uint32_t index);
  void Verify(const std::shared_ptr<Flight>& flight);
  void Resume(const Flights& flights);
  bool IsCurrent(const Flight& flight) const HR_REQUIRES(mu_);
  Ops Erase(Flight& flight) HR_REQUIRES(mu_);
  void Track(uint64_t offset, uint64_t size);
  // Planned flights that did not come: planned again.
  void Replan();
  uint32_t SkipTaken(uint32_t index) const HR_REQUIRES(mu_);
  Flights TakeAbsent(uint32_t first, uint64_t room, uint64_t bytes_max) HR_REQUIRES(mu_);
  std::shared_ptr<Flight> TakeUnverified(uint32_t index) HR_REQUIRES(mu_);
  bool StoreInCache(uint32_t index, std::span<const uint8_t> bytes);
  std::vector<std::shared_ptr<RangeFetch>> DropUnwanted(const std::shared_ptr<ReadOp>& op, TimePoint now)
      HR_REQUIRES(mu_);

  const std::shared_ptr<Core> core_;
  const cache::ContentSpec spec_;
  const std::shared_ptr<cache::ContentFile> file_;
  const Source home_;
  const std::string name_;
  const FileKind kind_;
  ReadTracker tracker_;
  std::atomic<uint64_t> read_bytes_{0}, stalls_{0}, stall_us_{0}, errors_{0};
  mutable Mutex mu_;
  FilePlace place_ HR_GUARDED_BY(mu_);
  Status read_error_ HR_GUARDED_BY(mu_);  // of the last read that failed
  std::map<uint32_t, unsigned> wrong_ HR_GUARDED_BY(mu_);  // planned chunks that came with wrong bytes, how often
  std::optional<Status> replan_ HR_GUARDED_BY(mu_);  // Erase took a planned flight, and why: Replan() when the lock is released
  std::vector<Source> sources_ HR_GUARDED_BY(mu_);
  std::map<uint32_t, std::shared_ptr<Flight>> flights_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_CONTENT_H_
