#include "test/format/layer_fixture.h"

#include <zstd.h>

#include <cmath>
#include <cstdio>
#include <cstring>

#include "fusefs/format/bytes.h"
#include "fusefs/format/tar_header.h"

namespace headrace::format::test {

std::span<const uint8_t> Layer::Toc() const {
  return AsBytes(blob).subspan(summary.toc.offset, summary.toc.compressed_size);
}

Result<Layer> MakeLayer(std::string_view tar, const LayerWriterOptions& options, size_t piece) {
  Layer layer;
  HR_ASSIGN_OR_RETURN(auto writer, LayerWriter::Create(options, [&](std::span<const uint8_t> bytes) {
                        layer.blob += AsText(bytes);
                        return OkStatus();
                      }));
  for (size_t at = 0; at < tar.size(); at += piece) {
    HR_RETURN_IF_ERROR(writer->Write(AsBytes(tar.substr(at, piece))));
  }
  HR_ASSIGN_OR_RETURN(layer.summary, writer->Finish());
  return layer;
}

Result<std::string> ReadEntry(const Layer& layer, const LayerIndex& index, const Entry& entry) {
  std::string out(entry.size, '\0');
  for (uint32_t i = entry.first_chunk; i < entry.first_chunk + entry.chunk_count; ++i) {
    const Chunk& chunk = index.chunks[i];
    if (chunk.kind == ChunkKind::kZeros) continue;
    HR_RETURN_IF_ERROR(DecodeChunk(chunk, AsBytes(layer.blob).subspan(chunk.blob_offset, chunk.blob_size),
                                   {reinterpret_cast<uint8_t*>(out.data()) + chunk.file_offset, chunk.size}));
  }
  return out;
}

const Entry* Find(const LayerIndex& index, std::string_view name) {
  for (const Entry& entry : index.entries) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

Result<std::string> DecodeBlob(std::string_view blob) {
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> ctx(ZSTD_createDCtx(), ZSTD_freeDCtx);
  std::string out;
  std::string buffer(1 << 20, '\0');
  ZSTD_inBuffer in{blob.data(), blob.size(), 0};
  size_t rc = 0;
  while (in.pos < in.size || rc != 0) {
    ZSTD_outBuffer piece{buffer.data(), buffer.size(), 0};
    const size_t before = in.pos;
    rc = ZSTD_decompressStream(ctx.get(), &piece, &in);
    if (ZSTD_isError(rc) != 0) return DataLossError(ZSTD_getErrorName(rc));
    out.append(buffer.data(), piece.pos);
    if (in.pos == before && piece.pos == 0) return DataLossError("blob is truncated");
  }
  return out;
}

std::string Patched(std::string block, size_t offset, std::string_view bytes) {
  block.replace(offset, bytes.size(), bytes);
  block.replace(148, 8, "        ");
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(block[i]);
  char text[8];
  std::snprintf(text, sizeof text, "%06o", sum);
  block.replace(148, 7, text, 7);
  return block;
}

std::string TarBlock(char type, std::string_view name, uint64_t size, std::string_view link) {
  std::string block(512, '\0');
  block.replace(0, name.size(), name);
  block.replace(100, 7, "0000644");
  block.replace(108, 7, "0000000");
  block.replace(116, 7, "0000000");
  char text[16];
  std::snprintf(text, sizeof text, "%011llo", static_cast<unsigned long long>(size));
  block.replace(124, 11, text);
  block.replace(136, 11, "14000000000");
  block[156] = type;
  block.replace(157, link.size(), link);
  block.replace(257, 8, std::string_view("ustar\00000", 8));
  return Patched(block, 0, "");
}

std::string Padded(std::string_view data) {
  return std::string(data) + std::string((512 - data.size() % 512) % 512, '\0');
}

std::string TarFile(std::string_view name, std::string_view content) {
  return TarBlock('0', name, content.size()) + Padded(content);
}

std::string PaxHeader(std::string_view key, std::string_view value) {
  const std::string body = " " + std::string(key) + "=" + std::string(value) + "\n";
  size_t size = body.size() + 1;
  while (std::to_string(size).size() + body.size() != size) size = std::to_string(size).size() + body.size();
  const std::string record = std::to_string(size) + body;
  return TarBlock('x', "pax", record.size()) + Padded(record);
}

std::string RandomBytes(std::mt19937_64& random, size_t size) {
  std::string out(size, '\0');
  for (size_t i = 0; i < size; i += 8) {
    const uint64_t word = random();
    std::memcpy(&out[i], &word, std::min<size_t>(8, size - i));
  }
  return out;
}

std::string RandomWeights(std::mt19937_64& random, size_t size) {
  std::normal_distribution<float> normal(0, 0.02f);
  std::string out(size, '\0');
  for (size_t i = 0; i + 2 <= size; i += 2) {
    const float weight = normal(random);
    uint32_t bits;
    std::memcpy(&bits, &weight, 4);
    out[i] = static_cast<char>((bits >> 16) & 0xff);
    out[i + 1] = static_cast<char>(bits >> 24);
  }
  return out;
}

Result<std::string> Shell(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return InternalError("popen failed");
  std::string out;
  char buffer[65536];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  if (int rc = pclose(pipe); rc != 0) return InternalError("'" + command + "' ended with " + std::to_string(rc));
  return out;
}

}  // namespace headrace::format::test
