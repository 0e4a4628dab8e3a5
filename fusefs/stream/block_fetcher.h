// BlockFetcher: the blocks of one blob, each fetched once: in order for the one who hashes the whole, out of order for readers, who come first.
//
// A block that comes before its turn is kept in memory near the turn, in an unnamed file of the cache otherwise; its bytes are given up when the one who takes all in order
// says Done. What fails is tried again for ever, with growing pauses: how long a reader waits is the reader's decision. Nothing is verified here.
//
// Threads: any; Take waits, Copy and Settle may block on the local disk, nothing blocks on the network. `arrived` is called on a network thread, without a lock held, and must not block.
// Ownership: source, cache and timer outlive Close, after which nothing of them is touched; late calls of the network find only memory.
// Memory: kWindow + kDemandMax blocks.
#ifndef HEADRACE_FUSEFS_STREAM_BLOCK_FETCHER_H_
#define HEADRACE_FUSEFS_STREAM_BLOCK_FETCHER_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/registry/range_source.h"
#include "fusefs/stream/blob_reader.h"
#include "fusefs/stream/gate.h"

namespace headrace::stream {

class BlockFetcher : public std::enable_shared_from_this<BlockFetcher> {
 public:
  static constexpr uint64_t kBlockBytes = 4ull << 20;
  static constexpr uint64_t kWindow = 8;      // blocks under way or in memory ahead of the one who takes them in order
  static constexpr unsigned kDemandMax = 8;  // for readers, beside those

  using Bytes = std::shared_ptr<const std::vector<uint8_t>>;

  // REQUIRES: blob.size > 0.
  BlockFetcher(registry::RangeSource& source, registry::BlobRef blob, const BlobReaderOptions& pauses, cache::ContentStore& cache, Timer& timer,
               std::function<void(uint64_t block)> arrived);
  ~BlockFetcher();
  // From now on blocks come in order as well. Before, only what readers want.
  void StartOrder();
  // Nothing is called any more, Take gives nothing. REQUIRES: not called from `arrived`.
  void Close();

  uint64_t count() const { return blocks_.size(); }
  uint64_t SizeOf(uint64_t block) const { return std::min(kBlockBytes, blob_.size - block * kBlockBytes); }
  // Bytes of [begin, end) of the blob in blocks that came.
  uint64_t ArrivedBytes(uint64_t begin, uint64_t end) const;

  // The next block in order; null: it did not come within `most`. One thread. Unavailable: the disk lost it, it is fetched again.
  Result<Bytes> Take(std::chrono::milliseconds most);
  // The block that Take gave can be read elsewhere.
  void Done();

  enum class Have : uint8_t {
    kHere,   // copied
    kLater,  // not here yet
    kDone,   // Done was called for it
  };
  // [offset, offset + out.size()) of the blob. REQUIRES: within one block.
  Have Copy(uint64_t offset, std::span<uint8_t> out);
  // A reader waits for this block and will want those behind it.
  void Want(uint64_t block);
  // To be called once for each block that arrived, when its readers have had it: takes it out of memory if its turn is far.
  void Settle(uint64_t block);

  // Why the last range did not come; OK: none failed since one came.
  Status last_error() const;
  // What came was wrong: mirrors that had part in it are not asked again. True if there were any.
  bool ReportWrong();

 private:
  enum class State : uint8_t { kAbsent, kFetching, kHere, kSpilled, kDone };
  struct Block {
    State state = State::kAbsent;
    bool demand = false;  // fetched for a reader
    unsigned tries = 0;
    std::chrono::steady_clock::time_point again{};
    uint64_t got = 0;
    std::shared_ptr<std::vector<uint8_t>> bytes;  // kFetching, or failed half way: growing; kHere: constant
  };
  class Sink;

  void Pump();
  // The next block to ask for; count(): none now. Marks it.
  uint64_t Choose() HR_REQUIRES(mu_);
  bool MayStart(uint64_t block) const HR_REQUIRES(mu_);
  void Ask(uint64_t block);
  bool OnData(uint64_t block, uint64_t from, std::span<const uint8_t> data);
  void OnDone(uint64_t block, Status status);
  void Lose(uint64_t block) HR_REQUIRES(mu_);

  registry::RangeSource& source_;
  const registry::BlobRef blob_;
  const BlobReaderOptions pauses_;
  cache::ContentStore& cache_;
  Timer& timer_;
  const std::function<void(uint64_t block)> arrived_;
  Gate gate_;
  mutable Mutex mu_;
  CondVar moved_;
  bool closed_ HR_GUARDED_BY(mu_) = false;
  bool in_order_ HR_GUARDED_BY(mu_) = false;
  std::vector<Block> blocks_;                         // its elements: HR_GUARDED_BY(mu_)
  std::deque<uint64_t> wanted_ HR_GUARDED_BY(mu_);    // by readers, oldest first
  std::deque<uint64_t> ahead_ HR_GUARDED_BY(mu_);     // behind those
  unsigned demand_active_ HR_GUARDED_BY(mu_) = 0;
  unsigned order_active_ HR_GUARDED_BY(mu_) = 0;
  uint64_t taken_ HR_GUARDED_BY(mu_) = 0;             // Done so far: the place of the one who takes in order
  Status last_error_ HR_GUARDED_BY(mu_);
  std::set<uint64_t> mirrors_ HR_GUARDED_BY(mu_);
  std::shared_ptr<cache::StagedFile> spill_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_BLOCK_FETCHER_H_
