// Stored chunks in each codec. Input: codec, where the chunk begins in its member, the stored bytes.
#include <vector>

#include "fusefs/format/chunk_codec.h"
#include "fusefs/format/toc.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {

void FuzzChunk(Bytes data) {
  Input input(data);
  constexpr format::Codec kCodecs[] = {format::Codec::kZstd, format::Codec::kGzip, format::Codec::kRaw};
  const format::Codec codec = kCodecs[input.Choice(3)];
  const uint32_t inner = codec == format::Codec::kGzip ? static_cast<uint32_t>(input.Choice(256)) : 0;
  format::Chunk chunk;
  chunk.codec = codec;
  chunk.inner_offset = inner;
  chunk.size = codec == format::Codec::kRaw ? input.Rest().size() : 1000;
  chunk.blob_size = input.Rest().size();
  if (chunk.size == 0) return;
  // Two decodings agree, and without the digest nothing is believed.
  std::vector<uint8_t> first(chunk.size, 1), second(chunk.size, 2);
  const Status status = format::DecodeStored(codec, inner, input.Rest(), first);
  HEADRACE_CHECK(status.ok() == format::DecodeStored(codec, inner, input.Rest(), second).ok());
  if (status.ok()) HEADRACE_CHECK(first == second);
  chunk.digest = Digest::Of("never");
  HEADRACE_CHECK(!format::DecodeChunk(chunk, input.Rest(), second).ok());
  if (!status.ok()) return;
  chunk.digest = Digest::Of(first);
  HEADRACE_CHECK(format::DecodeChunk(chunk, input.Rest(), second).ok() && first == second);
}

}  // namespace headrace::fuzz
