// The seek table of the zstd seekable format (zstd, contrib/seekable_format/zstd_seekable_compression_format.md, version 0.1.0):
// a skippable frame at the very end of a blob that lists all frames before it. Without checksums when we write it.
// Values; CPU only; errors are InvalidArgument and ResourceExhausted.
#ifndef HEADRACE_FUSEFS_FORMAT_SEEK_TABLE_H_
#define HEADRACE_FUSEFS_FORMAT_SEEK_TABLE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fusefs/base/status.h"

namespace headrace::format {

struct SeekFrame {
  uint32_t compressed_size = 0;
  uint32_t decompressed_size = 0;  // 0: a skippable frame
  std::optional<uint32_t> checksum;  // low half of XXH64 of the content, if the table has them
};

struct SeekTable {
  std::vector<SeekFrame> frames;

  // Footer of a table: its last 9 bytes.
  static constexpr uint64_t kFooterSize = 9;
  // Size of the whole skippable frame, from the footer: how many bytes of the blob's end ParseAll wants.
  static Result<uint64_t> FrameSize(std::span<const uint8_t> footer);
  // `frame` is the whole skippable frame; `blob_size` is checked against the sum of all frames.
  static Result<SeekTable> Parse(std::span<const uint8_t> frame, uint64_t blob_size);
  // The skippable frame (checksums are not written).
  Result<std::string> Serialize() const;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_SEEK_TABLE_H_
