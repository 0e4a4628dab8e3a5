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
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"
#include "fusefs/cache/content_file.h"

namespace headrace::cache {

struct StoreOptions {
  std::string root;     // made if missing
  std::string boot_id;  // empty: /proc/sys/kernel/random/boot_id
  std::chrono::milliseconds write_pause{1000};  // after a write that failed, none is tried for so long
};

class ContentStore {
 public:
  static Result<std::unique_ptr<ContentStore>> Create(const StoreOptions& options, Metrics& metrics);
  ~ContentStore();
  ContentStore(const ContentStore&) = delete;
  ContentStore& operator=(const ContentStore&) = delete;

  // REQUIRES: spec.size > 0 and spec.chunk_count > 0.
  Result<std::shared_ptr<ContentFile>> Open(const ContentSpec& spec);

  // Which chunks are here (verified or not), without making or changing anything; empty if nothing is.
  std::vector<bool> Peek(const ContentSpec& spec);

  // Contents that are open in this process (what eviction must leave alone).
  size_t open_contents() const;

 private:
  struct Live;
  ContentStore(std::shared_ptr<StoreShared> shared, const StoreOptions& options);
  std::string PathStem(const Digest& id) const;
  Result<std::shared_ptr<ContentFile>> OpenLocked(const ContentSpec& spec);

  const std::shared_ptr<StoreShared> shared_;
  const StoreOptions options_;
  std::unique_ptr<Live> live_;
  std::unique_ptr<ThreadPool> sealer_;
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_CONTENT_STORE_H_
