// How stored chunks are decoded (Codec of layer_index.h). Internal to format/. Any thread (decoders are the thread's own); CPU only.
#ifndef HEADRACE_FUSEFS_FORMAT_CHUNK_CODEC_H_
#define HEADRACE_FUSEFS_FORMAT_CHUNK_CODEC_H_

#include <cstdint>
#include <span>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"

namespace headrace::format {

// Fills `out` with the decoded bytes [inner_offset, inner_offset + out.size()) of `stored`. zstd and raw bytes must give exactly these (inner_offset 0);
// a gzip member may go on behind them, with headers of the next files, and is then not looked at further.
// DataLoss: damaged, too short, or (zstd, raw) too long. ResourceExhausted: no memory for a decoder.
Status DecodeStored(Codec codec, uint32_t inner_offset, std::span<const uint8_t> stored, std::span<uint8_t> out);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_CHUNK_CODEC_H_
