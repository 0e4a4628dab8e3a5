#include "test/fuzz/fuzz_targets.h"

#include <algorithm>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/decompress.h"
#include "fusefs/format/footer.h"
#include "fusefs/format/layer_writer.h"
#include "fusefs/format/limits.h"
#include "fusefs/format/seek_table.h"
#include "fusefs/format/toc.h"

namespace headrace::fuzz {
namespace {

using format::AsBytes;
using format::AsText;

// What layer_index.h promises, checked the slow and simple way.
void CheckIndex(const format::LayerIndex& index, uint64_t data_end) {
  for (const format::Entry& entry : index.entries) {
    HEADRACE_CHECK(entry.name.size() <= format::limits::kNameMax && entry.name.find('\0') == std::string::npos);
    const std::string framed = "/" + entry.name + "/";
    HEADRACE_CHECK(framed.find("/../") == std::string::npos && framed.find("/./") == std::string::npos);
    HEADRACE_CHECK(entry.name.empty() || framed.find("//") == std::string::npos);
    HEADRACE_CHECK(uint64_t{entry.first_chunk} + entry.chunk_count <= index.chunks.size());
    uint64_t covered = 0;
    for (uint32_t i = 0; i < entry.chunk_count; ++i) {
      const format::Chunk& chunk = index.chunks[entry.first_chunk + i];
      HEADRACE_CHECK(chunk.file_offset == covered && chunk.size > 0);
      covered += chunk.size;
      if (chunk.kind == format::ChunkKind::kZeros) continue;
      HEADRACE_CHECK(chunk.size <= format::limits::kChunkSizeMax && !chunk.digest.empty());
      HEADRACE_CHECK(chunk.blob_offset < data_end && chunk.blob_size <= data_end - chunk.blob_offset);
    }
    HEADRACE_CHECK(covered == entry.size);
  }
}

}  // namespace

int FuzzToc(const uint8_t* data, size_t size) {
  constexpr uint64_t kDataEnd = 1 << 20;
  auto index = format::ParseTocJson(AsText({data, size}), kDataEnd, kDataEnd + 100);
  if (index.ok()) CheckIndex(*index, kDataEnd);
  return 0;
}

int FuzzTocLocation(const uint8_t* data, size_t size) {
  auto location = format::TocLocation::Parse(AsText({data, size}));
  if (!location.ok()) return 0;
  auto again = format::TocLocation::Parse(location->ToString());
  HEADRACE_CHECK(again.ok() && again->ToString() == location->ToString());
  return 0;
}

int FuzzTar(const uint8_t* data, size_t size) {
  std::string blob;
  auto writer = format::LayerWriter::Create({.chunk_size = 64 << 10, .zstd_level = 1, .threads = 1},
                                            [&](std::span<const uint8_t> bytes) {
                                              blob += AsText(bytes);
                                              return OkStatus();
                                            });
  HEADRACE_CHECK(writer.ok());
  // Two pieces, cut somewhere: the parser must not depend on how the bytes come.
  const size_t cut = size == 0 ? 0 : data[size / 2] * size / 256;
  if (!(*writer)->Write({data, cut}).ok() || !(*writer)->Write({data + cut, size - cut}).ok()) return 0;
  auto summary = (*writer)->Finish();
  if (!summary.ok()) return 0;
  std::string tar;
  auto decompressor = format::Decompressor::Create([&](std::span<const uint8_t> bytes) {
    tar += AsText(bytes);
    return OkStatus();
  });
  HEADRACE_CHECK(decompressor->Write(AsBytes(blob)).ok() && decompressor->Finish().ok());
  HEADRACE_CHECK(tar == AsText({data, size}));
  auto index = format::ReadToc(AsBytes(blob).subspan(summary->toc.offset, summary->toc.compressed_size), summary->toc);
  HEADRACE_CHECK(index.ok());
  CheckIndex(*index, summary->toc.offset - 8);
  for (const format::Chunk& chunk : index->chunks) {
    if (chunk.kind == format::ChunkKind::kZeros) continue;
    std::vector<uint8_t> out(chunk.size);
    HEADRACE_CHECK(format::DecodeChunk(chunk, AsBytes(blob).subspan(chunk.blob_offset, chunk.blob_size), out).ok());
  }
  return 0;
}

int FuzzChunk(const uint8_t* data, size_t size) {
  format::Chunk chunk;
  chunk.size = 1000;
  chunk.blob_size = size;
  chunk.digest = Digest::Of("never");
  std::vector<uint8_t> out(chunk.size);
  HEADRACE_CHECK(!format::DecodeChunk(chunk, {data, size}, out).ok());
  return 0;
}

int FuzzSeekTable(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  uint64_t wanted = 0;
  auto footer = format::ChunkedFooter::Find(bytes, size, wanted);
  if (footer.ok()) {
    HEADRACE_CHECK(footer->toc_offset + footer->toc_compressed_size <= size);
  }
  if (size < format::SeekTable::kFooterSize) return 0;
  auto frame_size = format::SeekTable::FrameSize(bytes.last(format::SeekTable::kFooterSize));
  if (!frame_size.ok() || *frame_size > size) return 0;
  auto table = format::SeekTable::Parse(bytes.last(*frame_size), size);
  if (!table.ok()) return 0;
  uint64_t total = *frame_size;
  for (const format::SeekFrame& frame : table->frames) total += frame.compressed_size;
  HEADRACE_CHECK(total == size);
  return 0;
}

int FuzzDecompress(const uint8_t* data, size_t size) {
  constexpr uint64_t kOutputMax = 64 << 20;  // an input may be a bomb; the sink decides how much it takes
  uint64_t total = 0;
  auto decompressor = format::Decompressor::Create([&](std::span<const uint8_t> bytes) {
    total += bytes.size();
    return total > kOutputMax ? ResourceExhaustedError("enough") : OkStatus();
  });
  if (decompressor->Write({data, size}).ok()) (void)decompressor->Finish().ok();
  return 0;
}

}  // namespace headrace::fuzz
