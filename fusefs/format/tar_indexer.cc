#include "fusefs/format/tar_indexer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "fusefs/base/text.h"
#include "fusefs/format/json_text.h"
#include "fusefs/format/limits.h"
#include "fusefs/format/name.h"
#include "fusefs/format/seek_points.h"
#include "fusefs/format/toc.h"
#include "fusefs/format/toc_builder.h"

namespace headrace::format {
namespace {

// Of an entry and of a chunk in the table's JSON, names and links not counted: less than what any of them has.
constexpr uint64_t kEntryBytesMin = 50;
constexpr uint64_t kChunkBytesMin = 60;

// What reading the table will refuse of the entry, said now.
Status CheckReadable(const TarEntry& tar) {
  for (const int64_t number : {tar.mode, tar.uid, tar.gid, tar.dev_major, tar.dev_minor}) {
    if (number < 0) return InvalidArgumentError("a negative number");
  }
  TocEntry entry;
  entry.type = TypeName(tar.type);
  entry.name = tar.name;
  entry.link_name = tar.link_target;
  entry.mode = static_cast<uint64_t>(tar.mode);
  entry.uid = static_cast<uint64_t>(tar.uid);
  entry.gid = static_cast<uint64_t>(tar.gid);
  entry.dev_major = static_cast<uint64_t>(tar.dev_major);
  entry.dev_minor = static_cast<uint64_t>(tar.dev_minor);
  entry.size = tar.size;
  for (const auto& [name, value] : tar.xattrs) entry.xattrs.emplace_back(Utf8Of(name), value);
  return CheckEntry(entry);
}

uint64_t TableBytesMin(const TarEntry& tar) {
  uint64_t bytes = kEntryBytesMin + tar.name.size() + tar.link_target.size();
  for (const auto& [name, value] : tar.xattrs) bytes += name.size() + value.size();
  return bytes;
}

Status CheckTableSize(uint64_t bytes) {
  if (bytes <= limits::kTocSizeMax) return OkStatus();
  return ResourceExhaustedError("its table of contents would have " + HumanBytes(bytes) + " or more; the limit is " + HumanBytes(limits::kTocSizeMax));
}

}  // namespace

const Digest& UnknownDigest() {
  static const Digest digest = Digest::Of("Headrace: this chunk was not read yet");
  return digest;
}

Status TarIndexer::OnRaw(std::span<const uint8_t> bytes) {
  if (sink_ != nullptr) tar_lane_.Update(bytes);
  tar_size_ += bytes.size();
  return OkStatus();
}

Status TarIndexer::OnEntry(const TarEntry& entry) {
  const bool known = entry.IsRegular() || (entry.type >= '1' && entry.type <= '6');
  if (!known) {
    return InvalidArgumentError("entry " + Quoted(entry.name) + " has type " + Quoted(std::string_view(&entry.type, 1)) +
                                ", which no container runtime unpacks");
  }
  if (entries_.size() >= limits::kEntriesMax) return ResourceExhaustedError("layer with more than " + std::to_string(limits::kEntriesMax) + " entries");
  HR_RETURN_IF_ERROR(CheckReadable(entry).Annotate("entry " + std::to_string(entries_.size()) + " (" + Quoted(entry.name) + ")"));
  table_bytes_ += TableBytesMin(entry);
  HR_RETURN_IF_ERROR(CheckTableSize(table_bytes_));
  WrittenEntry written;
  HR_ASSIGN_OR_RETURN(written.clean_name, CleanName(entry.name));
  written.tar = entry;
  entries_.push_back(std::move(written));
  stored_done_ = region_begin_ = 0;
  region_ = 0;
  return sink_ != nullptr && entry.IsRegular() && entry.size > 0 ? sink_->BeginFile(entry.size) : OkStatus();
}

Status TarIndexer::CountChunk() {
  if (chunks_ >= limits::kChunksMax) return ResourceExhaustedError("layer with more than " + std::to_string(limits::kChunksMax) + " chunks");
  ++chunks_;
  table_bytes_ += entries_.back().chunks.empty() ? 0 : kChunkBytesMin + entries_.back().tar.name.size();
  return CheckTableSize(table_bytes_);
}

void TarIndexer::StartChunk() {
  const TarEntry& tar = entries_.back().tar;
  uint64_t file_offset = stored_done_;
  uint64_t left = tar.stored_size - stored_done_;
  if (tar.is_sparse) {
    while (stored_done_ - region_begin_ >= tar.sparse[region_].size) region_begin_ += tar.sparse[region_++].size;
    const uint64_t in_region = stored_done_ - region_begin_;
    file_offset = tar.sparse[region_].offset + in_region;
    left = tar.sparse[region_].size - in_region;
  }
  chunk_ = Chunk();
  chunk_.file_offset = file_offset;
  chunk_.size = std::min(left, kChunkSize);
  chunk_.blob_offset = tar_size_;
  chunk_.codec = Codec::kRaw;
  in_chunk_ = true;
}

Status TarIndexer::EndChunk() {
  WrittenEntry& entry = entries_.back();
  const uint64_t covered = entry.chunks.empty() ? 0 : entry.chunks.back().file_offset + entry.chunks.back().size;
  if (chunk_.file_offset > covered) {  // a hole of a sparse file
    HR_RETURN_IF_ERROR(CountChunk());
    entry.chunks.push_back({covered, chunk_.file_offset - covered, chunk_.blob_offset, 0, ChunkKind::kZeros, {}, 0, {}});
  }
  chunk_.digest = sink_ != nullptr ? chunk_lane_.Finish() : UnknownDigest();
  HR_RETURN_IF_ERROR(CountChunk());
  entry.chunks.push_back(chunk_);
  entry.end_offset = chunk_.blob_offset + chunk_.blob_size;
  in_chunk_ = false;
  return OkStatus();
}

Result<uint64_t> TarIndexer::Advance(uint64_t bytes) {
  bytes = std::min(bytes, chunk_.size - chunk_.blob_size);
  chunk_.blob_size += bytes;
  tar_size_ += bytes;
  stored_done_ += bytes;
  if (chunk_.blob_size == chunk_.size) HR_RETURN_IF_ERROR(EndChunk());
  return bytes;
}

Status TarIndexer::OnContent(std::span<const uint8_t> bytes) {
  if (sink_ == nullptr) return OnSkipped(bytes.size());
  while (!bytes.empty()) {
    if (!in_chunk_) StartChunk();
    const std::span<const uint8_t> piece = bytes.first(std::min<uint64_t>(bytes.size(), chunk_.size - chunk_.blob_size));
    const std::array<Sha256Lane*, 2> lanes = {&tar_lane_, &chunk_lane_};
    UpdateLanes(lanes, piece);
    HR_RETURN_IF_ERROR(sink_->Content(chunk_.file_offset + chunk_.blob_size, piece));
    HR_RETURN_IF_ERROR(Advance(piece.size()).status());
    bytes = bytes.subspan(piece.size());
  }
  return OkStatus();
}

Status TarIndexer::OnSkipped(uint64_t bytes) {
  HEADRACE_CHECK(sink_ == nullptr);
  while (bytes > 0) {
    if (!in_chunk_) StartChunk();
    HR_ASSIGN_OR_RETURN(const uint64_t taken, Advance(bytes));
    bytes -= taken;
  }
  return OkStatus();
}

Status TarIndexer::OnEntryEnd() {
  WrittenEntry& entry = entries_.back();
  if (!entry.tar.IsRegular() || entry.tar.size == 0) return OkStatus();
  const uint64_t covered = entry.chunks.empty() ? 0 : entry.chunks.back().file_offset + entry.chunks.back().size;
  if (covered < entry.tar.size) {  // the hole at the end of a sparse file, or a file that is all hole
    HR_RETURN_IF_ERROR(CountChunk());
    entry.chunks.push_back({covered, entry.tar.size - covered, tar_size_, 0, ChunkKind::kZeros, {}, 0, {}});
    if (entry.end_offset == 0) entry.end_offset = tar_size_;
  }
  if (entry.chunks.size() == 1) entry.file_digest = entry.chunks[0].digest;
  return sink_ != nullptr ? sink_->EndFile(entry.chunks) : OkStatus();
}

Result<std::string> TarIndexer::Table(uint64_t tar_size) {
  HR_RETURN_IF_ERROR(DropOverwritten(entries_).status());
  std::string table = std::to_string(tar_size) + "\n" + TocJson(entries_, Digest());
  HR_RETURN_IF_ERROR(CheckTableSize(table.size()));
  return table;
}

Result<TarIndexer::Learned> TarIndexer::Finish() {
  HR_RETURN_IF_ERROR(reader_.Finish());
  Learned learned;
  learned.diff_id = tar_lane_.Finish();
  learned.tar_size = tar_size_;
  HR_ASSIGN_OR_RETURN(learned.table, Table(tar_size_));
  return learned;
}

Status TarWalk::Write(std::span<const uint8_t> bytes) {
  TarReader& reader = indexer_.reader_;
  while (!bytes.empty()) {
    if (reader.skippable() > 0) {
      const uint64_t inside = std::min<uint64_t>(reader.skippable(), bytes.size());
      HR_RETURN_IF_ERROR(reader.Skip(reader.skippable()));
      bytes = bytes.subspan(inside);
      continue;
    }
    // A block at a time: contents may begin behind any of them.
    const std::span<const uint8_t> piece = bytes.first(std::min<size_t>(bytes.size(), kTarBlock));
    HR_RETURN_IF_ERROR(reader.Write(piece));
    bytes = bytes.subspan(piece.size());
  }
  if (reader.skippable() > 0) HR_RETURN_IF_ERROR(reader.Skip(reader.skippable()));
  return OkStatus();
}

Result<std::string> TarWalk::Finish(uint64_t tar_size) {
  HR_RETURN_IF_ERROR(indexer_.reader_.Finish());
  if (position() > tar_size) return InvalidArgumentError("tar is truncated: it ends at byte " + std::to_string(tar_size));
  return indexer_.Table(tar_size);
}

namespace {

std::string CompareEntries(const Entry& x, const Entry& y) {
  const bool same = x.type == y.type && x.name == y.name && x.link_target == y.link_target && x.mode == y.mode && x.uid == y.uid && x.gid == y.gid &&
                    x.dev_major == y.dev_major && x.dev_minor == y.dev_minor && x.mtime_s == y.mtime_s && x.mtime_ns == y.mtime_ns && x.size == y.size &&
                    x.first_chunk == y.first_chunk && x.chunk_count == y.chunk_count && x.xattrs == y.xattrs;
  return same ? "" : "entry " + Quoted(x.name) + " and entry " + Quoted(y.name) + " differ";
}

}  // namespace

std::string CompareShapes(const LayerIndex& a, const LayerIndex& b) {
  if (a.entries.size() != b.entries.size() || a.chunks.size() != b.chunks.size() || a.blob_size != b.blob_size) return "sizes differ";
  for (size_t i = 0; i < a.entries.size(); ++i) {
    if (std::string different = CompareEntries(a.entries[i], b.entries[i]); !different.empty()) return different;
  }
  for (size_t i = 0; i < a.chunks.size(); ++i) {
    const Chunk& x = a.chunks[i];
    const Chunk& y = b.chunks[i];
    const bool same = x.file_offset == y.file_offset && x.size == y.size && x.blob_offset == y.blob_offset && x.blob_size == y.blob_size && x.kind == y.kind &&
                      x.codec == y.codec && x.inner_offset == y.inner_offset;
    if (!same) return "chunk " + std::to_string(i) + " differs";
  }
  return "";
}

std::string WithSeekPoints(std::string table, const SeekPoints& points) {
  const std::string text = WriteSeekPoints(points);
  if (table.size() + text.size() <= limits::kTocSizeMax) table.insert(table.find('\n'), text);
  return table;
}

Result<LayerIndex> ReadLearnedTable(std::string_view table) {
  const size_t end = table.find('\n');
  if (end == std::string_view::npos) return DataLossError("a learned table is cut short");
  const std::string_view head = table.substr(0, end);
  const std::string_view size = head.substr(0, head.find(' '));
  HR_ASSIGN_OR_RETURN(const uint64_t tar_size, ParseU64(size));
  HR_ASSIGN_OR_RETURN(SeekPoints points, ReadSeekPoints(head.substr(size.size()), tar_size));
  HR_ASSIGN_OR_RETURN(LayerIndex index, ParseTocJson(table.substr(end + 1), tar_size, tar_size, TocDialect::kLearned));
  index.seek_points = std::move(points);
  return index;
}

}  // namespace headrace::format
