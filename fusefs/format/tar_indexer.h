// TarIndexer: learns a layer's table of contents from its tar, as it streams by, and hands out the files' contents on the way.
//
// For layers that have no table: plain tar, gzip, zstd. Contents are cut into chunks of 4 MiB from the start of each file (sparse files at their regions too) and hashed here;
// offsets are those of the tar. Of several entries of one name the last one is in the table, as after unpacking; an older hard link keeps the older content.
//
// An entry that the table could not say (attributes out of range, impossible names and links, too many of anything) is refused when its header comes, before the rest
// of the layer is read.
//
// The same without the contents is a *walk* (TarWalk): a table of everything but the digests, for those who serve the layer before all of it was seen.
//
// One thread; CPU only, but for what the sink does. Memory: the entries, and one chunk's place.
// Errors: InvalidArgument (not a tar, or one that no container runtime unpacks), ResourceExhausted (limits.h), and whatever the sink returns.
#ifndef HEADRACE_FUSEFS_FORMAT_TAR_INDEXER_H_
#define HEADRACE_FUSEFS_FORMAT_TAR_INDEXER_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/sha256_lane.h"
#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"
#include "fusefs/format/tar_reader.h"
#include "fusefs/format/toc_writer.h"

namespace headrace::format {

// Takes the contents of regular files that are not empty, one after the other, in the order of the tar. What is handed out is not verified yet: the digests of the
// whole blob and tar are known at the end only.
class ContentSink {
 public:
  virtual ~ContentSink() = default;
  // `size`: of the file, holes included.
  virtual Status BeginFile(uint64_t size) = 0;
  // Ascending; what is left out is zeros.
  virtual Status Content(uint64_t file_offset, std::span<const uint8_t> bytes) = 0;
  // The chunks of the file, as they will be in the table.
  virtual Status EndFile(std::span<const Chunk> chunks) = 0;
};

class TarIndexer : private TarReader::Handler {
 public:
  static constexpr uint64_t kChunkSize = 4ull << 20;

  explicit TarIndexer(ContentSink& sink) : sink_(&sink), reader_(*this) {}  // the sink outlives the indexer

  Status Write(std::span<const uint8_t> tar) { return reader_.Write(tar); }
  struct Learned {
    std::string table;  // for ReadLearnedTable
    Digest diff_id;     // of the whole tar
    uint64_t tar_size = 0;
  };
  Result<Learned> Finish();
  // Of the tar, so far. In ContentSink::BeginFile: where the file's content begins.
  uint64_t position() const { return tar_size_; }

 private:
  friend class TarWalk;
  TarIndexer() : reader_(*this) {}  // walks: nothing is hashed

  Status OnRaw(std::span<const uint8_t> bytes) override;
  Status OnEntry(const TarEntry& entry) override;
  Status OnContent(std::span<const uint8_t> bytes) override;
  Status OnSkipped(uint64_t bytes) override;
  Status OnEntryEnd() override;
  Status CountChunk();
  void StartChunk();
  Status EndChunk();
  // So many bytes of content went by, at most those that are left of the open chunk: how many it took.
  Result<uint64_t> Advance(uint64_t bytes);
  Result<std::string> Table(uint64_t tar_size);

  ContentSink* const sink_ = nullptr;  // null: a walk
  TarReader reader_;
  Sha256Lane tar_lane_;
  Sha256Lane chunk_lane_;
  uint64_t tar_size_ = 0;
  std::vector<WrittenEntry> entries_;
  uint64_t chunks_ = 0;
  uint64_t table_bytes_ = 0;  // that the table will have at least
  bool in_chunk_ = false;
  Chunk chunk_;              // the open one; blob_size counts what came
  uint64_t stored_done_ = 0;  // bytes of the file's content that came
  size_t region_ = 0;         // sparse files: the region it is in,
  uint64_t region_begin_ = 0;  // and the stored bytes of the regions before that one
};

// The table of contents of a plain tar from its headers alone. The one who calls brings the bytes; what stands between is left out.
// In place of digests of chunks and files its table has kUnknownDigest, which no bytes have: whoever takes it for a learned one serves nothing.
class TarWalk {
 public:
  TarWalk() = default;
  // The bytes from position() on. Less than was given may have been of use; position() tells.
  Status Write(std::span<const uint8_t> bytes);
  // Where to go on reading: behind the contents.
  uint64_t position() const { return indexer_.reader_.position(); }
  bool at_end() const { return indexer_.reader_.at_trailer(); }
  // `tar_size`: of the whole tar.
  Result<std::string> Finish(uint64_t tar_size);

 private:
  TarIndexer indexer_;
};

// SHA-256 of a sentence that is no file's content.
const Digest& UnknownDigest();

// Two tables of one tar: the same entries in the same order, cut in the same way; digests are not compared. The first difference in words, or "".
std::string CompareShapes(const LayerIndex& a, const LayerIndex& b);

// The table with the seek points of the blob that it was learned from, if there is room for them.
std::string WithSeekPoints(std::string table, const SeekPoints& points);

// The text form of a table that was learned, for the disk. Its digest is the caller's business. Tables without seek points are good tables.
Result<LayerIndex> ReadLearnedTable(std::string_view table);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_TAR_INDEXER_H_
