// LayerIndexBuilder: entries of a table of contents, one after the other, checked and made into a LayerIndex. Internal to format/.
// All checks that layer_index.h promises are here. One thread; errors are InvalidArgument and ResourceExhausted.
#ifndef HEADRACE_FUSEFS_FORMAT_TOC_BUILDER_H_
#define HEADRACE_FUSEFS_FORMAT_TOC_BUILDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"
#include "fusefs/format/toc.h"

namespace headrace::format {

// One object of "entries", as written.
struct TocEntry {
  std::string type;
  std::string name;
  std::optional<std::string> name_raw;  // bytes, where the name is not UTF-8 (our addition)
  std::string link_name;
  std::optional<std::string> link_name_raw;
  std::string modtime;
  std::string digest;
  std::string chunk_digest;
  std::string chunk_type;
  uint64_t mode = 0;
  uint64_t size = 0;
  uint64_t uid = 0;
  uint64_t gid = 0;
  uint64_t dev_major = 0;
  uint64_t dev_minor = 0;
  uint64_t offset = 0;
  uint64_t end_offset = 0;
  uint64_t chunk_size = 0;
  uint64_t chunk_offset = 0;
  uint64_t inner_offset = 0;  // eStargz
  std::vector<std::pair<std::string, std::string>> xattrs;  // raw values

  const std::string& Name() const { return name_raw ? *name_raw : name; }
  const std::string& LinkName() const { return link_name_raw ? *link_name_raw : link_name; }
};

// What LayerIndexBuilder would refuse of this entry alone: its name, type, attributes, link, size; not its chunks.
Status CheckEntry(const TocEntry& entry);

class LayerIndexBuilder {
 public:
  LayerIndexBuilder(uint64_t data_end, uint64_t blob_size, TocDialect dialect = TocDialect::kZstdChunked);
  Status Add(const TocEntry& entry);  // may take long texts out of `entry`'s copy; the order is the table's
  Result<LayerIndex> Finish();
  uint64_t count() const { return count_; }

 private:
  struct Part {  // a chunk of the open file, as written
    uint64_t file_offset;
    uint64_t size;
    uint64_t begin;
    uint64_t end;  // 0: where the next one begins
    uint64_t inner_offset;
    bool zeros;
    Digest digest;
  };

  Status AddEntry(const TocEntry& entry);
  Status AddPart(const TocEntry& entry);
  Status OpenFile(const TocEntry& entry);
  Status CloseFile();
  Status AddChunk(const Part& part, uint64_t end);
  Status AddMemberChunk(const Part& part);
  // eStargz: chunks end where the next member begins.
  Status FindMemberEnds();
  Status CheckDuplicates() const;
  Status CheckOverlaps() const;

  LayerIndex index_;
  uint64_t data_end_;
  const TocDialect dialect_;
  uint64_t count_ = 0;
  bool file_open_ = false;  // the last entry is a file whose chunks may still come
  std::string open_name_;
  uint64_t open_end_offset_ = 0;
  std::vector<Part> parts_;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_TOC_BUILDER_H_
