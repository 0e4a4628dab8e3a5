#include "test/stream/fake_layer.h"

#include <zstd.h>

#include <algorithm>

namespace headrace::stream {

uint32_t FakeLayer::AddFile(const std::string& name, std::vector<uint8_t> bytes, const std::vector<uint64_t>& cuts,
                            bool holes) {
  format::Entry entry;
  entry.name = name;
  entry.mode = 0644;
  entry.size = bytes.size();
  entry.file_digest = Digest::Of(bytes);
  entry.first_chunk = static_cast<uint32_t>(index_.chunks.size());
  entry.chunk_count = static_cast<uint32_t>(cuts.size());
  uint64_t offset = 0;
  for (const uint64_t size : cuts) {
    format::Chunk chunk;
    chunk.file_offset = offset;
    chunk.size = size;
    const auto part = std::span<const uint8_t>(bytes).subspan(offset, size);
    offset += size;
    if (holes && std::all_of(part.begin(), part.end(), [](uint8_t b) { return b == 0; })) {
      chunk.kind = format::ChunkKind::kZeros;
      index_.chunks.push_back(chunk);
      continue;
    }
    chunk.digest = Digest::Of(part);
    std::vector<uint8_t> frame(ZSTD_compressBound(size));
    frame.resize(ZSTD_compress(frame.data(), frame.size(), part.data(), part.size(), 1));
    chunk.blob_offset = blob_.size();
    chunk.blob_size = frame.size();
    blob_.insert(blob_.end(), frame.begin(), frame.end());
    index_.chunks.push_back(chunk);
  }
  HEADRACE_CHECK(offset == bytes.size());
  index_.entries.push_back(std::move(entry));
  files_.push_back(std::move(bytes));
  return static_cast<uint32_t>(files_.size() - 1);
}

uint32_t FakeLayer::AddRandomFile(const std::string& name, uint32_t chunks, uint64_t chunk_size, unsigned long seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> bytes(chunks * chunk_size);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
  return AddFile(name, std::move(bytes), std::vector<uint64_t>(chunks, chunk_size));
}

std::shared_ptr<const LayerSource> FakeLayer::Source() const {
  auto index = std::make_shared<format::LayerIndex>(index_);
  index->blob_size = blob_.size();
  return std::make_shared<LayerSource>(LayerSource{{image_ref_, blob_digest()}, std::move(index)});
}

}  // namespace headrace::stream
