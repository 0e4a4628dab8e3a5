#include "fusefs/format/layer_writer.h"

#include <algorithm>
#include <deque>
#include <future>
#include <utility>
#include <vector>

#include "fusefs/base/text.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/footer.h"
#include "fusefs/format/frame_pipeline.h"
#include "fusefs/format/limits.h"
#include "fusefs/format/name.h"
#include "fusefs/format/seek_table.h"
#include "fusefs/format/tar_reader.h"
#include "fusefs/format/tar_split.h"
#include "fusefs/format/toc_writer.h"

namespace headrace::format {
namespace {

constexpr int kMetadataLevel = 9;  // TOC and tar-split: small beside the data, fetched at every mount
// No header of an entry that others can read is longer (three special headers of 1 MiB); more is the end of the tar.
constexpr uint64_t kSegmentMax = 4ull << 20;
// Small pieces go through the pipeline together: handing a piece from thread to thread costs as much as compressing some KiB.
constexpr uint64_t kJobBytes = 1ull << 20;
// The head of a large file is in small chunks: a loader reads it first (safetensors and GGUF keep their tables there), a mapped reader a mebibyte at
// once. Each comes in the first round trips of a connection (RFC 6928: ten segments), all of them side by side on several; one large chunk
// would come in the sixth.
constexpr uint64_t kHeadChunk = 64ull << 10;

Status TocTooLarge(uint64_t size) {
  return ResourceExhaustedError("table of contents would have more than " + HumanBytes(size) + " (the limit is " +
                                HumanBytes(limits::kTocSizeMax) + ", and " + std::to_string(limits::kChunksMax) +
                                " chunks); use larger chunks or split the layer into several");
}

class LayerWriterImpl final : public LayerWriter, private TarReader::Handler {
 public:
  LayerWriterImpl(const LayerWriterOptions& options, Sink sink)
      : options_(options), sink_(std::move(sink)), reader_(*this) {}

  Status Init() {
    HR_ASSIGN_OR_RETURN(pipeline_, FramePipeline::Create(options_.threads, options_.zstd_level,
                                                         [this](FrameJob& job) { return OnJob(job); }));
    HR_ASSIGN_OR_RETURN(tar_split_, TarSplitWriter::Create(kMetadataLevel));
    return OkStatus();
  }

  Status Write(std::span<const uint8_t> tar) override {
    HR_RETURN_IF_ERROR(failed_);
    failed_ = reader_.Write(tar);
    return failed_;
  }

  Result<LayerSummary> Finish() override {
    HR_RETURN_IF_ERROR(failed_);
    LayerSummary summary;
    failed_ = DoFinish(summary);
    if (!failed_.ok()) return failed_;
    failed_ = FailedPreconditionError("the layer is finished");
    return summary;
  }

 private:
  // From the tar reader, on the thread that writes.
  Status OnRaw(std::span<const uint8_t> bytes) override;
  Status OnEntry(const TarEntry& entry) override;
  Status OnContent(std::span<const uint8_t> bytes) override;
  Status OnEntryEnd() override;

  // The piece that is being collected is the last one of job_.
  FramePiece& OpenPiece();
  FramePiece& OpenRaw();
  void Append(std::span<const uint8_t> bytes);
  Status ClosePiece();
  Status SubmitJob();
  Status StartChunk();
  uint64_t PlainChunkEnd() const;
  // From the pipeline, in order, on the same thread.
  Status OnJob(FrameJob& job);
  Status OnRawFrame(std::string_view data, uint64_t begin, std::span<const FrameJob::Mark> marks);
  Status OnContentFrame(const FramePiece& piece);
  Status FlushSegment();

  void Account(uint64_t frame_size, uint64_t decoded_size);
  Status Emit(std::span<const uint8_t> bytes, uint64_t decoded_size);
  Status EmitSkippable(uint32_t magic, std::string_view payload);
  Status DoFinish(LayerSummary& summary);
  Status WriteToc(const Digest& tar_split_digest, TocLocation& location);
  void FillAnnotations(const ChunkedFooter& footer, LayerSummary& summary) const;

  const LayerWriterOptions options_;
  const Sink sink_;
  TarReader reader_;
  std::unique_ptr<FramePipeline> pipeline_;
  std::unique_ptr<TarSplitWriter> tar_split_;
  Status failed_;

  enum class Open { kNone, kRaw, kContent };
  std::unique_ptr<FrameJob> job_;  // what is being collected
  Open open_ = Open::kNone;        // what its last piece still takes: headers and padding, or the bytes of a chunk
  uint64_t chunk_left_ = 0;        // bytes of the chunk that must still come
  size_t region_ = 0;              // sparse files: the region it is in,
  uint64_t region_begin_ = 0;      // and the stored bytes of the regions before that one
  uint64_t stored_done_ = 0;       // bytes of the current file that are in chunks already or in this one

  std::vector<WrittenEntry> entries_;
  std::string segment_;  // tar-split: raw bytes since the last entry
  SeekTable seek_table_;
  uint64_t blob_size_ = 0;
  uint64_t chunks_ = 0;
  uint64_t toc_size_min_ = 0;
  bool portable_ = true;  // containers/storage can take the layer by its table of contents
};

FramePiece& LayerWriterImpl::OpenPiece() {
  if (job_ == nullptr) {
    job_ = pipeline_->NewJob();
    job_->data.reserve(std::max(options_.chunk_size, kJobBytes));
  }
  return job_->pieces.emplace_back();
}

FramePiece& LayerWriterImpl::OpenRaw() {
  if (open_ == Open::kRaw) return job_->pieces.back();
  open_ = Open::kRaw;
  return OpenPiece();
}

void LayerWriterImpl::Append(std::span<const uint8_t> bytes) {
  job_->data.insert(job_->data.end(), bytes.begin(), bytes.end());
  job_->pieces.back().size += bytes.size();
}

Status LayerWriterImpl::ClosePiece() {
  if (open_ == Open::kNone) return OkStatus();
  open_ = Open::kNone;
  return job_->data.size() < kJobBytes ? OkStatus() : SubmitJob();
}

Status LayerWriterImpl::SubmitJob() { return job_ == nullptr ? OkStatus() : pipeline_->Submit(std::move(job_)); }

Status LayerWriterImpl::OnRaw(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const FramePiece& piece = OpenRaw();
    const uint64_t n = std::min<uint64_t>(bytes.size(), options_.chunk_size - piece.size);
    Append(bytes.first(n));
    bytes = bytes.subspan(n);
    if (piece.size == options_.chunk_size) HR_RETURN_IF_ERROR(ClosePiece());
  }
  return OkStatus();
}

Status LayerWriterImpl::OnEntry(const TarEntry& entry) {
  const bool known = entry.IsRegular() || (entry.type >= '1' && entry.type <= '6');
  if (!known) {
    return InvalidArgumentError("entry " + Quoted(entry.name) + " has type " +
                                Quoted(std::string_view(&entry.type, 1)) +
                                ", which no container runtime unpacks");
  }
  if (entries_.size() >= limits::kEntriesMax) {
    return ResourceExhaustedError("layer with more than " + std::to_string(limits::kEntriesMax) +
                                  " entries; split it into several layers");
  }
  WrittenEntry written;
  HR_ASSIGN_OR_RETURN(written.clean_name, CleanName(entry.name));
  written.tar = entry;
  portable_ = portable_ && IsPortable(entry);
  ++OpenRaw().marks;
  job_->marks.push_back({job_->data.size(), entries_.size()});
  entries_.push_back(std::move(written));
  region_ = 0;
  region_begin_ = 0;
  stored_done_ = 0;
  return entry.stored_size > 0 ? ClosePiece() : OkStatus();
}

// Where the chunk of a large plain file that begins at stored_done_ ends.
uint64_t LayerWriterImpl::PlainChunkEnd() const {
  if (stored_done_ < limits::kHeadBytes && options_.chunk_size >= limits::kHeadBytes) return (stored_done_ / kHeadChunk + 1) * kHeadChunk;
  return (stored_done_ / options_.chunk_size + 1) * options_.chunk_size;
}

// Chunks of large plain files are cut at multiples of the chunk size, their first MiB at those of 64 KiB; those of sparse files also at each region.
Status LayerWriterImpl::StartChunk() {
  const TarEntry& tar = entries_.back().tar;
  const bool first = stored_done_ == 0;
  uint64_t left = tar.stored_size - stored_done_;
  uint64_t file_offset = stored_done_;
  if (tar.is_sparse) {
    while (stored_done_ - region_begin_ >= tar.sparse[region_].size) region_begin_ += tar.sparse[region_++].size;
    const uint64_t in_region = stored_done_ - region_begin_;
    file_offset = tar.sparse[region_].offset + in_region;
    left = tar.sparse[region_].size - in_region;
  }
  chunk_left_ = std::min(left, tar.is_sparse || tar.stored_size <= options_.chunk_size ? options_.chunk_size : PlainChunkEnd() - stored_done_);
  stored_done_ += chunk_left_;
  if (job_ != nullptr && job_->data.size() + chunk_left_ > std::max(options_.chunk_size, kJobBytes)) {
    HR_RETURN_IF_ERROR(SubmitJob());
  }
  FramePiece& piece = OpenPiece();
  open_ = Open::kContent;
  piece.is_content = true;
  piece.first_of_file = first;
  piece.last_of_file = stored_done_ == tar.stored_size;
  piece.hash_file = !tar.is_sparse;
  piece.entry = entries_.size() - 1;
  piece.file_offset = file_offset;
  return OkStatus();
}

Status LayerWriterImpl::OnContent(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    if (open_ != Open::kContent) HR_RETURN_IF_ERROR(StartChunk());
    const uint64_t n = std::min<uint64_t>(bytes.size(), chunk_left_);
    Append(bytes.first(n));
    bytes = bytes.subspan(n);
    chunk_left_ -= n;
    if (chunk_left_ == 0) HR_RETURN_IF_ERROR(ClosePiece());
  }
  return OkStatus();
}

Status LayerWriterImpl::OnEntryEnd() { return OkStatus(); }

Status LayerWriterImpl::OnJob(FrameJob& job) {
  const std::string_view data = AsText(job.data);
  uint64_t begin = 0;
  std::span<const FrameJob::Mark> marks = job.marks;
  for (const FramePiece& piece : job.pieces) {
    if (piece.is_content) {
      HR_RETURN_IF_ERROR(OnContentFrame(piece));
    } else {
      Account(piece.frame_size, piece.size);
      HR_RETURN_IF_ERROR(OnRawFrame(data.substr(0, begin + piece.size), begin, marks.first(piece.marks)));
      marks = marks.subspan(piece.marks);
    }
    begin += piece.size;
  }
  return job.frames().empty() ? OkStatus() : sink_(job.frames());
}

// The raw bytes are those of `data` from `begin` on.
Status LayerWriterImpl::OnRawFrame(std::string_view data, uint64_t begin, std::span<const FrameJob::Mark> marks) {
  for (const FrameJob::Mark& mark : marks) {
    segment_ += data.substr(begin, mark.end - begin);
    begin = mark.end;
    HR_RETURN_IF_ERROR(FlushSegment());
    const TarEntry& tar = entries_[mark.entry].tar;
    if (tar.stored_size == 0) HR_RETURN_IF_ERROR(tar_split_->File(tar.name, 0, 0));
  }
  segment_ += data.substr(begin);
  return segment_.size() > kSegmentMax ? FlushSegment() : OkStatus();
}

Status LayerWriterImpl::FlushSegment() {
  Status status = tar_split_->Segment(segment_);
  segment_.clear();
  return status;
}

Status LayerWriterImpl::OnContentFrame(const FramePiece& piece) {
  WrittenEntry& entry = entries_[piece.entry];
  Chunk chunk;
  chunk.file_offset = piece.file_offset;
  chunk.size = piece.size;
  chunk.blob_offset = blob_size_;
  chunk.blob_size = piece.frame_size;
  chunk.digest = piece.digest;
  const uint64_t covered = entry.chunks.empty() ? 0 : entry.chunks.back().file_offset + entry.chunks.back().size;
  if (chunk.file_offset > covered) {  // a hole of a sparse file
    entry.chunks.push_back({covered, chunk.file_offset - covered, blob_size_, 0, ChunkKind::kZeros, {}});
  }
  entry.chunks.push_back(chunk);
  ++chunks_;
  // Said as soon as it is certain, not after hours of compressing: each chunk takes about this much of the table.
  toc_size_min_ += entry.tar.name.size() + 160;
  if (chunks_ > limits::kChunksMax || toc_size_min_ > limits::kTocSizeMax) return TocTooLarge(toc_size_min_);
  Account(piece.frame_size, piece.size);
  if (!piece.last_of_file) return OkStatus();
  entry.end_offset = blob_size_;
  entry.file_digest = piece.file_digest;
  return tar_split_->File(entry.tar.name, entry.tar.stored_size, piece.file_crc);
}

void LayerWriterImpl::Account(uint64_t frame_size, uint64_t decoded_size) {
  if (frame_size == 0) return;
  seek_table_.frames.push_back({static_cast<uint32_t>(frame_size), static_cast<uint32_t>(decoded_size), {}});
  blob_size_ += frame_size;
}

// What follows the frames of the pipeline. REQUIRES: it is drained.
Status LayerWriterImpl::Emit(std::span<const uint8_t> bytes, uint64_t decoded_size) {
  if (bytes.empty()) return OkStatus();
  Account(bytes.size(), decoded_size);
  pipeline_->blob_hash().Update(bytes);
  return sink_(bytes);
}

Status LayerWriterImpl::EmitSkippable(uint32_t magic, std::string_view payload) {
  std::string frame = SkippableHeader(magic, static_cast<uint32_t>(payload.size()));
  frame += payload;
  return Emit(AsBytes(frame), 0);
}

Status LayerWriterImpl::WriteToc(const Digest& tar_split_digest, TocLocation& location) {
  for (WrittenEntry& entry : entries_) {
    // The hole at the end of a sparse file (or a file that is all hole).
    const uint64_t covered = entry.chunks.empty() ? 0 : entry.chunks.back().file_offset + entry.chunks.back().size;
    if (entry.tar.IsRegular() && covered < entry.tar.size) {
      const uint64_t at = entry.end_offset;
      entry.chunks.push_back({covered, entry.tar.size - covered, at, 0, ChunkKind::kZeros, {}});
    }
  }
  HR_ASSIGN_OR_RETURN(bool changed, DropOverwritten(entries_));
  portable_ = portable_ && !changed && reader_.global_headers() == 0;
  const std::string json = TocJson(entries_, tar_split_digest);
  if (json.size() > limits::kTocSizeMax) {
    return TocTooLarge(json.size());
  }
  // Never ship a layer that we would refuse to mount. Reading takes as long as compressing: both at once, if there is a thread to be had.
  auto readable = std::async([&] { return ParseTocJson(json, blob_size_, blob_size_ + kSkippableHeaderSize).status(); });
  HR_ASSIGN_OR_RETURN(auto compressor, FrameCompressor::Create(kMetadataLevel));
  std::vector<uint8_t> compressed;
  HR_RETURN_IF_ERROR(compressor->Compress(AsBytes(json), compressed));
  HR_RETURN_IF_ERROR(readable.get().Annotate("this tar cannot be a lazy layer"));
  location.digest = Digest::Of(std::span<const uint8_t>(compressed));
  location.offset = blob_size_ + kSkippableHeaderSize;
  location.compressed_size = compressed.size();
  location.uncompressed_size = json.size();
  return EmitSkippable(kSkippableMagicChunked, AsText(compressed));
}

Status LayerWriterImpl::DoFinish(LayerSummary& summary) {
  HR_RETURN_IF_ERROR(reader_.Finish());
  HR_RETURN_IF_ERROR(ClosePiece());
  HR_RETURN_IF_ERROR(SubmitJob());
  HR_RETURN_IF_ERROR(pipeline_->Drain());
  HR_RETURN_IF_ERROR(FlushSegment());
  HR_RETURN_IF_ERROR(tar_split_->Finish());
  summary.diff_id = pipeline_->TarDigest();
  summary.tar_size = reader_.position();

  const bool has_split = !tar_split_->too_large();
  const Digest split_digest = has_split ? Digest::Of(tar_split_->compressed()) : Digest();
  HR_RETURN_IF_ERROR(WriteToc(split_digest, summary.toc));
  ChunkedFooter footer{summary.toc.offset, summary.toc.compressed_size, summary.toc.uncompressed_size, 0, 0, 0};
  if (has_split) {
    footer.tar_split_offset = blob_size_ + kSkippableHeaderSize;
    footer.tar_split_compressed_size = tar_split_->compressed().size();
    footer.tar_split_uncompressed_size = tar_split_->uncompressed_size();
    HR_RETURN_IF_ERROR(EmitSkippable(kSkippableMagicChunked, tar_split_->compressed()));
  }
  HR_RETURN_IF_ERROR(EmitSkippable(kSkippableMagicChunked, footer.Serialize()));
  HR_ASSIGN_OR_RETURN(std::string table, seek_table_.Serialize());
  HR_RETURN_IF_ERROR(Emit(AsBytes(table), 0));

  summary.blob_digest = pipeline_->blob_hash().Finish();
  summary.blob_size = blob_size_;
  summary.toc.blob_size = blob_size_;
  summary.chunks = chunks_;
  summary.files = static_cast<uint64_t>(
      std::count_if(entries_.begin(), entries_.end(), [](const WrittenEntry& e) { return e.tar.IsRegular(); }));
  portable_ = portable_ && has_split;
  FillAnnotations(footer, summary);
  return OkStatus();
}

void LayerWriterImpl::FillAnnotations(const ChunkedFooter& footer, LayerSummary& summary) const {
  summary.annotations[std::string(kTocLabel)] = summary.toc.ToString();
  if (!portable_) return;
  const auto join = [](std::initializer_list<uint64_t> numbers) {
    std::string out;
    for (uint64_t n : numbers) out += (out.empty() ? "" : ":") + std::to_string(n);
    return out;
  };
  const std::string prefix = "io.github.containers.zstd-chunked.";
  summary.annotations[prefix + "manifest-checksum"] = summary.toc.digest.ToString();
  summary.annotations[prefix + "manifest-position"] =
      join({footer.toc_offset, footer.toc_compressed_size, footer.toc_uncompressed_size, 1});
  summary.annotations[prefix + "tarsplit-position"] = join(
      {footer.tar_split_offset, footer.tar_split_compressed_size, footer.tar_split_uncompressed_size});
}

}  // namespace

Result<std::unique_ptr<LayerWriter>> LayerWriter::Create(const LayerWriterOptions& options, Sink sink) {
  if (options.chunk_size < limits::kWriterChunkSizeMin || options.chunk_size > limits::kWriterChunkSizeMax) {
    return InvalidArgumentError("chunk size " + HumanBytes(options.chunk_size) + " is not within 64 KiB .. 16 MiB");
  }
  if (options.zstd_level < 1 || options.zstd_level > 19) {
    return InvalidArgumentError("zstd level " + std::to_string(options.zstd_level) + " is not within 1 .. 19");
  }
  if (options.threads < 1 || options.threads > 1024) {
    return InvalidArgumentError(std::to_string(options.threads) + " compression threads are not within 1 .. 1024");
  }
  auto writer = std::make_unique<LayerWriterImpl>(options, std::move(sink));
  HR_RETURN_IF_ERROR(writer->Init());
  return std::unique_ptr<LayerWriter>(std::move(writer));
}

}  // namespace headrace::format
