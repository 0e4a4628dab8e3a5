// CacheFiller: files of a layer that streams by, into the cache. Files of one chunk are put together in memory; longer ones are written to a file that has no name in the
// cache before its chunks are known.
//
// One thread; blocks on the local disk. The cache outlives it. Memory: one chunk. Errors: the disk's; what was begun of a file is then gone.
#ifndef HEADRACE_FUSEFS_STREAM_CACHE_FILLER_H_
#define HEADRACE_FUSEFS_STREAM_CACHE_FILLER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/format/tar_indexer.h"

namespace headrace::stream {

class CacheFiller : public format::ContentSink {
 public:
  explicit CacheFiller(cache::ContentStore& cache) : cache_(cache) {}

  Status BeginFile(uint64_t size) override;
  Status Content(uint64_t file_offset, std::span<const uint8_t> bytes) override;
  Status EndFile(std::span<const format::Chunk> chunks) override;

  // Through which others read what came of the file so far; null for one that is put together in memory.
  std::shared_ptr<const cache::StagedFile::Bytes> Share() const { return staged_ ? staged_->Share() : nullptr; }

 private:
  cache::ContentStore& cache_;
  uint64_t size_ = 0;
  std::vector<uint8_t> small_;
  std::unique_ptr<cache::StagedFile> staged_;
};

}  // namespace headrace::stream

#endif  // HEADRACE_FUSEFS_STREAM_CACHE_FILLER_H_
