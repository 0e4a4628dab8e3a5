// What is replayed: the shards of a model directory in natural order, and how a file divides into pieces that a loader takes as a
// whole (tensors). Values. Nothing here opens a shard: its first open belongs to the measured time.
// All offsets and cuts are multiples of kPage (except the end of a file), because the checksum is taken by pages.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_REPLAY_FILES_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_REPLAY_FILES_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "integration/tools/bench/memory.h"

namespace headrace::bench {

struct ModelFile {
  std::string path;
  size_t index = 0;    // part of the checksum: position among the shards, JSON files after them
  uint64_t size = 0;   // what is to be read of it: less than its size if --limit cuts it
};

// A half-open range of a file.
struct Piece {
  size_t file = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t size() const { return end - begin; }
};

struct Model {
  std::vector<ModelFile> shards;
  std::vector<ModelFile> documents;  // *.json
  uint64_t bytes() const;            // of the shards
};

// *.safetensors of `directory`, at most `limit` bytes of them in all (0: everything). Numbers in names count as numbers.
Model ListModel(const std::string& directory, uint64_t limit);

// Waits until `directory` is there (a minute at most), then makes the paths of `model` those of the same names in it.
void MoveTo(const std::string& directory, Model& model);

// Bytes that the header takes, its length field included; 0 if there is no sensible one. `head`: the first 8 bytes.
uint64_t HeaderBytes(std::span<const uint8_t, 8> head, uint64_t file_size);

// Where the tensors of a safetensors header begin, cut to pages; header and tensors together cover the file. Without a valid
// header pieces of 4 to 64 MiB.
std::vector<Piece> CutIntoTensors(const ModelFile& file, std::span<const uint8_t> header, std::mt19937_64& random);

// Pieces of `size` bytes (a multiple of kPage) of all shards in order.
std::vector<Piece> CutIntoBlocks(const std::vector<ModelFile>& files, uint64_t size);

// The k-th of n equal parts of a piece, cut to pages; may be empty.
Piece PartOf(const Piece& piece, uint64_t k, uint64_t n);

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_REPLAY_FILES_H_
