// What the format tests share: making a layer from a tar in memory, and reading a file back through its table of contents.
#ifndef HEADRACE_TEST_FORMAT_LAYER_FIXTURE_H_
#define HEADRACE_TEST_FORMAT_LAYER_FIXTURE_H_

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"
#include "fusefs/format/layer_writer.h"

namespace headrace::format::test {

struct Layer {
  std::string blob;
  LayerSummary summary;
  std::span<const uint8_t> Toc() const;
};

inline LayerWriterOptions SmallChunks(unsigned threads = 2) {
  return {.chunk_size = 64 << 10, .zstd_level = 3, .threads = threads};
}

// Writes the tar in pieces of `piece` bytes.
Result<Layer> MakeLayer(std::string_view tar, const LayerWriterOptions& options = SmallChunks(),
                        size_t piece = 1 << 20);
// Bytes of a regular file, each chunk through DecodeChunk.
Result<std::string> ReadEntry(const Layer& layer, const LayerIndex& index, const Entry& entry);
const Entry* Find(const LayerIndex& index, std::string_view name);
// All frames of `blob` decoded, by libzstd's streaming decoder.
Result<std::string> DecodeBlob(std::string_view blob);

// One header block and content of a tar, by hand: for what TarWriter would never write.
std::string TarBlock(char type, std::string_view name, uint64_t size, std::string_view link = "");
std::string TarFile(std::string_view name, std::string_view content);
std::string Padded(std::string_view data);
std::string PaxHeader(std::string_view key, std::string_view value);
// Sets bytes of a header and its checksum anew.
std::string Patched(std::string block, size_t offset, std::string_view bytes);
inline std::string TarEnd() { return std::string(1024, '\0'); }

std::string RandomBytes(std::mt19937_64& random, size_t size);
// Compressible to about 0.78, like BF16 weights.
std::string RandomWeights(std::mt19937_64& random, size_t size);

// Runs a program of the machine through the shell; its standard output. Fails if its exit status is not 0.
Result<std::string> Shell(const std::string& command);

}  // namespace headrace::format::test

#endif  // HEADRACE_TEST_FORMAT_LAYER_FIXTURE_H_
