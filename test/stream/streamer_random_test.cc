// Goal: many threads reading random ranges of several files through a source that fails, spoils, cuts and delays at random see exactly
// the bytes of the reference model, across restarts, and every chunk is fetched at most about once.
#include <atomic>

#include "fusefs/base/little_endian.h"
#include "test/stream/stream_fixture.h"

namespace headrace::stream {
namespace {

class RandomTest : public StreamTest {
 protected:
  uint32_t AddRandomCutFile(FakeLayer& layer, const std::string& name) {
    std::vector<uint64_t> cuts(1 + random_() % 40);
    uint64_t size = 0;
    for (uint64_t& cut : cuts) size += cut = 1 + random_() % 9'000;
    std::vector<uint8_t> bytes(size);
    uint64_t at = 0;
    for (const uint64_t cut : cuts) {
      const auto kind = random_() % 4;  // zeros, text-like, noise
      for (uint64_t i = 0; i < cut; ++i, ++at) {
        bytes[at] = kind == 0 ? uint8_t{0} : kind == 1 ? static_cast<uint8_t>('a' + i % 7) : static_cast<uint8_t>(random_());
      }
    }
    return layer.AddFile(name, std::move(bytes), cuts, random_() % 2 == 0);
  }
  void Reader(unsigned long seed, const FakeLayer& layer, const std::shared_ptr<const LayerSource>& source, int reads) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < reads; ++i) {
      const uint32_t entry = static_cast<uint32_t>(random() % source->index->entries.size());
      auto content = Open(source, entry);
      const std::vector<uint8_t>& file = layer.file(entry);
      if (random() % 16 == 0) content->FetchAll();
      const uint64_t offset = random() % (file.size() + 100);
      const uint64_t size = random() % 4 == 0 ? random() % 100'000 : random() % 5'000;
      ExpectBytes(Pending(*content, offset, size).Wait(), file, offset, size);
      if (HasFailure()) return;
    }
  }

  std::mt19937_64 random_;
};

TEST_F(RandomTest, ThreadsAgainstTheModel) {
  const unsigned long seed = test::TestSeed();
  random_.seed(seed);
  options_.inflight_bytes_max = 200'000;
  options_.range_bytes_max = 40'000;
  FakeLayer layer;
  for (int i = 0; i < 6; ++i) {
    layer.AddGap(random_() % 600);
    AddRandomCutFile(layer, "file" + std::to_string(i));
  }
  const auto source = Publish(layer);
  auto faults = std::make_shared<std::mt19937_64>(seed + 1);  // used on the source's thread only
  source_.SetScript([faults](const std::shared_ptr<FakeRequest>& request, uint64_t) {
    switch ((*faults)() % 12) {
      case 0: return request->Finish(UnavailableError("random"));
      case 1: request->bytes[(*faults)() % request->bytes.size()] ^= static_cast<uint8_t>(1 + (*faults)() % 255); break;
      case 2:
        request->Deliver((*faults)() % request->bytes.size());
        return request->Finish((*faults)() % 2 ? OkStatus() : UnavailableError("cut"));
      default: break;
    }
    request->Serve(1 + (*faults)() % 8'000);
  });
  for (int process = 0; process < 4; ++process) {
    Start();
    std::vector<std::thread> threads;
    for (unsigned long t = 0; t < 6; ++t) {
      threads.emplace_back([&, t] { Reader(seed + t * 1000 + static_cast<unsigned long>(process), layer, source, 60); });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(Metrics::Get(metrics_.reads_waiting), 0);
    if (HasFailure()) return;
  }
}

// Without faults the wire carries every compressed byte exactly once, whatever the readers do.
TEST_F(RandomTest, AmplificationIsOne) {
  const unsigned long seed = test::TestSeed();
  random_.seed(seed);
  options_.range_bytes_max = 30'000;
  FakeLayer layer;
  for (int i = 0; i < 3; ++i) AddRandomCutFile(layer, "file" + std::to_string(i));
  const auto source = Publish(layer);
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t) { request->Serve(1'000); });
  Start();
  std::vector<std::thread> threads;
  for (unsigned long t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] { Reader(seed + t, layer, source, 50); });
  }
  for (auto& thread : threads) thread.join();
  for (uint32_t entry = 0; entry < 3; ++entry) {
    auto content = Open(source, entry);
    content->FetchAll();
    ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
  }
  EXPECT_EQ(source_.requested_bytes(), layer.blob().size());
}

// A model of three caches: two read it forward at their own pace, one here and there, while what they have behind them is given back. Nothing wrong, nothing stuck, and the cache holds its budget.
TEST_F(RandomTest, AModelThatIsLargerThanTheCache) {
  const unsigned long seed = test::TestSeed();
  random_.seed(seed);
  constexpr uint64_t kSize = uint64_t{48} << 20, kCut = uint64_t{256} << 10;
  cache_budget_ = kSize / 3;
  options_.inflight_bytes_max = uint64_t{8} << 20;
  options_.range_bytes_max = uint64_t{1} << 20;
  FakeLayer layer;
  std::vector<uint8_t> bytes(kSize);
  for (uint64_t at = 0; at < kSize; at += 8) StoreLe64(bytes.data() + at, random_());
  layer.AddFile("model.gguf", std::move(bytes), std::vector<uint64_t>(kSize / kCut, kCut), true);
  const auto source = Publish(layer);
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t) { request->Serve(100'000); });
  Start();
  store_->SetMounted([] { return std::vector<Digest>(); });
  std::vector<std::thread> threads;
  const auto reader = [&](uint64_t step, unsigned long pause_us) {
    auto content = Open(source, 0);
    for (uint64_t at = 0; at < kSize && !HasFailure(); at += step) {
      ExpectBytes(Pending(*content, at, step).Wait(), layer.file(0), at, step);
      std::this_thread::sleep_for(std::chrono::microseconds(pause_us));  // a reader that computes
    }
  };
  threads.emplace_back([&] { reader(uint64_t{1} << 20, 2000); });
  threads.emplace_back([&] { reader(uint64_t{300} << 10, 3000); });
  threads.emplace_back([&] {
    std::mt19937_64 random(seed + 1);
    auto content = Open(source, 0);
    for (int i = 0; i < 100 && !HasFailure(); ++i) {
      const uint64_t at = random() % kSize, size = random() % 100'000;
      ExpectBytes(Pending(*content, at, size).Wait(), layer.file(0), at, size);
    }
  });
  for (auto& thread : threads) thread.join();
  EXPECT_GT(Metrics::Get(metrics_.cache_given_back_bytes), 0);
  EXPECT_LE(store_->Usage().used, cache_budget_);
}

}  // namespace
}  // namespace headrace::stream
