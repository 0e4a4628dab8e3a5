// Layers of any compression: gzip headers and members, zstd frames, plain bytes. Input: the blob.
#include <algorithm>
#include <string>

#include "fusefs/format/bytes.h"
#include "fusefs/format/decompress.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

constexpr uint64_t kOutputMax = 1 << 20;  // an input may be a bomb; the sink decides how much it takes

struct Decoded {
  Status status;
  std::string out;
  format::Compression compression = format::Compression::kUnknown;
  SeekPoints boundaries;
};

Decoded Decode(Bytes blob, size_t piece) {
  Decoded result;
  auto decompressor = format::Decompressor::Create([&](Bytes bytes) {
    result.out += format::AsText(bytes);
    return result.out.size() > kOutputMax ? ResourceExhaustedError("enough") : OkStatus();
  }, [&](const SeekPoint& end) {
    HEADRACE_CHECK(end.decoded_offset == result.out.size());
    result.boundaries.push_back(end);
  });
  for (size_t at = 0; at < blob.size() && result.status.ok(); at += piece) {
    result.status = decompressor->Write(blob.subspan(at, std::min(piece, blob.size() - at)));
  }
  if (result.status.ok()) result.status = decompressor->Finish();
  result.compression = decompressor->compression();
  return result;
}

}  // namespace

void FuzzDecompress(Bytes data) {
  const Decoded whole = Decode(data, data.size() + 1);
  const Decoded pieces = Decode(data, 1 + data.size() % 97);
  HEADRACE_CHECK(whole.status.ok() == pieces.status.ok());
  if (!whole.status.ok()) return;
  HEADRACE_CHECK(whole.out == pieces.out && whole.compression == pieces.compression && whole.boundaries == pieces.boundaries);
  for (size_t i = 0; i < std::min<size_t>(whole.boundaries.size(), 4); ++i) {  // where something ended, something else can begin
    const SeekPoint& point = whole.boundaries[i];
    const Decoded rest = Decode(data.subspan(point.blob_offset), data.size() + 1);
    HEADRACE_CHECK(rest.compression != whole.compression || (rest.status.ok() && rest.out == whole.out.substr(point.decoded_offset)));
  }
  if (whole.compression == format::Compression::kNone) HEADRACE_CHECK(whole.out == TextOf(data));
}

}  // namespace headrace::fuzz
