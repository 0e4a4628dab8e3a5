// Tar headers (ustar, PAX, GNU, sparse) and the table that is learned from a tar. Input: '0' as it is, '1' with right checksums; the tar.
#include <cstdio>
#include <string>
#include <vector>

#include "fusefs/format/bytes.h"
#include "fusefs/format/tar_indexer.h"
#include "fusefs/format/tar_reader.h"
#include "test/fuzz/check_index.h"
#include "test/fuzz/fuzz_targets.h"
#include "test/fuzz/tar_input.h"

namespace headrace::fuzz {
namespace {

using format::AsBytes;
using format::AsText;

// Everything that a reader says, as one text.
class Recorder : public format::TarReader::Handler {
 public:
  Status OnRaw(Bytes bytes) override {
    bytes_ += AsText(bytes);
    return OkStatus();
  }
  Status OnEntry(const format::TarEntry& entry) override {
    left_ = entry.stored_size;
    HEADRACE_CHECK(entry.stored_size <= entry.size);
    if (entry.is_sparse) CheckRegions(entry);
    said_ += entry.type + entry.name + '\0' + entry.link_target + '\0' + std::to_string(entry.size) + " " + std::to_string(entry.stored_size) + " " +
             std::to_string(entry.mode) + " " + std::to_string(entry.uid) + " " + std::to_string(entry.mtime.seconds) + "\n";
    for (const auto& [name, value] : entry.xattrs) said_ += name + "=" + value + "\n";
    return OkStatus();
  }
  Status OnContent(Bytes bytes) override {
    HEADRACE_CHECK(bytes.size() <= left_);
    left_ -= bytes.size();
    bytes_ += AsText(bytes);
    return OkStatus();
  }
  Status OnEntryEnd() override {
    HEADRACE_CHECK(left_ == 0);
    said_ += "end\n";
    return OkStatus();
  }
  const std::string& said() const { return said_; }
  const std::string& bytes() const { return bytes_; }

 private:
  static void CheckRegions(const format::TarEntry& entry) {
    uint64_t end = 0, total = 0;
    for (const format::SparseRegion& region : entry.sparse) {
      HEADRACE_CHECK(region.offset >= end && region.offset <= entry.size && region.size <= entry.size - region.offset);
      end = region.offset + region.size;
      total += region.size;
    }
    HEADRACE_CHECK(total == entry.stored_size);
  }

  std::string said_, bytes_;
  uint64_t left_ = 0;
};

struct Reading {
  Status status;
  std::string said, bytes;
};

Reading Read(Bytes tar, size_t piece) {
  Recorder recorder;
  format::TarReader reader(recorder);
  Status status;
  for (size_t at = 0; at < tar.size() && status.ok(); at += piece) status = reader.Write(tar.subspan(at, std::min(piece, tar.size() - at)));
  if (status.ok()) status = reader.Finish();
  return {status, recorder.said(), recorder.bytes()};
}

// Puts the files back together from what the indexer hands out.
class Files : public format::ContentSink {
 public:
  Status BeginFile(uint64_t size) override {
    size_ = size;
    end_ = 0;
    return OkStatus();
  }
  Status Content(uint64_t file_offset, Bytes bytes) override {
    HEADRACE_CHECK(file_offset >= end_ && file_offset <= size_ && bytes.size() <= size_ - file_offset);
    end_ = file_offset + bytes.size();
    return OkStatus();
  }
  Status EndFile(std::span<const format::Chunk> chunks) override {
    uint64_t covered = 0;
    for (const format::Chunk& chunk : chunks) covered += chunk.size;
    HEADRACE_CHECK(covered == size_);
    return OkStatus();
  }

 private:
  uint64_t size_ = 0, end_ = 0;
};

// Headers alone must give what the whole tar gives, but for the digests.
void CheckWalked(Bytes tar, const format::LayerIndex& learned) {
  format::TarWalk walk;
  const size_t window = 1 + tar.size() % 1500;
  while (!walk.at_end() && walk.position() < tar.size()) {
    HEADRACE_CHECK(walk.Write(tar.subspan(walk.position(), std::min<size_t>(window, tar.size() - walk.position()))).ok());
  }
  auto table = walk.Finish(tar.size());
  HEADRACE_CHECK(table.ok());
  auto index = format::ReadLearnedTable(*table);
  HEADRACE_CHECK(index.ok() && format::CompareShapes(*index, learned).empty());
  for (const format::Chunk& chunk : index->chunks) HEADRACE_CHECK(chunk.kind == format::ChunkKind::kZeros || chunk.digest == format::UnknownDigest());
}

void CheckLearned(Bytes tar, bool readable) {
  Files files;
  format::TarIndexer indexer(files);
  const Status written = indexer.Write(tar);
  if (!written.ok()) return;
  auto learned = indexer.Finish();
  if (!learned.ok()) return;
  HEADRACE_CHECK(readable && learned->tar_size == tar.size() && learned->diff_id == Digest::Of(tar));
  auto index = format::ReadLearnedTable(learned->table);
  if (!index.ok()) {
    // What the reader refuses was refused at the entry, but for what is seen at the end only: a hard link that becomes one to itself when what it led to is overwritten.
    const std::string why = index.status().ToString();
    const bool seen_late = why.find("hard link to itself") != std::string::npos;
    if (!seen_late) std::fprintf(stderr, "what was learned cannot be read: %s\n", why.c_str());
    HEADRACE_CHECK(seen_late);
    return;
  }
  CheckIndex(*index, tar.size());
  for (const format::Chunk& chunk : index->chunks) {
    if (chunk.kind == format::ChunkKind::kZeros) continue;
    HEADRACE_CHECK(Digest::Of(tar.subspan(chunk.blob_offset, chunk.blob_size)) == chunk.digest);
  }
  CheckWalked(tar, *index);
}

}  // namespace

void FuzzTar(Bytes data) {
  Input input(data);
  const bool mend = input.Choice(2) == 1;
  const std::string tar = mend ? WithChecksums(input.Text()) : std::string(input.Text());
  const Reading whole = Read(AsBytes(tar), tar.size() + 1);
  // The parser must not depend on how the bytes come.
  const Reading pieces = Read(AsBytes(tar), 1 + tar.size() % 600);
  HEADRACE_CHECK(whole.status.code() == pieces.status.code());
  if (whole.status.ok()) HEADRACE_CHECK(whole.said == pieces.said && whole.bytes == tar && pieces.bytes == tar);
  CheckLearned(AsBytes(tar), whole.status.ok());
}

}  // namespace headrace::fuzz
