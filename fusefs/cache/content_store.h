// ContentStore: the local cache: one backing file for each distinct file content (content_file.h), under one directory.
//
// Created once; outlives the use of its ContentFiles. Everything blocks on the local disk only; any thread.
// Sealing (fdatasync) runs on a thread of the store's own. The destructor finishes the seals that were begun.
// Errors: Create fails if the directory cannot be made or written. Open fails if the disk refuses; the caller then serves without
// the cache. What is corrupt, cut, half deleted or of another version is thrown away and begun anew, never an error.
// Several processes may use one directory at a time (a planned restart overlaps); see README.md.
#ifndef HEADRACE_FUSEFS_CACHE_CONTENT_STORE_H_
#define HEADRACE_FUSEFS_CACHE_CONTENT_STORE_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"
#include "fusefs/cache/content_file.h"
#include "fusefs/cache/pins.h"
#include "fusefs/cache/space.h"

namespace headrace::cache {

class Evictor;

struct StoreOptions {
  std::string root;     // made if missing
  std::chrono::milliseconds write_pause{1000};  // after a write that failed, none is tried for so long
  SpaceLimits limits{};
  std::chrono::seconds max_age{0};  // contents that no mount shows go after so long without use; 0: never
  bool await_mounted = false;       // nothing is evicted before SetMounted was called
};

// A content as it lies on the disk.
struct StoredContent {
  Digest id;
  uint64_t size = 0;     // of the whole content
  uint64_t bytes = 0;    // that it takes on the disk
  int64_t last_use = 0;  // seconds since 1970
  bool open = false;     // in this process
  bool pinned = false;
  bool mounted = false;  // a mount shows it
};

struct PruneRequest {
  uint64_t keep_bytes = 0;          // until the cache uses no more than this
  std::chrono::seconds min_age{0};  // only what was not used for so long
  bool mounted = false;             // idle contents of mounts too
  bool dry_run = false;             // only says what would go
};

struct Pruned {
  uint64_t contents = 0;
  uint64_t bytes = 0;
};

struct CacheUsage {
  uint64_t used = 0;      // bytes on the disk
  uint64_t budget = 0;    // 0: none
  uint64_t low = 0;       // eviction ends there
  uint64_t free = 0;      // on the file system
  uint64_t floor = 0;     // of that, what stays free
  bool counted = false;   // `used` is known
};

// A file that gets its content before it is known which content that is. Written by one thread, or by any if all of them write with Room::kNow, different parts at a time; read by any.
// Blocks on the local disk; gone with the object unless it was adopted.
class StagedFile {
 public:
  ~StagedFile();
  StagedFile(const StagedFile&) = delete;
  StagedFile& operator=(const StagedFile&) = delete;
  enum class Room : uint8_t {
    kWait,  // waits a while for room; a file for which there is none is written no further, gives up what it had, and its adoption does nothing
    kNow,   // ResourceExhausted if there is none; nothing else changes
  };
  // What is never written is zeros.
  Status Write(uint64_t offset, std::span<const uint8_t> bytes, Room room = Room::kWait);
  // DataLoss: the file ends before (also because it gave up), or the disk did not take what was written.
  Status Read(uint64_t offset, std::span<uint8_t> out) const { return bytes_->Read(offset, out); }
  // Gives the room of these bytes back: zeros again.
  Status Punch(uint64_t offset, uint64_t size);
  // The file for readers; good for as long as they keep it, also when it was adopted.
  class Bytes {
   public:
    explicit Bytes(UniqueFd fd) : fd_(std::move(fd)) {}
    Status Read(uint64_t offset, std::span<uint8_t> out) const;
    // The disk did not take all of it.
    bool lost() const;

   private:
    friend class StagedFile;
    friend class ContentStore;
    const UniqueFd fd_;
    mutable std::atomic<bool> lost_{false};  // the kernel says it once
  };
  std::shared_ptr<const Bytes> Share() const { return bytes_; }

 private:
  friend class ContentStore;
  StagedFile(std::shared_ptr<StoreShared> shared, std::string path, UniqueFd fd)
      : shared_(std::move(shared)), path_(std::move(path)), bytes_(std::make_shared<const Bytes>(std::move(fd))) {}
  int fd() const { return bytes_->fd_.get(); }
  const std::shared_ptr<StoreShared> shared_;
  std::string path_;  // "": adopted
  const std::shared_ptr<const Bytes> bytes_;
  std::atomic<uint64_t> not_written_back_{0};
  std::atomic<uint64_t> counted_{0};    // bytes that the space was told of
  std::atomic<bool> given_up_{false};  // the cache is full: it will not be adopted
};

class ContentStore {
 public:
  static Result<std::unique_ptr<ContentStore>> Create(const StoreOptions& options, Metrics& metrics);
  ~ContentStore();
  ContentStore(const ContentStore&) = delete;
  ContentStore& operator=(const ContentStore&) = delete;

  // REQUIRES: spec.size > 0 and spec.chunk_count > 0. ResourceExhausted: it is small and not here, and there is no room to begin it.
  Result<std::shared_ptr<ContentFile>> Open(const ContentSpec& spec);

  // A whole content at once. Every byte was hashed into the digests that `spec` stands for by the caller: it counts as verified. Sealed when this store opens it next (another one verifies it
  // first). Nothing is done if it is there already, or if there is no room for it (after waiting a while). REQUIRES: as Open; bytes.size() == spec.size, holes included.
  Status Put(const ContentSpec& spec, std::span<const uint8_t> bytes);
  // The same of a file of any size.
  Result<std::unique_ptr<StagedFile>> Stage();
  Status Adopt(const ContentSpec& spec, std::unique_ptr<StagedFile> staged);

  // Which chunks are here (verified or not), without making or changing anything; empty if nothing is.
  // `sealed`, if given: whether all is here and synced.
  std::vector<bool> Peek(const ContentSpec& spec, bool* sealed = nullptr);

  // Contents that are open in this process (what eviction must leave alone).
  size_t open_contents() const;

  // -- room (README.md, "Eviction"); content_evict.cc

  CacheUsage Usage() const;
  bool HasRoom(uint64_t bytes) const;
  // So many bytes are on their way to it: room is made for them.
  void SetUnderWay(uint64_t bytes);
  // Every content on the disk. Looks at all files.
  std::vector<StoredContent> List();
  // Evicts by hand, in the order of eviction. Waits for the evictor's thread.
  Result<Pruned> Prune(const PruneRequest& request);
  // See pins.h. When Pin returns, none of these contents is evicted any more.
  Status Pin(const std::string& name, const std::vector<Digest>& contents, const std::vector<std::string>& notes = {});
  Status Unpin(const std::string& name);
  std::vector<PinRecord> Pinned() const;
  bool IsPinned(const Digest& id) const;
  // Tells which contents mounts show, and counts as asked by eviction on its thread, at every look at all files. REQUIRES: what it uses lives until StopEviction has returned.
  void SetMounted(std::function<std::vector<Digest>()> mounted);
  void StopEviction();
  void SetLimits(const SpaceLimits& limits, std::chrono::seconds max_age);

 private:
  friend class Evictor;
  struct Live;
  ContentStore(std::shared_ptr<StoreShared> shared, const StoreOptions& options);
  std::string PathStem(const Digest& id) const;
  Result<std::shared_ptr<ContentFile>> OpenLocked(const ContentSpec& spec);
  // Makes the pair of files of a content that is not there; false: it is there, in part or whole. `place` makes the data file.
  Result<bool> Place(const ContentSpec& spec, const std::function<Status(const std::string& data_path)>& place);
  // Through an open file: what somebody else fetches at the same time.
  Status WriteInto(const ContentSpec& spec, const std::function<Status(uint64_t offset, std::span<uint8_t> out)>& read);

  // Removes the content's files if nobody uses it, it is not pinned, and it was last used then; the bytes that became free.
  uint64_t Evict(const StoredContent& content);
  std::vector<Digest> MountedContents();
  // What stands in one directory of the second level.
  void ListDirectory(const std::string& directory, std::vector<StoredContent>& out);

  const std::shared_ptr<StoreShared> shared_;
  const StoreOptions options_;
  std::unique_ptr<Live> live_;
  std::atomic<uint64_t> staged_count_{0};
  Mutex mounted_mu_;
  std::atomic<bool> may_evict_{false};
  std::function<std::vector<Digest>()> mounted_ HR_GUARDED_BY(mounted_mu_);
  std::unique_ptr<ThreadPool> sealer_;
  std::unique_ptr<Evictor> evictor_;  // last: its thread uses all of the above
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_CONTENT_STORE_H_
