#include "fusefs/stream/content_id.h"

#include <array>
#include <string_view>

#include "fusefs/format/limits.h"

namespace headrace::stream {
namespace {

// A frame that is much larger than what it holds is an attack on our memory, not a file.
bool SizesCanBe(const format::Chunk& chunk) {
  // A gzip member of eStargz holds other small files, too.
  const uint64_t decoded = chunk.codec == format::Codec::kGzip ? format::limits::kChunkSizeMax : chunk.size;
  return chunk.size <= format::limits::kChunkSizeMax && chunk.blob_size > 0 &&
         chunk.blob_size <= format::limits::ChunkBlobSizeMax(decoded);
}

void AddU64(Sha256& sha, uint64_t value) {
  std::array<uint8_t, 8> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
  sha.Update(bytes);
}

}  // namespace

Result<cache::ContentSpec> ContentId(const format::LayerIndex& index, const format::Entry& entry) {
  if (entry.type != format::EntryType::kRegular) return InvalidArgumentError(entry.name + " is not a regular file");
  if (entry.size == 0 || entry.chunk_count == 0 || entry.first_chunk > index.chunks.size() ||
      entry.chunk_count > index.chunks.size() - entry.first_chunk) {
    return InvalidArgumentError(entry.name + ": chunks outside the table");
  }
  Sha256 sha;
  sha.Update(std::string_view("headrace content 1\n"));
  AddU64(sha, entry.size);
  uint64_t end = 0;
  for (uint32_t i = 0; i < entry.chunk_count; ++i) {
    const format::Chunk& chunk = index.chunks[entry.first_chunk + i];
    const bool stored = chunk.kind == format::ChunkKind::kStored;
    if (chunk.file_offset != end || chunk.size == 0 || chunk.size > entry.size - end) {
      return InvalidArgumentError(entry.name + ": chunk " + std::to_string(i) + " does not follow the one before");
    }
    if (stored && (!SizesCanBe(chunk) || chunk.digest.empty())) {
      return InvalidArgumentError(entry.name + ": chunk " + std::to_string(i) + " has no digest or an absurd size");
    }
    end += chunk.size;
    AddU64(sha, stored ? 1 : 0);
    AddU64(sha, chunk.size);
    if (stored) sha.Update(chunk.digest.bytes());
  }
  if (end != entry.size) return InvalidArgumentError(entry.name + ": chunks do not reach the end of the file");
  return cache::ContentSpec{.id = sha.Finish(), .file_digest = entry.file_digest, .size = entry.size,
                            .chunk_count = entry.chunk_count};
}

std::vector<Digest> ContentIds(const format::LayerIndex& index) {
  std::vector<Digest> ids;
  for (const format::Entry& entry : index.entries) {
    if (entry.type != format::EntryType::kRegular || entry.size == 0) continue;
    if (auto spec = ContentId(index, entry); spec.ok()) ids.push_back(spec->id);
  }
  return ids;
}

}  // namespace headrace::stream
