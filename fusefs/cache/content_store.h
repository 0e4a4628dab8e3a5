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

namespace headrace::cache {

struct StoreOptions {
  std::string root;     // made if missing
  std::chrono::milliseconds write_pause{1000};  // after a write that failed, none is tried for so long
};

// A file that gets its content before it is known which content that is. Used by one thread at a time; blocks on the local disk; gone with the object unless it was adopted.
class StagedFile {
 public:
  ~StagedFile();
  StagedFile(const StagedFile&) = delete;
  StagedFile& operator=(const StagedFile&) = delete;
  // What is never written is zeros.
  Status Write(uint64_t offset, std::span<const uint8_t> bytes);

 private:
  friend class ContentStore;
  StagedFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string path_;  // "": adopted
  UniqueFd fd_;
  uint64_t not_written_back_ = 0;
};

class ContentStore {
 public:
  static Result<std::unique_ptr<ContentStore>> Create(const StoreOptions& options, Metrics& metrics);
  ~ContentStore();
  ContentStore(const ContentStore&) = delete;
  ContentStore& operator=(const ContentStore&) = delete;

  // REQUIRES: spec.size > 0 and spec.chunk_count > 0.
  Result<std::shared_ptr<ContentFile>> Open(const ContentSpec& spec);

  // A whole content at once. Every byte was hashed into the digests that `spec` stands for by the caller: it counts as verified. Sealed when this store opens it next (another one verifies it
  // first). Nothing is done if it is there already. REQUIRES: as Open; bytes.size() == spec.size, holes included.
  Status Put(const ContentSpec& spec, std::span<const uint8_t> bytes);
  // The same of a file of any size.
  Result<std::unique_ptr<StagedFile>> Stage();
  Status Adopt(const ContentSpec& spec, std::unique_ptr<StagedFile> staged);

  // Which chunks are here (verified or not), without making or changing anything; empty if nothing is.
  std::vector<bool> Peek(const ContentSpec& spec);

  // Contents that are open in this process (what eviction must leave alone).
  size_t open_contents() const;

 private:
  struct Live;
  ContentStore(std::shared_ptr<StoreShared> shared, const StoreOptions& options);
  std::string PathStem(const Digest& id) const;
  Result<std::shared_ptr<ContentFile>> OpenLocked(const ContentSpec& spec);
  // Makes the pair of files of a content that is not there; false: it is there, in part or whole. `place` makes the data file.
  Result<bool> Place(const ContentSpec& spec, const std::function<Status(const std::string& data_path)>& place);
  // Through an open file: what somebody else fetches at the same time.
  Status WriteInto(const ContentSpec& spec, const std::function<Status(uint64_t offset, std::span<uint8_t> out)>& read);

  const std::shared_ptr<StoreShared> shared_;
  const StoreOptions options_;
  std::unique_ptr<Live> live_;
  std::atomic<uint64_t> staged_count_{0};
  std::unique_ptr<ThreadPool> sealer_;
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_CONTENT_STORE_H_
