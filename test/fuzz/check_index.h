// What layer_index.h promises, checked the slow and simple way.
#ifndef HEADRACE_TEST_FUZZ_CHECK_INDEX_H_
#define HEADRACE_TEST_FUZZ_CHECK_INDEX_H_

#include <set>
#include <string>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"
#include "fusefs/format/limits.h"

namespace headrace::fuzz {

inline void CheckName(const std::string& name) {
  HEADRACE_CHECK(name.size() <= format::limits::kNameMax && name.find('\0') == std::string::npos);
  const std::string framed = "/" + name + "/";
  HEADRACE_CHECK(framed.find("/../") == std::string::npos && framed.find("/./") == std::string::npos);
  HEADRACE_CHECK(name.empty() || framed.find("//") == std::string::npos);
}

inline void CheckChunks(const format::LayerIndex& index, const format::Entry& entry, uint64_t data_end) {
  HEADRACE_CHECK(uint64_t{entry.first_chunk} + entry.chunk_count <= index.chunks.size());
  uint64_t covered = 0;
  for (uint32_t i = 0; i < entry.chunk_count; ++i) {
    const format::Chunk& chunk = index.chunks[entry.first_chunk + i];
    HEADRACE_CHECK(chunk.file_offset == covered && chunk.size > 0);
    covered += chunk.size;
    if (chunk.kind == format::ChunkKind::kZeros) continue;
    HEADRACE_CHECK(chunk.size <= format::limits::kChunkSizeMax && !chunk.digest.empty());
    HEADRACE_CHECK(chunk.blob_offset < data_end && chunk.blob_size <= data_end - chunk.blob_offset);
    HEADRACE_CHECK(chunk.codec != format::Codec::kRaw || (chunk.blob_size == chunk.size && chunk.inner_offset == 0));
  }
  HEADRACE_CHECK(covered == entry.size);
}

inline void CheckIndex(const format::LayerIndex& index, uint64_t data_end) {
  SeekPoint before;
  for (const SeekPoint& point : index.seek_points) {
    HEADRACE_CHECK(point.blob_offset > before.blob_offset && point.blob_offset < format::limits::kBlobSizeMax);
    HEADRACE_CHECK(point.decoded_offset > before.decoded_offset && point.decoded_offset < data_end);
    before = point;
  }
  std::set<std::string_view> names;
  for (const format::Entry& entry : index.entries) {
    CheckName(entry.name);
    HEADRACE_CHECK(names.insert(entry.name).second);
    if (entry.type == format::EntryType::kHardlink) CheckName(entry.link_target);
    HEADRACE_CHECK((entry.mode & ~07777u) == 0 && entry.mtime_ns < 1'000'000'000);
    HEADRACE_CHECK(entry.type == format::EntryType::kRegular || (entry.size == 0 && entry.chunk_count == 0));
    CheckChunks(index, entry, data_end);
  }
}

}  // namespace headrace::fuzz

#endif  // HEADRACE_TEST_FUZZ_CHECK_INDEX_H_
