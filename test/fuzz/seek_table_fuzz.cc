// The end of a zstd blob: seek table and zstd:chunked footer. Input: the last bytes of a blob (its only bytes).
#include "fusefs/base/status.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/footer.h"
#include "fusefs/format/seek_table.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

void CheckFooter(const format::ChunkedFooter& footer, uint64_t size) {
  HEADRACE_CHECK(footer.toc_offset <= size && footer.toc_compressed_size <= size - footer.toc_offset);
  if (footer.tar_split_offset != 0) {
    HEADRACE_CHECK(footer.tar_split_offset <= size && footer.tar_split_compressed_size <= size - footer.tar_split_offset);
  }
  const std::string text = footer.Serialize();
  HEADRACE_CHECK(text.size() == format::ChunkedFooter::kSize);
  auto again = format::ChunkedFooter::Parse(format::AsBytes(text), size);
  HEADRACE_CHECK(again.ok() && again->Serialize() == text);
}

void CheckTable(const format::SeekTable& table, uint64_t frame_size, uint64_t blob_size) {
  uint64_t total = frame_size;
  for (const format::SeekFrame& frame : table.frames) total += frame.compressed_size;
  HEADRACE_CHECK(total == blob_size);
  auto text = table.Serialize();
  HEADRACE_CHECK(text.ok());
  auto again = format::SeekTable::Parse(format::AsBytes(*text), total - frame_size + text->size());
  HEADRACE_CHECK(again.ok() && again->frames.size() == table.frames.size());
}

}  // namespace

void FuzzSeekTable(Bytes data) {
  uint64_t wanted = 0;
  auto footer = format::ChunkedFooter::Find(data, data.size(), wanted);
  if (footer.ok()) CheckFooter(*footer, data.size());
  if (data.size() >= format::ChunkedFooter::kSize) {
    footer = format::ChunkedFooter::Parse(data.last(format::ChunkedFooter::kSize), data.size());
    if (footer.ok()) CheckFooter(*footer, data.size());
  }
  if (data.size() < format::SeekTable::kFooterSize) return;
  auto frame_size = format::SeekTable::FrameSize(data.last(format::SeekTable::kFooterSize));
  if (!frame_size.ok() || *frame_size > data.size()) return;
  auto table = format::SeekTable::Parse(data.last(*frame_size), data.size());
  if (table.ok()) CheckTable(*table, *frame_size, data.size());
}

}  // namespace headrace::fuzz
