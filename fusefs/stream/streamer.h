// Streamer: from "these bytes of this file" to verified bytes in a buffer.
//
// A read of present bytes is answered from the cache at once, on the caller's thread (local disk). An absent chunk has one flight that
// every reader of the chunk joins; adjacent absent chunks of one read share one ranged GET. Each chunk is decoded and its digest compared
// on the pool, then every waiting reader is answered from that buffer and the buffer goes to the cache file. A failed or wrong chunk is
// fetched again, with growing, jittered pauses, until `deadline` after the reader came; then that reader gets the error (wrong bytes: DataLoss).
// A cache that cannot be written or read degrades to serving without it. Files that are read forward or all over, and models from their first touch,
// are fetched whole, then what comes next in the image (planner.h).
//
// Threads: everything may be called from any thread; nothing waits for the network. Callbacks run on the caller's thread, a pool
// thread or the timer's, without a lock of ours held. Ownership: the references given to Create outlive the Streamer; the Streamer outlives
// its FileContents; its destructor cancels flights and answers every waiting reader (Cancelled).
#ifndef HEADRACE_FUSEFS_STREAM_STREAMER_H_
#define HEADRACE_FUSEFS_STREAM_STREAMER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/format/layer_index.h"
#include "fusefs/registry/range_source.h"

namespace headrace::stream {

// The content of one regular file; the same content opened twice is the same object while it lives. Thread-safe.
class FileContent {
 public:
  // OK: the bytes of [offset, offset + size) clipped at the end of the file, valid during the call only. Called exactly once.
  using ReadDone = std::function<void(Status status, std::span<const uint8_t> bytes)>;

  virtual ~FileContent() = default;
  virtual uint64_t size() const = 0;
  // Every byte is in the cache, verified, synced: may be read behind our back (FUSE passthrough). Goes back to false only if the backing
  // file is found damaged; backing_fd() stays valid all the same.
  virtual bool sealed() const = 0;
  // Every byte is here and verified, not yet synced perhaps.
  virtual bool complete() const { return sealed(); }
  // Everything is here and is being sealed: calls `done` once, when that has ended or `most` has passed, on any thread. At once otherwise.
  virtual void AwaitSeal(std::chrono::milliseconds most, std::function<void()> done) {
    static_cast<void>(most);
    done();
  }
  // Descriptor of the backing file, owned by this object. REQUIRES: sealed() was seen true.
  virtual int backing_fd() const = 0;
  // `done` may be called before Read returns. size <= 16 MiB.
  virtual void Read(uint64_t offset, uint64_t size, ReadDone done) = 0;
  // Bytes of it that are here and verified.
  virtual uint64_t resident() const { return sealed() ? size() : 0; }
  // Starts fetching the whole file (small files at their first touch); answers come by later Reads.
  virtual void FetchAll() = 0;
};

// How a file of a layer stands (control.proto, FileStatus).
struct FileState {
  uint32_t entry = 0;
  uint64_t resident = 0;
  bool sealed = false;
  bool open = false;  // somebody has it open, or it is on its way; false: what follows is not set
  bool reading = false;
  uint64_t waiting = 0;
  uint64_t read_bytes = 0;
  uint64_t stalls = 0;
  uint64_t stall_us = 0;
  uint64_t errors = 0;
  std::string_view cause;  // "fetching", "queued", "verifying", "retrying" or ""
  std::string last_error;
};

// Opens the files of a layer whose chunks have no digests yet (deferred_layer.h). Thread-safe.
class LayerOpener {
 public:
  virtual ~LayerOpener() = default;
  virtual Result<std::shared_ptr<FileContent>> Open(uint32_t entry_index) = 0;
  // Streamer::FileStates of its layer.
  virtual std::vector<FileState> FileStates() const = 0;
};

// A layer whose bytes can be fetched. Immutable.
struct LayerSource {
  registry::BlobRef blob;
  std::shared_ptr<const format::LayerIndex> index;
  std::shared_ptr<LayerOpener> opener;  // null: its files are opened by the digests of their chunks
};

struct StreamerOptions {
  std::chrono::milliseconds read_deadline{300'000};  // after that a reader gets the error
  std::chrono::milliseconds retry_pause_min{100};
  std::chrono::milliseconds retry_pause_max{10'000};
  uint64_t range_bytes_max = 8ull << 20;             // one GET asks for no more (compressed bytes)
  uint64_t inflight_bytes_max = 256ull << 20;        // decoded + compressed buffers of flights; more demand waits its turn
  // What is fetched before anybody asks (planner.h). Ranges under way, of any kind, when a planned one starts: between these two.
  unsigned ranges_first = 16;
  unsigned ranges_max = 56;
  bool read_ahead = true;                            // false: only what is read
  uint64_t fill_rate = 64ull << 20;                  // of the rest of an image once a large file of it is read: compressed bytes a second; 0: none
  uint64_t small_file_bytes = 4ull << 20;            // files up to this are not planned: FetchAll at open gets them
};

class Streamer {
 public:
  static Result<std::unique_ptr<Streamer>> Create(const StreamerOptions& options, cache::ContentStore& store,
                                                  registry::RangeSource& source, ThreadPool& pool, Timer& timer,
                                                  Metrics& metrics);
  virtual ~Streamer() = default;
  // REQUIRES: the entry is a regular file. An empty file is fine (sealed is false; Read gives no bytes).
  virtual Result<std::shared_ptr<FileContent>> Open(std::shared_ptr<const LayerSource> layer, uint32_t entry_index) = 0;
  // The layer is (no longer) shown as part of `image`, any name that its layers have in common: files of one image are each other's
  // next. Counted. `fill`: may be fetched in the background. CPU only (sorts names).
  virtual void AddToImage(const std::string& image, const std::shared_ptr<const LayerSource>& layer, bool fill) = 0;
  virtual void RemoveFromImage(const std::string& image, const std::shared_ptr<const LayerSource>& layer) = 0;
  // StreamerOptions::fill_rate from now on.
  virtual void SetFillRate(uint64_t bytes_per_second) { static_cast<void>(bytes_per_second); }
  // Decoded bytes of the layer's files that are present in the cache (for status; reads presence maps from disk: not on a FUSE thread).
  virtual uint64_t ResidentBytes(const LayerSource& layer) = 0;
  // Every regular file of the layer that has bytes; as slow.
  virtual std::vector<FileState> FileStates(const LayerSource& layer) {
    static_cast<void>(layer);
    return {};
  }
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_STREAMER_H_
