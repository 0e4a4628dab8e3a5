#include "integration/tools/bench/floor.h"

#include <fcntl.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/format/toc.h"
#include "integration/tools/bench/common.h"
#include "integration/tools/bench/layout.h"
#include "integration/tools/bench/memory.h"
#include "integration/tools/bench/replay_files.h"
#include "snapshotter/cli/layout_store.h"
#include "snapshotter/cli/lazy_layer.h"

namespace headrace::bench {
namespace {

constexpr uint64_t kCopyBytes = 64 * kMib;  // where copies go, for each thread: well above its share of the last-level cache
constexpr uint64_t kReadBytes = 16 * kMib;

double ThreadCpu() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

struct OpenLayer {
  UniqueFd fd;
  cli::LazyLayer lazy;
};

struct Work {
  size_t layer = 0;
  size_t chunk = 0;
};

std::vector<OpenLayer> OpenLayers(const std::string& directory) {
  cli::LayoutLocation location;
  location.path = directory;
  const auto reader = Get(cli::OpenLayoutReader(location));
  std::vector<OpenLayer> layers;
  for (const cli::Descriptor& layer : ReadLayout(directory, "").layers) {
    layers.push_back({Get(OpenFile(BlobPath(directory, layer.digest), O_RDONLY)), Get(cli::ReadLazyLayer(*reader, layer))});
  }
  return layers;
}

std::vector<Work> PlanWork(const std::vector<OpenLayer>& layers, uint64_t limit) {
  std::vector<Work> out;
  uint64_t bytes = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    const std::vector<format::Chunk>& chunks = layers[l].lazy.index.chunks;
    for (size_t c = 0; c < chunks.size() && (limit == 0 || bytes < limit); ++c) {
      if (chunks[c].kind != format::ChunkKind::kStored) continue;
      out.push_back({l, c});
      bytes += chunks[c].size;
    }
  }
  return out;
}

// Decode, verify, copy; what is timed.
void OneChunk(const format::Chunk& chunk, const std::vector<uint8_t>& compressed, uint8_t* decoded, uint8_t* copy) {
  CheckOk(format::DecodeChunk(chunk, compressed, {decoded, chunk.size}));
  memcpy(copy, decoded, chunk.size);
}

}  // namespace

CpuFloor MeasureCpuFloor(const std::string& layout, unsigned threads, uint64_t limit) {
  const std::vector<OpenLayer> layers = OpenLayers(layout);
  const std::vector<Work> work = PlanWork(layers, limit);
  uint64_t largest = kHugePage;
  for (const Work& w : work) largest = std::max(largest, layers[w.layer].lazy.index.chunks[w.chunk].size);
  largest = (largest + kPage - 1) / kPage * kPage;
  const HugeMemory memory((kCopyBytes + largest) * threads);
  CpuFloor total;
  std::mutex mutex;
  std::atomic<size_t> next{0};
  Parallel(threads, [&](unsigned thread) {
    uint8_t* const decoded = memory.data() + (kCopyBytes + largest) * thread;
    Ring copies(decoded + largest, std::max(kCopyBytes / largest, uint64_t{1}) * largest);
    CpuFloor own;
    std::vector<uint8_t> compressed;
    for (size_t i; (i = next++) < work.size();) {
      const OpenLayer& layer = layers[work[i].layer];
      const format::Chunk& chunk = layer.lazy.index.chunks[work[i].chunk];
      compressed.resize(chunk.blob_size);
      if (Get(PreadFull(layer.fd.get(), compressed, chunk.blob_offset)) != chunk.blob_size) Fail("a blob ends early");
      uint8_t* const copy = copies.Next(chunk.size);
      const double begin = Now(), cpu = ThreadCpu();
      OneChunk(chunk, compressed, decoded, copy);
      own.cpu_s += ThreadCpu() - cpu;
      own.seconds += Now() - begin;
      own.bytes += chunk.size;
      own.compressed_bytes += chunk.blob_size;
    }
    const std::lock_guard lock(mutex);
    total.bytes += own.bytes;
    total.compressed_bytes += own.compressed_bytes;
    total.cpu_s += own.cpu_s;
    total.seconds = std::max(total.seconds, own.seconds);
  });
  return total;
}

ReadFloor MeasureReadFloor(const std::string& directory, unsigned threads) {
  const Model model = ListModel(directory, 0);
  const std::vector<Piece> blocks = CutIntoBlocks(model.shards, kReadBytes);
  const HugeMemory memory(2 * kReadBytes * threads);
  ReadFloor result;
  std::atomic<size_t> next{0};
  const double cpu = OwnCpu(), begin = Now();
  std::vector<UniqueFd> fds;
  for (const ModelFile& file : model.shards) fds.push_back(Get(OpenFile(file.path, O_RDONLY)));
  Parallel(threads, [&](unsigned thread) {
    Ring ring(memory.data() + 2 * kReadBytes * thread, 2 * kReadBytes);
    for (size_t i; (i = next++) < blocks.size();) {
      const std::span<uint8_t> out(ring.Next(blocks[i].size()), blocks[i].size());
      if (Get(PreadFull(fds[blocks[i].file].get(), out, blocks[i].begin)) != out.size()) Fail("a file ends early");
    }
  });
  result.seconds = Now() - begin;
  result.cpu_s = OwnCpu() - cpu;
  result.bytes = model.bytes();
  return result;
}

}  // namespace headrace::bench
