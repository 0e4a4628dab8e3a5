// What the parts of ContentFile share: content_file.cc and content_give_back.cc. Internal to cache/.
#ifndef HEADRACE_FUSEFS_CACHE_CONTENT_PARTS_H_
#define HEADRACE_FUSEFS_CACHE_CONTENT_PARTS_H_

#include <cstdint>

#include "fusefs/cache/content_file.h"

namespace headrace::cache {

class ContentFile::ChunkTurn {
 public:
  ChunkTurn(ContentFile& file, uint32_t chunk);
  ~ChunkTurn();
  ChunkTurn(const ChunkTurn&) = delete;
  ChunkTurn& operator=(const ChunkTurn&) = delete;
  explicit operator bool() const { return mine_; }

 private:
  ContentFile& file_;
  const uint32_t chunk_;
  bool mine_ = false;
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_CONTENT_PARTS_H_
