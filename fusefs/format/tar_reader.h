// TarReader: a push parser. Bytes of an uncompressed tar in any split, entries and contents out. The counterpart of tar_writer.h.
//
// Every byte is reported once and in order: as OnContent (bytes of files) or OnRaw (everything else: headers, extensions, padding,
// the zero blocks at the end and whatever follows them). For each entry: OnRaw of its headers (in pieces), OnEntry,
// OnContent of `stored_size` bytes (in pieces), OnEntryEnd. An error of a handler stops the parser and is returned.
// Contents may be left out (Skip): whoever only looks for the headers need not have them.
// One thread; CPU only; memory is one special header (limits::kTarSpecialSizeMax).
// Errors: InvalidArgument (not a tar, truncated, damaged), ResourceExhausted. They name the byte of the tar.
#ifndef HEADRACE_FUSEFS_FORMAT_TAR_READER_H_
#define HEADRACE_FUSEFS_FORMAT_TAR_READER_H_

#include <cstdint>
#include <span>
#include <string>

#include "fusefs/base/status.h"
#include "fusefs/format/tar_header.h"

namespace headrace::format {

class TarReader {
 public:
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual Status OnRaw(std::span<const uint8_t> bytes) {
      (void)bytes;
      return OkStatus();
    }
    virtual Status OnEntry(const TarEntry& entry) = 0;
    virtual Status OnContent(std::span<const uint8_t> bytes) = 0;
    // In place of OnContent.
    virtual Status OnSkipped(uint64_t bytes) {
      (void)bytes;
      return OkStatus();
    }
    virtual Status OnEntryEnd() { return OkStatus(); }
  };

  explicit TarReader(Handler& handler) : handler_(handler) {}  // the handler outlives the reader

  Status Write(std::span<const uint8_t> bytes);
  // Content that comes next and may be skipped instead of written.
  uint64_t skippable() const { return state_ == State::kContent ? left_ : 0; }
  // REQUIRES: 0 < bytes <= skippable().
  Status Skip(uint64_t bytes);
  // Both zero blocks at the end were seen.
  bool at_trailer() const { return state_ == State::kTrailer; }
  // End of input. An archive without the two zero blocks at its end is accepted, as everywhere.
  Status Finish();

  uint64_t position() const { return position_; }
  // Global PAX headers seen ('g'). They are skipped, as container tools do.
  uint64_t global_headers() const { return global_headers_; }

 private:
  enum class State { kHeader, kSpecial, kOldSparse, kSparseMap, kContent, kPadding, kTrailer };

  Status Step(std::span<const uint8_t>& bytes);
  Status TakeBlock(std::span<const uint8_t>& bytes, bool& complete);
  Status OnBlock();
  Status OnHeader();
  Status OnSpecialEnd();
  Status OnSparseBlock();
  Status BeginEntry();
  Status BeginContent();
  Status EndContent();
  bool StoresContent() const;

  Handler& handler_;
  State state_ = State::kHeader;
  uint64_t position_ = 0;
  uint64_t left_ = 0;     // bytes of the special header, content or padding that must still come
  std::string block_;     // of the header (or sparse extension) that is being collected
  std::string special_;   // data of 'x', 'g', 'L', 'K', or the text of a sparse map of format 1.0
  uint64_t sparse_lines_ = 0;
  bool zero_block_seen_ = false;
  TarEntry entry_;
  char special_type_ = 0;
  PaxRecords pax_;
  std::string long_name_;
  std::string long_link_;
  uint64_t padding_after_content_ = 0;
  uint64_t global_headers_ = 0;
  Status failed_;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_TAR_READER_H_
