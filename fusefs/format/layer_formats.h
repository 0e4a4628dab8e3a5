// Which tables of contents a layer has, by the annotations of its descriptor in the manifest. Pure; any thread.
#ifndef HEADRACE_FUSEFS_FORMAT_LAYER_FORMATS_H_
#define HEADRACE_FUSEFS_FORMAT_LAYER_FORMATS_H_

#include <cstdint>
#include <map>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/format/toc.h"

namespace headrace::format {

enum class LayerFormat : uint8_t { kNone, kHeadrace, kZstdChunked, kEstargz };

struct FormatHint {
  LayerFormat format = LayerFormat::kNone;
  TocLocation toc;     // kHeadrace, kZstdChunked
  Digest estargz_toc;  // kEstargz: of the JSON
};

// The best that the annotations offer: ours, then zstd:chunked (containers/storage: `io.github.containers.zstd-chunked.manifest-checksum` and
// `.manifest-position` = "offset:size:uncompressed size:type"; also under the older prefix `io.containers`), then eStargz. InvalidArgument, ResourceExhausted: one is there and makes no sense.
Result<FormatHint> FormatOf(const std::map<std::string, std::string>& annotations, uint64_t blob_size);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_LAYER_FORMATS_H_
