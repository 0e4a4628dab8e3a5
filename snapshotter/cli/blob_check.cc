#include "snapshotter/cli/blob_check.h"

#include <algorithm>
#include <unordered_map>

#include "fusefs/format/decompress.h"
#include "fusefs/format/name.h"
#include "fusefs/format/tar_reader.h"
#include "fusefs/format/toc.h"

namespace headrace::cli {
namespace {

using format::Entry;
using format::EntryType;
using format::TarEntry;

void Add(std::vector<std::string>& findings, std::string text) {
  if (findings.size() < kFindingsMax) findings.push_back(std::move(text));
}

std::optional<EntryType> TypeOf(const TarEntry& entry) {
  if (entry.IsRegular()) return EntryType::kRegular;
  switch (entry.type) {
    case '1': return EntryType::kHardlink;
    case '2': return EntryType::kSymlink;
    case '3': return EntryType::kCharDevice;
    case '4': return EntryType::kBlockDevice;
    case '5': return EntryType::kDirectory;
    case '6': return EntryType::kFifo;
    default: return std::nullopt;
  }
}

// The first difference between what the tar and the table of contents say; "" if none.
std::string Difference(const TarEntry& tar, const Entry& toc) {
  const std::optional<EntryType> type = TypeOf(tar);
  if (type != toc.type) return "type";
  if ((tar.mode & 07777) != toc.mode) return "mode";
  if (tar.uid != toc.uid || tar.gid != toc.gid) return "owner";
  if (tar.mtime.seconds != toc.mtime_s || tar.mtime.nanoseconds != toc.mtime_ns) return "time";
  if (type == EntryType::kRegular && tar.size != toc.size) return "size";
  if (type == EntryType::kSymlink && tar.link_target != toc.link_target) return "link target";
  if (type == EntryType::kHardlink) {
    const Result<std::string> target = format::CleanName(tar.link_target);
    if (!target.ok() || *target != toc.link_target) return "link target";
  }
  if (type == EntryType::kCharDevice || type == EntryType::kBlockDevice) {
    if (tar.dev_major != toc.dev_major || tar.dev_minor != toc.dev_minor) return "device number";
  }
  if (tar.xattrs != toc.xattrs) return "extended attributes";
  return "";
}

}  // namespace

// Cuts the chunks out of the stream, which has them in the order of their offsets.
class BlobCheck::Chunks {
 public:
  Chunks(const format::LayerIndex& index, std::vector<std::string>& findings) : index_(index), findings_(findings) {
    for (const Entry& entry : index.entries) {
      for (uint32_t i = 0; i < entry.chunk_count; ++i) {
        const format::Chunk& chunk = index.chunks[entry.first_chunk + i];
        if (chunk.kind == format::ChunkKind::kStored) order_.push_back({&chunk, &entry});
      }
    }
    std::sort(order_.begin(), order_.end(),
              [](const Item& a, const Item& b) { return a.chunk->blob_offset < b.chunk->blob_offset; });
  }

  void Write(std::span<const uint8_t> data) {
    while (!data.empty() && next_ < order_.size()) {
      const format::Chunk& chunk = *order_[next_].chunk;
      if (position_ < chunk.blob_offset) {  // between two chunks
        Skip(data, chunk.blob_offset - position_);
        continue;
      }
      const uint64_t missing = chunk.blob_size - buffer_.size();
      const auto piece = data.first(static_cast<size_t>(std::min<uint64_t>(missing, data.size())));
      buffer_.insert(buffer_.end(), piece.begin(), piece.end());
      Skip(data, piece.size());
      if (buffer_.size() == chunk.blob_size) Check(order_[next_++]);
    }
    position_ += data.size();
  }

  void Finish() {
    if (next_ < order_.size()) {
      Add(findings_, std::to_string(order_.size() - next_) + " chunks lie behind the end of the blob");
    }
  }
  uint64_t checked() const { return next_; }

 private:
  struct Item {
    const format::Chunk* chunk;
    const Entry* file;
  };

  void Skip(std::span<const uint8_t>& data, uint64_t bytes) {
    const auto n = static_cast<size_t>(std::min<uint64_t>(bytes, data.size()));
    data = data.subspan(n);
    position_ += n;
  }

  void Check(const Item& item) {
    decoded_.resize(item.chunk->size);
    const Status status = format::DecodeChunk(*item.chunk, buffer_, decoded_);
    buffer_.clear();
    if (status.ok()) return;
    Add(findings_, "file " + format::Quoted(item.file->name) + ", bytes [" + std::to_string(item.chunk->file_offset) + ", " +
                       std::to_string(item.chunk->file_offset + item.chunk->size) + "), blob offset " +
                       std::to_string(item.chunk->blob_offset) + ": " + status.message());
  }

  const format::LayerIndex& index_;
  std::vector<std::string>& findings_;
  std::vector<Item> order_;
  size_t next_ = 0;
  uint64_t position_ = 0;
  std::vector<uint8_t> buffer_;
  std::vector<uint8_t> decoded_;
};

// Decompresses the stream, hashes the tar and compares its entries with the table of contents.
class BlobCheck::Tar : public format::TarReader::Handler {
 public:
  Tar(const std::optional<Digest>& diff_id, const format::LayerIndex* index, std::vector<std::string>& findings)
      : diff_id_(diff_id),
        findings_(findings),
        reader_(*this),
        decompressor_(format::Decompressor::Create([this](std::span<const uint8_t> tar) { return OnTar(tar); })) {
    if (index == nullptr) return;
    compare_ = true;
    for (const Entry& entry : index->entries) toc_[entry.name].entry = &entry;
  }

  void Write(std::span<const uint8_t> data) {
    if (broken_) return;
    if (Status s = decompressor_->Write(data); !s.ok()) Break(s);
  }

  void Finish() {
    if (!broken_) {
      Status status = decompressor_->Finish();
      if (status.ok()) status = reader_.Finish();
      if (!status.ok()) Break(status);
    }
    if (broken_) return;  // the rest would be consequences
    if (const Digest actual = hash_.Finish(); diff_id_ && actual != *diff_id_) {
      Add(findings_, "its tar is " + actual.ToString() + ", the image config says " + diff_id_->ToString());
    }
    for (const auto& [name, seen] : toc_) {
      if (!seen.in_tar) Add(findings_, format::Quoted(name) + " is in the table of contents and not in the tar");
      if (!seen.difference.empty()) {
        Add(findings_, format::Quoted(name) + ": the table of contents has another " + seen.difference + " than the tar");
      }
    }
  }
  uint64_t tar_size() const { return tar_size_; }

  Status OnEntry(const TarEntry& entry) override {
    current_ = nullptr;
    if (!compare_) return {};
    HR_ASSIGN_OR_RETURN(const std::string name, format::CleanName(entry.name));
    auto it = toc_.find(name);
    if (it == toc_.end()) {
      // The table may leave out what has no meaning in a layer (the type is unknown to it).
      if (TypeOf(entry)) Add(findings_, format::Quoted(name) + " is in the tar and not in the table of contents");
      return {};
    }
    it->second.in_tar = true;
    it->second.difference = Difference(entry, *it->second.entry);  // of several with one name the last one counts
    hash_content_ = entry.IsRegular() && !entry.is_sparse && entry.size > 0;
    current_ = &it->second;
    return {};
  }

  Status OnContent(std::span<const uint8_t> bytes) override {
    if (current_ != nullptr && hash_content_) content_.Update(bytes);
    return {};
  }

  Status OnEntryEnd() override {
    if (current_ == nullptr || !hash_content_) return {};
    const Digest actual = content_.Finish();
    const Digest& expected = current_->entry->file_digest;
    if (!expected.empty() && actual != expected && current_->difference.empty()) current_->difference = "content";
    return {};
  }

 private:
  struct Seen {
    const Entry* entry = nullptr;
    bool in_tar = false;
    std::string difference;
  };

  Status OnTar(std::span<const uint8_t> tar) {
    hash_.Update(tar);
    tar_size_ += tar.size();
    return reader_.Write(tar);
  }

  void Break(const Status& status) {
    broken_ = true;
    Add(findings_, status.message());
  }

  const std::optional<Digest> diff_id_;
  std::vector<std::string>& findings_;
  bool compare_ = false;
  bool broken_ = false;
  std::unordered_map<std::string_view, Seen> toc_;
  Seen* current_ = nullptr;
  bool hash_content_ = false;
  Sha256 hash_;
  Sha256 content_;
  uint64_t tar_size_ = 0;
  format::TarReader reader_;
  std::unique_ptr<format::Decompressor> decompressor_;
};

BlobCheck::BlobCheck(const std::optional<Digest>& diff_id, const format::LayerIndex* index)
    : chunks_(index == nullptr ? nullptr : std::make_unique<Chunks>(*index, findings_)),
      tar_(std::make_unique<Tar>(diff_id, index, findings_)) {}

BlobCheck::~BlobCheck() = default;

void BlobCheck::Write(std::span<const uint8_t> data) {
  if (chunks_) chunks_->Write(data);
  tar_->Write(data);
}

std::vector<std::string> BlobCheck::Finish() {
  if (chunks_) chunks_->Finish();
  tar_->Finish();
  return findings_;
}

uint64_t BlobCheck::chunks_checked() const { return chunks_ ? chunks_->checked() : 0; }
uint64_t BlobCheck::tar_size() const { return tar_->tar_size(); }

}  // namespace headrace::cli
