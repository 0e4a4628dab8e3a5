#include "fusefs/format/toc_builder.h"

#include <algorithm>
#include <functional>
#include <string_view>

#include "fusefs/format/limits.h"
#include "fusefs/format/name.h"
#include "fusefs/format/rfc3339.h"

namespace headrace::format {
namespace {

Result<EntryType> TypeOf(std::string_view type) {
  if (type == "reg") return EntryType::kRegular;
  if (type == "dir") return EntryType::kDirectory;
  if (type == "symlink") return EntryType::kSymlink;
  if (type == "hardlink") return EntryType::kHardlink;
  if (type == "char") return EntryType::kCharDevice;
  if (type == "block") return EntryType::kBlockDevice;
  if (type == "fifo") return EntryType::kFifo;
  return InvalidArgumentError("type " + Quoted(type) + " is unknown");
}

Result<uint32_t> Narrow(uint64_t value, uint64_t max, const char* what) {
  if (value > max) return InvalidArgumentError(std::string(what) + " " + std::to_string(value) + " is too large");
  return static_cast<uint32_t>(value);
}

Status CheckXattrs(std::vector<std::pair<std::string, std::string>>& xattrs) {
  uint64_t names = 0;
  for (const auto& [name, value] : xattrs) {
    if (name.empty() || name.size() > limits::kXattrNameMax || name.find('\0') != std::string::npos) {
      return InvalidArgumentError("xattr name " + Quoted(name) + " is empty, too long or has a NUL byte");
    }
    if (value.size() > limits::kXattrValueMax) {
      return ResourceExhaustedError("xattr " + Quoted(name) + " has " + std::to_string(value.size()) + " bytes");
    }
    names += name.size() + 1;
  }
  if (names > limits::kXattrListMax) return ResourceExhaustedError("xattr names have more than 64 KiB");
  std::sort(xattrs.begin(), xattrs.end());
  for (size_t i = 1; i < xattrs.size(); ++i) {
    if (xattrs[i].first == xattrs[i - 1].first) {
      return InvalidArgumentError("xattr " + Quoted(xattrs[i].first) + " is there twice");
    }
  }
  return OkStatus();
}

Status FillLink(const TocEntry& in, Entry& out) {
  if (out.type == EntryType::kSymlink) {
    const std::string& target = in.LinkName();
    if (target.empty() || target.size() > limits::kSymlinkMax || target.find('\0') != std::string::npos) {
      return InvalidArgumentError("symbolic link to " + Quoted(target) + ": empty, too long or with a NUL byte");
    }
    out.link_target = target;
  } else if (out.type == EntryType::kHardlink) {
    HR_ASSIGN_OR_RETURN(out.link_target, CleanName(in.LinkName()));
    if (out.link_target.empty()) return InvalidArgumentError("hard link to the root");
    if (out.link_target == out.name) return InvalidArgumentError("hard link to itself");
  }
  return OkStatus();
}

// Everything but sizes and chunks.
Status Fill(const TocEntry& in, Entry& out) {
  HR_ASSIGN_OR_RETURN(out.type, TypeOf(in.type));
  HR_ASSIGN_OR_RETURN(out.name, CleanName(in.Name()));
  if (out.name.empty() && out.type != EntryType::kDirectory) {
    return InvalidArgumentError("the root is not a directory");
  }
  HR_RETURN_IF_ERROR(FillLink(in, out));
  HR_ASSIGN_OR_RETURN(uint32_t mode, Narrow(in.mode, UINT32_MAX, "mode"));
  out.mode = mode & 07777u;
  HR_ASSIGN_OR_RETURN(out.uid, Narrow(in.uid, UINT32_MAX - 1, "uid"));  // the last one means "none"
  HR_ASSIGN_OR_RETURN(out.gid, Narrow(in.gid, UINT32_MAX - 1, "gid"));
  if (out.type == EntryType::kCharDevice || out.type == EntryType::kBlockDevice) {
    HR_ASSIGN_OR_RETURN(out.dev_major, Narrow(in.dev_major, (1u << 12) - 1, "device major"));
    HR_ASSIGN_OR_RETURN(out.dev_minor, Narrow(in.dev_minor, (1u << 20) - 1, "device minor"));
  }
  if (!in.modtime.empty()) {
    HR_ASSIGN_OR_RETURN(TarTime time, ParseRfc3339(in.modtime));
    out.mtime_s = time.seconds;
    out.mtime_ns = time.nanoseconds;
  }
  out.xattrs = in.xattrs;
  return CheckXattrs(out.xattrs);
}

Status CheckSize(const TocEntry& entry) {
  return entry.size <= limits::kFileSizeMax ? OkStatus() : ResourceExhaustedError("size " + std::to_string(entry.size) + " is too large");
}

}  // namespace

Status CheckEntry(const TocEntry& entry) {
  Entry out;
  HR_RETURN_IF_ERROR(Fill(entry, out));
  return out.type == EntryType::kRegular ? CheckSize(entry) : OkStatus();
}

LayerIndexBuilder::LayerIndexBuilder(uint64_t data_end, uint64_t blob_size, TocDialect dialect)
    : data_end_(std::min({data_end, blob_size, limits::kBlobSizeMax})), dialect_(dialect) {
  index_.blob_size = blob_size;
}

Status LayerIndexBuilder::Add(const TocEntry& entry) {
  Status status = entry.type == "chunk" ? AddPart(entry) : AddEntry(entry);
  if (!status.ok()) {
    return status.Annotate("entry " + std::to_string(count_) + " (" + Quoted(entry.Name()) + ")");
  }
  ++count_;
  return OkStatus();
}

Status LayerIndexBuilder::AddEntry(const TocEntry& entry) {
  HR_RETURN_IF_ERROR(CloseFile());
  if (index_.entries.size() >= limits::kEntriesMax) {
    return ResourceExhaustedError("more than " + std::to_string(limits::kEntriesMax) + " entries");
  }
  Entry out;
  HR_RETURN_IF_ERROR(Fill(entry, out));
  out.first_chunk = static_cast<uint32_t>(index_.chunks.size());
  if (out.type == EntryType::kRegular) {
    HR_RETURN_IF_ERROR(CheckSize(entry));
    out.size = entry.size;
    if (!entry.digest.empty() && out.size > 0) {
      HR_ASSIGN_OR_RETURN(out.file_digest, Digest::Parse(entry.digest));
    }
  }
  index_.entries.push_back(std::move(out));
  return index_.entries.back().type == EntryType::kRegular ? OpenFile(entry) : OkStatus();
}

Status LayerIndexBuilder::OpenFile(const TocEntry& entry) {
  file_open_ = true;
  open_name_ = entry.Name();
  open_end_offset_ = entry.end_offset;
  parts_.clear();
  return entry.size == 0 ? OkStatus() : AddPart(entry);
}

// The file's own entry is its first part. A file in one piece has no chunkSize and no chunkDigest.
Status LayerIndexBuilder::AddPart(const TocEntry& entry) {
  if (!file_open_) return InvalidArgumentError("chunk without a file before it");
  const Entry& file = index_.entries.back();
  const bool first = entry.type != "chunk";
  if (!first && (file.size == 0 || entry.Name() != open_name_)) {
    return InvalidArgumentError("chunk does not belong to the file before it, " + Quoted(open_name_));
  }
  if (index_.chunks.size() + parts_.size() >= limits::kChunksMax) {
    return ResourceExhaustedError("more than " + std::to_string(limits::kChunksMax) + " chunks");
  }
  Part part{};
  part.file_offset = entry.chunk_offset;
  part.size = entry.chunk_size;
  part.begin = entry.offset;
  part.end = first ? 0 : entry.end_offset;
  part.inner_offset = entry.inner_offset;
  if (!entry.chunk_type.empty() && entry.chunk_type != "zeros") {
    return InvalidArgumentError("chunk type " + Quoted(entry.chunk_type) + " is unknown");
  }
  part.zeros = entry.chunk_type == "zeros";
  if (!part.zeros && !entry.chunk_digest.empty()) {
    HR_ASSIGN_OR_RETURN(part.digest, Digest::Parse(entry.chunk_digest));
  }
  parts_.push_back(part);
  return OkStatus();
}

Status LayerIndexBuilder::CloseFile() {
  if (!file_open_) return OkStatus();
  file_open_ = false;
  Entry& file = index_.entries.back();
  if (parts_.size() == 1) {
    Part& only = parts_[0];
    if (only.size == 0) only.size = file.size;
    if (only.digest.empty() && only.size == file.size) only.digest = file.file_digest;
  }
  // A size of 0 in eStargz's last chunk: to the end of the file.
  if (dialect_ == TocDialect::kEstargz && !parts_.empty() && parts_.back().size == 0 && parts_.back().file_offset < file.size) {
    parts_.back().size = file.size - parts_.back().file_offset;
  }
  uint64_t covered = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    const std::string where = "file " + Quoted(open_name_) + ", chunk " + std::to_string(i);
    if (part.file_offset != covered || part.size == 0 || part.size > file.size - covered) {
      return InvalidArgumentError(where + " does not continue the file: [" + std::to_string(part.file_offset) +
                                  ", +" + std::to_string(part.size) + ") after " + std::to_string(covered) +
                                  " of " + std::to_string(file.size) + " bytes");
    }
    covered += part.size;
    uint64_t end = part.end;
    if (dialect_ == TocDialect::kEstargz) {
      HR_RETURN_IF_ERROR(AddMemberChunk(part).Annotate(where));
      continue;
    }
    if (end == 0) end = i + 1 < parts_.size() ? parts_[i + 1].begin : open_end_offset_;
    HR_RETURN_IF_ERROR(AddChunk(part, end).Annotate(where));
  }
  if (covered != file.size) {
    return InvalidArgumentError("file " + Quoted(open_name_) + ": chunks cover " + std::to_string(covered) +
                                " of " + std::to_string(file.size) + " bytes");
  }
  file.chunk_count = static_cast<uint32_t>(parts_.size());
  return OkStatus();
}

Status LayerIndexBuilder::AddChunk(const Part& part, uint64_t end) {
  Chunk chunk;
  chunk.file_offset = part.file_offset;
  chunk.size = part.size;
  if (part.zeros) {
    chunk.kind = ChunkKind::kZeros;
    index_.chunks.push_back(chunk);
    return OkStatus();
  }
  if (part.size > limits::kChunkSizeMax) {
    return ResourceExhaustedError("has " + std::to_string(part.size) + " bytes; the limit is " +
                                  std::to_string(limits::kChunkSizeMax));
  }
  if (part.begin >= end || end > data_end_) {
    return InvalidArgumentError("is outside the data of the blob: [" + std::to_string(part.begin) + ", " +
                                std::to_string(end) + ") of [0, " + std::to_string(data_end_) + ")");
  }
  if (end - part.begin > limits::ChunkBlobSizeMax(part.size)) {
    return ResourceExhaustedError("has " + std::to_string(end - part.begin) + " compressed bytes for " +
                                  std::to_string(part.size));
  }
  if (part.digest.empty()) return InvalidArgumentError("has no digest");
  chunk.blob_offset = part.begin;
  chunk.blob_size = end - part.begin;
  if (dialect_ == TocDialect::kLearned) {
    chunk.codec = Codec::kRaw;
    if (chunk.blob_size != chunk.size) return InvalidArgumentError("has a wrong size");
  }
  chunk.digest = part.digest;
  index_.chunks.push_back(chunk);
  return OkStatus();
}

// Its end is known when all members are (FindMemberEnds).
Status LayerIndexBuilder::AddMemberChunk(const Part& part) {
  if (part.size > limits::kChunkSizeMax || part.inner_offset > limits::kChunkSizeMax) {
    return ResourceExhaustedError("has " + std::to_string(part.size) + " bytes at " + std::to_string(part.inner_offset) + " of its gzip member; the limit is " +
                                  std::to_string(limits::kChunkSizeMax));
  }
  if (part.zeros) return InvalidArgumentError("holes are unknown in eStargz");
  if (part.begin >= data_end_) {
    return InvalidArgumentError("is outside the data of the blob: " + std::to_string(part.begin) + " of " + std::to_string(data_end_));
  }
  if (part.digest.empty()) return InvalidArgumentError("has no digest");
  Chunk chunk;
  chunk.file_offset = part.file_offset;
  chunk.size = part.size;
  chunk.blob_offset = part.begin;
  chunk.codec = Codec::kGzip;
  chunk.inner_offset = static_cast<uint32_t>(part.inner_offset);
  chunk.digest = part.digest;
  index_.chunks.push_back(chunk);
  return OkStatus();
}

Status LayerIndexBuilder::FindMemberEnds() {
  std::vector<uint64_t> begins;
  begins.reserve(index_.chunks.size() + 1);
  for (const Chunk& chunk : index_.chunks) begins.push_back(chunk.blob_offset);
  begins.push_back(data_end_);
  std::sort(begins.begin(), begins.end());
  for (Chunk& chunk : index_.chunks) {
    const uint64_t end = *std::upper_bound(begins.begin(), begins.end(), chunk.blob_offset);
    chunk.blob_size = end - chunk.blob_offset;
    // The member holds the headers of the files behind its last chunk, too.
    if (chunk.blob_size > limits::ChunkBlobSizeMax(limits::kChunkSizeMax)) {
      return ResourceExhaustedError("the gzip member at byte " + std::to_string(chunk.blob_offset) + " has " + std::to_string(chunk.blob_size) + " bytes");
    }
  }
  return OkStatus();
}

// Two entries of one name: readers would differ in which one they show. The writer never makes them, containers/storage refuses
// them too.
Status LayerIndexBuilder::CheckDuplicates() const {
  std::vector<std::pair<size_t, uint32_t>> order;  // hash of the name, entry
  order.reserve(index_.entries.size());
  for (uint32_t i = 0; i < index_.entries.size(); ++i) {
    order.emplace_back(std::hash<std::string_view>()(index_.entries[i].name), i);
  }
  const auto name = [&](const auto& item) -> const std::string& { return index_.entries[item.second].name; };
  std::sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : name(a) < name(b);
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i].first == order[i - 1].first && name(order[i]) == name(order[i - 1])) {
      return InvalidArgumentError("entries " + std::to_string(order[i - 1].second) + " and " +
                                  std::to_string(order[i].second) + " have the same name " +
                                  Quoted(name(order[i])));
    }
  }
  return OkStatus();
}

Status LayerIndexBuilder::CheckOverlaps() const {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  ranges.reserve(index_.chunks.size());
  for (const Chunk& chunk : index_.chunks) {
    if (chunk.kind == ChunkKind::kStored) {
      ranges.emplace_back(chunk.blob_offset, chunk.blob_offset + chunk.blob_size);
    }
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) {
      return InvalidArgumentError("chunks overlap in the blob at byte " + std::to_string(ranges[i].first));
    }
  }
  return OkStatus();
}

Result<LayerIndex> LayerIndexBuilder::Finish() {
  HR_RETURN_IF_ERROR(CloseFile());
  HR_RETURN_IF_ERROR(CheckDuplicates());
  if (dialect_ == TocDialect::kEstargz) {
    HR_RETURN_IF_ERROR(FindMemberEnds());
  } else {
    HR_RETURN_IF_ERROR(CheckOverlaps());
  }
  return std::move(index_);
}

}  // namespace headrace::format
