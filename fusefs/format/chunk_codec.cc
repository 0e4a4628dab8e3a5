#include "fusefs/format/chunk_codec.h"

#include <algorithm>
#include <array>
#include <string>

#include "fusefs/format/gunzip.h"
#include "fusefs/format/zstd_frame.h"

namespace headrace::format {
namespace {

Status DecodeMember(uint32_t skip, std::span<const uint8_t> stored, std::span<uint8_t> out) {
  thread_local Gunzip gunzip;
  gunzip.Reset();
  std::array<uint8_t, 16 << 10> dropped;
  while (skip > 0) {
    HR_ASSIGN_OR_RETURN(const size_t got, gunzip.Decode(stored, std::span(dropped).first(std::min<size_t>(skip, dropped.size()))));
    if (got == 0) return DataLossError("gzip: the member ends before the chunk");
    skip -= static_cast<uint32_t>(got);
  }
  size_t done = 0;
  while (done < out.size()) {
    HR_ASSIGN_OR_RETURN(const size_t got, gunzip.Decode(stored, out.subspan(done)));
    if (got == 0) return DataLossError("gzip: the member ends within the chunk");
    done += got;
  }
  return OkStatus();
}

}  // namespace

Status DecodeStored(Codec codec, uint32_t inner_offset, std::span<const uint8_t> stored, std::span<uint8_t> out) {
  if (codec == Codec::kGzip) return DecodeMember(inner_offset, stored, out);
  if (inner_offset != 0) return InternalError("only gzip members hold several chunks");
  if (codec == Codec::kZstd) return DecodeFrames(stored, out);
  if (stored.size() != out.size()) {
    return DataLossError("has " + std::to_string(stored.size()) + " bytes, should be " + std::to_string(out.size()));
  }
  std::copy(stored.begin(), stored.end(), out.begin());
  return OkStatus();
}

}  // namespace headrace::format
