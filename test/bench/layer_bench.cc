// What making a layer costs and of what it is made: digests alone and together, CRC, one zstd over the same frames as control, whole layers.
// bytes_per_second counts bytes of the tar; CPU is that of all threads.
//   build/release/test/layer_bench [--benchmark_filter=Layer]
#include <benchmark/benchmark.h>
#include <zstd.h>

#include <array>
#include <memory>
#include <random>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/sha256_lane.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/crc64.h"
#include "fusefs/format/layer_writer.h"
#include "test/format/layer_fixture.h"

namespace headrace::format::test {
namespace {

constexpr size_t kMiB = 1 << 20;
constexpr size_t kChunk = 4 * kMiB;
constexpr size_t kLarge = 64 * kMiB;

const std::string& Weights() {
  static const std::string weights = [] {
    std::mt19937_64 random(1);
    return RandomWeights(random, kLarge);
  }();
  return weights;
}

void SetBytes(benchmark::State& state, size_t bytes) {
  state.SetBytesProcessed(static_cast<int64_t>(static_cast<size_t>(state.iterations()) * bytes));
}

void Sha256OfOpenSsl(benchmark::State& state) {
  const std::string& data = Weights();  // made before the clock runs
  for (auto _ : state) benchmark::DoNotOptimize(Digest::Of(AsBytes(data)));
  SetBytes(state, kLarge);
}

void Sha256Lanes(benchmark::State& state) {
  std::array<Sha256Lane, Sha256Lane::kTogetherMax> lanes;
  std::vector<Sha256Lane*> used;
  for (int64_t i = 0; i < state.range(0); ++i) used.push_back(&lanes[static_cast<size_t>(i)]);
  for (auto _ : state) UpdateLanes(used, AsBytes(Weights()));
  SetBytes(state, kLarge);
}

void TwoChunks(benchmark::State& state) {
  const auto data = AsBytes(Weights());
  for (auto _ : state) benchmark::DoNotOptimize(DigestsOfTwo(data.first(kLarge / 2), data.subspan(kLarge / 2)));
  SetBytes(state, kLarge);
}

void Crc(benchmark::State& state) {
  Crc64 crc(state.range(0) == 0 ? Crc64::Engine::kTables : Crc64::Engine::kFastest);
  for (auto _ : state) crc.Update(AsBytes(Weights()));
  SetBytes(state, kLarge);
}

// The control of the layers: each chunk compressed, and one digest of what comes out, on one thread.
void ZstdAndOneDigest(benchmark::State& state) {
  std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> zstd(ZSTD_createCCtx(), &ZSTD_freeCCtx);
  std::vector<uint8_t> frame(ZSTD_compressBound(kChunk));
  for (auto _ : state) {
    Sha256 digest;
    for (size_t at = 0; at < kLarge; at += kChunk) {
      const size_t size = ZSTD_compressCCtx(zstd.get(), frame.data(), frame.size(), Weights().data() + at, kChunk, 3);
      digest.Update(std::span(frame).first(size));
    }
    benchmark::DoNotOptimize(digest.Finish());
  }
  SetBytes(state, kLarge);
}

void WriteLayer(benchmark::State& state, const std::string& tar) {
  LayerWriterOptions options;
  options.threads = static_cast<unsigned>(state.range(0));
  for (auto _ : state) {
    auto writer = LayerWriter::Create(options, [](std::span<const uint8_t>) { return OkStatus(); });
    Status status = writer.status();
    for (size_t at = 0; at < tar.size() && status.ok(); at += 256 << 10) {
      status = (*writer)->Write(AsBytes(std::string_view(tar).substr(at, 256 << 10)));
    }
    if (status.ok()) status = (*writer)->Finish().status();
    if (!status.ok()) state.SkipWithError(status.ToString().c_str());
  }
  SetBytes(state, tar.size());
}

void LayerOfOneFile(benchmark::State& state) { WriteLayer(state, TarFile("./model", Weights()) + TarEnd()); }

void LayerOfSmallFiles(benchmark::State& state) {
  std::string tar;
  for (size_t i = 0; tar.size() < kLarge / 2; ++i) tar += TarFile("./f" + std::to_string(i), Weights().substr(i * 64, i * 7919 % 20000));
  WriteLayer(state, tar + TarEnd());
}

BENCHMARK(Sha256OfOpenSsl);
BENCHMARK(Sha256Lanes)->DenseRange(1, Sha256Lane::kTogetherMax);
BENCHMARK(TwoChunks);
BENCHMARK(Crc)->ArgName("fastest")->DenseRange(0, 1);
BENCHMARK(ZstdAndOneDigest)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(LayerOfOneFile)->ArgName("threads")->Arg(1)->Arg(2)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(LayerOfSmallFiles)->ArgName("threads")->Arg(1)->Arg(2)->MeasureProcessCPUTime()->UseRealTime();

}  // namespace
}  // namespace headrace::format::test

BENCHMARK_MAIN();
