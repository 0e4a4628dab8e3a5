// Goal: right bytes from a well-behaved source: single flight, coalescing, cache, zeros, seals, sharing between layers.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fusefs/base/file.h"
#include "test/stream/stream_fixture.h"

namespace headrace::stream {
namespace {

TEST_F(StreamTest, ColdThenCachedRead) {
  Start();
  source_.ServeEverything();
  FakeLayer layer;
  layer.AddGap(300);
  const uint32_t entry = layer.AddRandomFile("model", 5, 10'000, 1);
  auto content = Open(Publish(layer), entry);
  EXPECT_EQ(content->size(), 50'000u);
  ExpectBytes(Pending(*content, 12'345, 20'000).Wait(), layer.file(entry), 12'345, 20'000);
  EXPECT_EQ(source_.requests(), 1u);  // chunks 1 to 3 as one range
  EXPECT_EQ(Metrics::Get(metrics_.chunk_fetches), 3);
  ASSERT_TRUE(Eventually([&] { return Metrics::Get(metrics_.cache_write_bytes) == 30'000; }));
  ExpectBytes(Pending(*content, 10'000, 30'000).Wait(), layer.file(entry), 10'000, 30'000);
  EXPECT_EQ(source_.requests(), 1u);
  EXPECT_GE(Metrics::Get(metrics_.cache_hit_bytes), 30'000);
  EXPECT_EQ(Metrics::Get(metrics_.reads_waiting), 0);
}

TEST_F(StreamTest, EndsOfTheFileAndBadSizes) {
  Start();
  source_.ServeEverything();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 2, 1000, 1);
  const uint32_t empty = layer.AddFile("empty", {}, {});
  const auto source = Publish(layer);
  auto content = Open(source, entry);
  ExpectBytes(Pending(*content, 1990, 100).Wait(), layer.file(entry), 1990, 100);
  EXPECT_TRUE(Pending(*content, 2000, 1).Wait().bytes.empty());
  EXPECT_OK(Pending(*content, uint64_t{1} << 63, 1 << 20).Wait().status);
  EXPECT_OK(Pending(*content, 0, 0).Wait().status);
  EXPECT_CODE(Pending(*content, 0, (16 << 20) + 1).Wait().status, StatusCode::kInvalidArgument);
  auto nothing = Open(source, empty);
  EXPECT_EQ(nothing->size(), 0u);
  EXPECT_FALSE(nothing->sealed());
  ExpectBytes(Pending(*nothing, 0, 10).Wait(), {}, 0, 0);
  EXPECT_CODE(streamer_->Open(source, 99), StatusCode::kInvalidArgument);
}

TEST_F(StreamTest, ManyReadersOfOneChunkShareOneFetch) {
  Start();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 4, 10'000, 1);
  auto content = Open(Publish(layer), entry);
  std::vector<Pending> reads;
  for (uint64_t i = 0; i < 20; ++i) reads.emplace_back(*content, 10'000 + i * 100, 500);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  EXPECT_FALSE(source_.HasNext());
  EXPECT_EQ(Metrics::Get(metrics_.chunk_joins), 19);
  EXPECT_EQ(Metrics::Get(metrics_.reads_waiting), 20);
  request->Serve(777);
  for (uint64_t i = 0; i < 20; ++i) ExpectBytes(reads[i].Wait(), layer.file(entry), 10'000 + i * 100, 500);
  EXPECT_EQ(source_.requests(), 1u);
  EXPECT_EQ(Metrics::Get(metrics_.reads_waiting), 0);
}

// A chunk is answered when its own bytes are there, not when the range is.
TEST_F(StreamTest, ChunksAreAnsweredAsTheBodyArrives) {
  Start();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 4, 10'000, 1);
  const auto source = Publish(layer);
  auto content = Open(source, entry);
  Pending whole(*content, 0, 40'000);
  Pending first(*content, 0, 10'000);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  EXPECT_TRUE(request->Deliver(source->index->chunks[0].blob_size - 1));
  EXPECT_FALSE(first.ready());
  EXPECT_TRUE(request->Deliver(1));
  ExpectBytes(first.Wait(), layer.file(entry), 0, 10'000);
  EXPECT_FALSE(whole.ready());
  request->Serve(1);
  ExpectBytes(whole.Wait(), layer.file(entry), 0, 40'000);
}

TEST_F(StreamTest, RangesAreBoundedAndNotMadeOverGaps) {
  options_.range_bytes_max = 25'000;
  Start();
  source_.ServeEverything();
  FakeLayer layer;
  std::vector<uint8_t> bytes(60'000, 0);
  std::mt19937_64 random(3);
  for (size_t i = 0; i < 20'000; ++i) bytes[i] = bytes[i + 40'000] = static_cast<uint8_t>(random());
  const uint32_t holes = layer.AddFile("holes", bytes, std::vector<uint64_t>(6, 10'000), true);
  const uint32_t entry = layer.AddRandomFile("model", 5, 10'000, 1);
  const auto source = Publish(layer);
  ExpectBytes(Pending(*Open(source, entry), 0, 50'000).Wait(), layer.file(entry), 0, 50'000);
  EXPECT_EQ(source_.requests(), 3u);  // 2 + 2 + 1 chunks of a little over 10'000 bytes
  auto content = Open(source, holes);
  ExpectBytes(Pending(*content, 5'000, 50'000).Wait(), bytes, 5'000, 50'000);
  EXPECT_EQ(source_.requested_bytes(), layer.blob().size());
  ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
  ExpectBytes(Pending(*content, 0, 60'000).Wait(), bytes, 0, 60'000);
}

TEST_F(StreamTest, OnlyZerosNeedNoNetwork) {
  Start();
  FakeLayer layer;
  const std::vector<uint8_t> zeros(5000);
  auto content = Open(Publish(layer), layer.AddFile("zeros", zeros, {3000, 2000}, true));
  layer.AddRandomFile("other", 1, 10, 1);
  content = Open(layer.Source(), 0);
  ExpectBytes(Pending(*content, 100, 200).Wait(), zeros, 100, 200);
  ExpectBytes(Pending(*content, 2500, 2500).Wait(), zeros, 2500, 2500);
  EXPECT_EQ(source_.requests(), 0u);
  EXPECT_TRUE(Eventually([&] { return content->sealed(); }));
}

TEST_F(StreamTest, CompleteFileIsSealedAndItsDescriptorHasTheBytes) {
  Start();
  source_.ServeEverything();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 4, 10'000, 1);
  const auto source = Publish(layer);
  auto content = Open(source, entry);
  content->FetchAll();
  ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
  std::vector<uint8_t> got(40'000);
  ASSERT_EQ(pread(content->backing_fd(), got.data(), got.size(), 0), 40'000);
  EXPECT_EQ(got, layer.file(entry));
  EXPECT_EQ(fcntl(content->backing_fd(), F_GETFL) & O_ACCMODE, O_RDONLY);
  const uint64_t requests = source_.requests();
  content->FetchAll();
  EXPECT_EQ(source_.requests(), requests);
  EXPECT_EQ(streamer_->ResidentBytes(*source), 40'000u);
  content.reset();
  Start();
  content = Open(source, entry);
  EXPECT_TRUE(content->sealed());
  ExpectBytes(Pending(*content, 1, 39'000).Wait(), layer.file(entry), 1, 39'000);
  EXPECT_EQ(source_.requests(), requests);
}

TEST_F(StreamTest, FetchAllIsJoinedByReadsAndFetchesOnce) {
  Start();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("small", 4, 1000, 1);
  auto content = Open(Publish(layer), entry);
  content->FetchAll();
  content->FetchAll();
  Pending read(*content, 500, 3000);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  EXPECT_FALSE(source_.HasNext());
  request->Serve(100);
  ExpectBytes(read.Wait(), layer.file(entry), 500, 3000);
  EXPECT_TRUE(Eventually([&] { return content->sealed(); }));
}

TEST_F(StreamTest, OneContentInTwoLayersIsOneObjectAndOneFetch) {
  Start();
  source_.ServeEverything();
  FakeLayer a("registry.test/a:1"), b("registry.test/b:1");
  b.AddGap(77);
  a.AddRandomFile("x", 3, 1000, 9);
  b.AddRandomFile("y", 3, 1000, 9);
  auto from_a = Open(Publish(a), 0);
  auto from_b = Open(Publish(b), 0);
  EXPECT_EQ(from_a, from_b);
  ExpectBytes(Pending(*from_b, 0, 3000).Wait(), a.file(0), 0, 3000);
  EXPECT_EQ(source_.requests(), 1u);
}

TEST_F(StreamTest, ResidentBytesCountsWhatIsHere) {
  Start();
  source_.ServeEverything();
  FakeLayer layer;
  layer.AddRandomFile("a", 3, 1000, 1);
  layer.AddRandomFile("b", 3, 1000, 2);
  const auto source = Publish(layer);
  EXPECT_EQ(streamer_->ResidentBytes(*source), 0u);
  ExpectBytes(Pending(*Open(source, 1), 1500, 10).Wait(), layer.file(1), 1500, 10);
  EXPECT_TRUE(Eventually([&] { return streamer_->ResidentBytes(*source) == 1000; }));
}

// The budget lets one range run at a time; everybody is served in the end and nothing is fetched twice.
TEST_F(StreamTest, ATinyBudgetStillServesEverybody) {
  options_.inflight_bytes_max = 1;
  Start();
  source_.ServeEverything();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 20, 5'000, 1);
  auto content = Open(Publish(layer), entry);
  std::vector<Pending> reads;
  for (uint64_t i = 0; i < 20; ++i) reads.emplace_back(*content, i * 5'000, 5'000);
  for (uint64_t i = 0; i < 20; ++i) ExpectBytes(reads[i].Wait(), layer.file(entry), i * 5'000, 5'000);
  EXPECT_EQ(source_.requested_bytes(), layer.blob().size());
}

TEST_F(StreamTest, ACallbackMayReadAgain) {
  Start();
  source_.ServeEverything();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("model", 3, 1000, 1);
  auto content = Open(Publish(layer), entry);
  std::promise<Status> done;
  content->Read(0, 10, [&](Status, std::span<const uint8_t>) {
    content->Read(1000, 10, [&](Status, std::span<const uint8_t>) {
      content->Read(0, 2500, [&](Status status, std::span<const uint8_t>) { done.set_value(status); });
    });
  });
  auto future = done.get_future();
  ASSERT_EQ(future.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_OK(future.get());
}

TEST_F(StreamTest, OptionsThatCannotBeAreRefused) {
  Start();
  options_.read_deadline = milliseconds(0);
  EXPECT_CODE(Streamer::Create(options_, *store_, source_, *pool_, *timer_, metrics_), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace headrace::stream
