#include "fusefs/stream/cache_filler.h"

#include <algorithm>
#include <utility>

#include "fusefs/stream/content_id.h"

namespace headrace::stream {

Status CacheFiller::BeginFile(uint64_t size) {
  size_ = size;
  small_.clear();
  staged_.reset();
  if (size <= format::TarIndexer::kChunkSize) {
    small_.resize(size);
    return OkStatus();
  }
  auto staged = cache_.Stage();
  if (!staged.ok()) return staged.status().Annotate("cache");
  staged_ = std::move(*staged);
  return OkStatus();
}

Status CacheFiller::Content(uint64_t file_offset, std::span<const uint8_t> bytes) {
  if (staged_) return staged_->Write(file_offset, bytes);
  std::copy(bytes.begin(), bytes.end(), small_.begin() + static_cast<ptrdiff_t>(file_offset));
  return OkStatus();
}

Status CacheFiller::EndFile(std::span<const format::Chunk> chunks) {
  format::LayerIndex index;
  index.chunks.assign(chunks.begin(), chunks.end());
  format::Entry entry;
  entry.size = size_;
  entry.chunk_count = static_cast<uint32_t>(chunks.size());
  HR_ASSIGN_OR_RETURN(const cache::ContentSpec spec, ContentId(index, entry));
  return staged_ ? cache_.Adopt(spec, std::move(staged_)) : cache_.Put(spec, small_);
}

}  // namespace headrace::stream
