// eStargz (stargz-snapshotter's docs/estargz.md, version 0.x): a layer whose files are gzip members, with a table of contents in a last tar entry `stargz.index.json` and a
// footer that says where that is. Read, never written.
//
// Pure; any thread; CPU only. Everything is hostile until the digest of the JSON, which stands in the manifest, matched, and bounded even then.
// Errors: InvalidArgument (malformed), ResourceExhausted (over a limit), DataLoss (wrong digest, damaged gzip).
#ifndef HEADRACE_FUSEFS_FORMAT_ESTARGZ_H_
#define HEADRACE_FUSEFS_FORMAT_ESTARGZ_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"

namespace headrace::format {

// Annotation of the layer: digest of the table's JSON, uncompressed.
inline constexpr std::string_view kEstargzTocAnnotation = "containerd.io/snapshot/stargz/toc.digest";

inline constexpr uint64_t kEstargzFooterSize = 51;
inline constexpr uint64_t kEstargzLegacyFooterSize = 47;  // of the time before subfields

struct EstargzFooter {
  uint64_t toc_offset = 0;
  uint64_t size = 0;  // of the footer itself
};

// `tail`: the end of the blob, kEstargzFooterSize bytes or more.
Result<EstargzFooter> ParseEstargzFooter(std::string_view tail);

// `members`: the bytes of the blob from `toc_offset` to the footer. Chunks get Codec::kGzip; what eStargz adds to the root (the table itself, landmarks of prefetching) is
// left out.
Result<LayerIndex> ReadEstargzToc(std::span<const uint8_t> members, const Digest& json_digest, uint64_t toc_offset, uint64_t blob_size);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_ESTARGZ_H_
