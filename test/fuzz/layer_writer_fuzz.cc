// A tar through the writer of our own format and back. Input: a tar; its checksums are set right.
#include <string>
#include <vector>

#include "fusefs/format/bytes.h"
#include "fusefs/format/decompress.h"
#include "fusefs/format/layer_writer.h"
#include "fusefs/format/toc.h"
#include "test/fuzz/check_index.h"
#include "test/fuzz/fuzz_targets.h"
#include "test/fuzz/tar_input.h"

namespace headrace::fuzz {

using format::AsBytes;
using format::AsText;

void FuzzLayerWriter(Bytes data) {
  const std::string mended = WithChecksums(TextOf(data));
  const Bytes tar = AsBytes(mended);
  std::string blob;
  auto writer = format::LayerWriter::Create({.chunk_size = 64 << 10, .zstd_level = 1, .threads = 1}, [&](Bytes bytes) {
    blob += AsText(bytes);
    return OkStatus();
  });
  HEADRACE_CHECK(writer.ok());
  // Two pieces, cut somewhere: the writer must not depend on how the bytes come.
  const size_t cut = tar.empty() ? 0 : tar[tar.size() / 2] * tar.size() / 256;
  if (!(*writer)->Write(tar.first(cut)).ok() || !(*writer)->Write(tar.subspan(cut)).ok()) return;
  auto summary = (*writer)->Finish();
  if (!summary.ok()) return;
  std::string again;
  auto decompressor = format::Decompressor::Create([&](Bytes bytes) {
    again += AsText(bytes);
    return OkStatus();
  });
  HEADRACE_CHECK(decompressor->Write(AsBytes(blob)).ok() && decompressor->Finish().ok());
  HEADRACE_CHECK(again == mended);
  auto index = format::ReadToc(AsBytes(blob).subspan(summary->toc.offset, summary->toc.compressed_size), summary->toc);
  HEADRACE_CHECK(index.ok());
  CheckIndex(*index, summary->toc.offset - 8);
  for (const format::Chunk& chunk : index->chunks) {
    if (chunk.kind == format::ChunkKind::kZeros) continue;
    std::vector<uint8_t> out(chunk.size);
    HEADRACE_CHECK(format::DecodeChunk(chunk, AsBytes(blob).subspan(chunk.blob_offset, chunk.blob_size), out).ok());
  }
}

}  // namespace headrace::fuzz
