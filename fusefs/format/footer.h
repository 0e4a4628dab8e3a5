// The footer of a zstd:chunked blob: 64 bytes in the last skippable frame of the zstd:chunked trailer. Readers go by the annotations;
// the footer finds the table of contents of a blob that has none. Nothing in it is protected by a digest.
// Values; CPU only; errors are InvalidArgument.
#ifndef HEADRACE_FUSEFS_FORMAT_FOOTER_H_
#define HEADRACE_FUSEFS_FORMAT_FOOTER_H_

#include <cstdint>
#include <span>
#include <string>

#include "fusefs/base/status.h"

namespace headrace::format {

struct ChunkedFooter {
  static constexpr uint64_t kSize = 64;
  uint64_t toc_offset = 0;  // as all offsets here: past the 8-byte header of the skippable frame
  uint64_t toc_compressed_size = 0;
  uint64_t toc_uncompressed_size = 0;
  uint64_t tar_split_offset = 0;  // 0: there is none
  uint64_t tar_split_compressed_size = 0;
  uint64_t tar_split_uncompressed_size = 0;

  // Exactly the 64 bytes.
  static Result<ChunkedFooter> Parse(std::span<const uint8_t> bytes, uint64_t blob_size);
  // Looks for it at the end of a blob, with or without a seek table behind it. `tail`: the last bytes of the blob; OutOfRange: the
  // seek table is larger, call again with `wanted` bytes (or with the whole blob, if that is smaller).
  static Result<ChunkedFooter> Find(std::span<const uint8_t> tail, uint64_t blob_size, uint64_t& wanted);
  std::string Serialize() const;
};

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_FOOTER_H_
