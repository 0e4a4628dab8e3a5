// DeferredLayer: a plain tar without a table of contents that is read before its digest is known (`layers.verify = deferred`).
//
// Its table was walked (format::TarWalk): names, sizes and places, no digests. The blob comes once: in order to the thread that hashes it and puts its files into the cache, and out of
// order where somebody reads. A file that the hashing has passed is read like any other from then on, by the digests that were just computed. At the end the blob's digest and the
// DiffID decide: right (the table of contents is handed over, files may be passed through) or wrong: every read fails from then on (*poisoned*).
// What readers got before that was what the registry sent over TLS, and no more is known of it: that is the bargain of the policy.
//
// Threads: all methods from any thread; a thread of its own hashes ("deferred"). Open and Read answer from memory, the local disk, or later; nothing waits for the network.
// `on_end` is called once at most, on that thread, and must not block.
// Ownership: source, cache, streamer, pool, timer and turns outlive Stop (which the destructor calls). Open files keep the layer alive; after Stop they get Cancelled.
// Memory: BlockFetcher's. Errors of reads: DataLoss (poisoned), DeadlineExceeded or what the registry said, Cancelled. A cache that refuses costs only that files are fetched again.
#ifndef HEADRACE_FUSEFS_STREAM_DEFERRED_LAYER_H_
#define HEADRACE_FUSEFS_STREAM_DEFERRED_LAYER_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/executor.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/format/tar_indexer.h"
#include "fusefs/stream/block_fetcher.h"
#include "fusefs/stream/gate.h"
#include "fusefs/stream/learn_layer.h"
#include "fusefs/stream/read_op.h"
#include "fusefs/stream/streamer.h"

namespace headrace::stream {

struct DeferredRequest {
  registry::BlobRef blob;  // with its size
  Digest diff_id;
  std::shared_ptr<const format::LayerIndex> walked;
  std::chrono::milliseconds read_deadline{300'000};
  BlobReaderOptions pauses;
};

// How many layers are hashed at a time: each has memory of its own, and more only share the wire. The others give readers what they ask for and wait for their turn.
class DeferredTurns {
 public:
  explicit DeferredTurns(unsigned at_a_time) : free_(at_a_time) {}
  // False: not within `most`.
  bool Take(std::chrono::milliseconds most);
  void GiveBack();

 private:
  Mutex mu_;
  CondVar freed_;
  unsigned free_ HR_GUARDED_BY(mu_);
};

// What it works with.
struct DeferredTools {
  registry::RangeSource& source;
  cache::ContentStore& cache;
  Streamer& streamer;
  ThreadPool& pool;
  Timer& timer;
  Metrics& metrics;
  DeferredTurns& turns;
};

class DeferredLayer : public LayerOpener, public std::enable_shared_from_this<DeferredLayer> {
 public:
  enum class Trust : uint8_t { kUnknown, kVerified, kWrong };
  // OK: verified, the table as LearnLayer gives it. Otherwise why it is wrong.
  using OnEnd = std::function<void(Result<LearnedTable>)>;

  static std::shared_ptr<DeferredLayer> Create(const DeferredRequest& request, const DeferredTools& tools, OnEnd on_end);
  ~DeferredLayer() override;
  // Once, after Create.
  void Start();
  void Stop();

  Trust trust() const { return trust_.load(std::memory_order_acquire); }

  // LayerOpener
  Result<std::shared_ptr<FileContent>> Open(uint32_t entry_index) override;
  std::vector<FileState> FileStates() const override;

 private:
  class File;
  class Sink;
  struct Op;
  // A regular file of the table that is not empty.
  struct Place {
    uint64_t begin = 0;                             // of its content in the tar
    uint64_t end = 0;
    std::shared_ptr<const cache::StagedFile::Bytes> staged;               // being put together on the disk
    uint64_t staged_to = 0;                         // in the file
    std::shared_ptr<const LayerSource> learned;     // its chunks with their digests
    std::weak_ptr<File> open;
  };
  using Ops = std::vector<std::shared_ptr<Op>>;

  DeferredLayer(const DeferredRequest& request, const DeferredTools& tools, OnEnd on_end);
  // The thread.
  void Run();
  Status TakeAll();
  Result<LearnedTable> Finish();
  void End(Result<LearnedTable> learned);
  void OpenLearned();

  // Reading.
  void Read(const std::shared_ptr<File>& file, uint64_t offset, uint64_t size, FileContent::ReadDone done);
  void Continue(const std::shared_ptr<Op>& op);
  // Answered, or: the block to wait for.
  bool TryServe(const std::shared_ptr<Op>& op, uint64_t* missing);
  bool ServePiece(uint32_t entry, const format::Chunk& chunk, uint64_t file_offset, std::span<uint8_t> out, uint64_t* missing);
  bool ReadStaged(uint32_t entry, uint64_t file_offset, std::span<uint8_t> out);
  // The file as the streamer knows it, once the hashing has passed it; null before.
  std::shared_ptr<FileContent> Learned(uint32_t entry);
  // Bytes of the file that are here, verified or not.
  uint64_t Resident(uint32_t entry) const;
  // The block has come, or has been hashed.
  void Wake(uint64_t block);
  void ArmDeadline(TimePoint when);
  void OnDeadline();
  void FailAll(const Status& status);
  Status Refusal() const;
  void PostWake(uint64_t block);

  const DeferredRequest request_;
  const DeferredTools tools_;
  const OnEnd on_end_;
  std::shared_ptr<BlockFetcher> blocks_;
  std::unique_ptr<Sink> sink_;
  std::unique_ptr<format::TarIndexer> indexer_;  // of the thread
  std::atomic<Trust> trust_{Trust::kUnknown};
  std::atomic<bool> stopping_{false};
  Gate gate_;
  mutable Mutex mu_;
  std::map<uint32_t, Place> places_ HR_GUARDED_BY(mu_);               // by entry; its keys never change
  std::map<uint64_t, uint32_t> by_begin_;                              // entries by the begin of their content; constant
  std::multimap<uint64_t, std::shared_ptr<Op>> waiting_ HR_GUARDED_BY(mu_);  // by block
  Deadlines deadlines_;
  uint64_t events_ HR_GUARDED_BY(mu_) = 0;                             // Wakes so far
  std::shared_ptr<const LayerSource> settled_ HR_GUARDED_BY(mu_);      // the whole layer, verified
  std::thread thread_;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_DEFERRED_LAYER_H_
