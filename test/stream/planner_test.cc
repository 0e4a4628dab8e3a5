// Goal: what nobody asked for comes in the right order, once, within its bounds: whole files, next shards, fill; and it stops where it must.
#include "fusefs/stream/neighbours.h"
#include "test/stream/stream_fixture.h"

namespace headrace::stream {
namespace {

constexpr uint64_t kChunk = 10'000;

class PlannerTest : public StreamTest {
 protected:
  PlannerTest() {
    options_.small_file_bytes = 0;
    options_.range_bytes_max = 3 * kChunk;
    options_.ranges_first = options_.ranges_max = 2;
    options_.fill_rate = 0;
  }
  // `shards` more layers of one file each.
  void MakeShards(unsigned shards, uint32_t chunks) {
    for (unsigned i = 0; i < shards; ++i) {
      layers_.emplace_back();
      const auto number = static_cast<unsigned>(layers_.size());
      layers_.back().AddRandomFile("models/model-" + std::to_string(number) + ".safetensors", chunks, kChunk, number);
      sources_.push_back(Publish(layers_.back()));
    }
  }
  void Attach() {
    for (const auto& source : sources_) streamer_->AddToImage("image", source, true);
  }
  // A file beside the shards, which nobody reads.
  std::shared_ptr<const LayerSource> AddOther(const std::string& name, uint32_t chunks) {
    others_.emplace_back().AddRandomFile(name, chunks, kChunk, 77);
    auto source = Publish(others_.back());
    streamer_->AddToImage("image", source, true);
    return source;
  }
  bool AllHere(unsigned shard) {
    return Eventually([&] { return streamer_->ResidentBytes(*sources_[shard]) == layers_[shard].file(0).size(); });
  }

  std::deque<FakeLayer> layers_;
  std::deque<FakeLayer> others_;
  std::vector<std::shared_ptr<const LayerSource>> sources_;
};

TEST_F(PlannerTest, AModelIsFetchedWholeFromItsFirstTouchOnce) {
  Start();
  source_.ServeEverything();
  MakeShards(1, 20);
  auto content = Open(sources_[0], 0);
  ExpectBytes(Pending(*content, 0, 8).Wait(), layers_[0].file(0), 0, 8);
  ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
  EXPECT_EQ(source_.requested_bytes(), layers_[0].blob().size());
  EXPECT_EQ(Metrics::Get(metrics_.ranges_demand), 1);
  EXPECT_GE(Metrics::Get(metrics_.ranges_read_ahead), 7);
}

// The first megabyte of a large file comes in several ranges at once.
TEST_F(PlannerTest, TheHeadIsFetchedSideBySide) {
  options_.read_ahead = false;
  options_.range_bytes_max = 8 << 20;
  Start();
  source_.ServeEverything();
  FakeLayer layer;
  const uint32_t entry = layer.AddRandomFile("m.safetensors", 40, 64 << 10, 1);
  auto content = Open(Publish(layer), entry);
  ExpectBytes(Pending(*content, 0, 1 << 20).Wait(), layer.file(entry), 0, 1 << 20);
  EXPECT_EQ(source_.requests(), 16u);
}

TEST_F(PlannerTest, OnlyWhatIsReadWithoutReadAhead) {
  options_.read_ahead = false;
  Start();
  source_.ServeEverything();
  MakeShards(1, 20);
  auto content = Open(sources_[0], 0);
  ExpectBytes(Pending(*content, 0, 8).Wait(), layers_[0].file(0), 0, 8);
  EXPECT_EQ(source_.requests(), 1u);
}

// The kernel reads ahead in several requests, in any order: all of them are asked for before anything is planned, or the head of the file would wait for a connection.
TEST_F(PlannerTest, TheFirstReadsOfAFileComeBeforeThePlan) {
  Start();
  Mutex mu;
  std::vector<uint64_t> offsets;
  source_.SetScript([&](const std::shared_ptr<FakeRequest>& request, uint64_t) {
    {
      MutexLock lock(mu);
      offsets.push_back(request->offset);
    }
    request->Serve();
  });
  unsigned quick = 0;
  for (unsigned i = 0; i < 200 && quick < 10; ++i) {
    MakeShards(1, 30);
    auto content = Open(sources_[i], 0);
    {
      MutexLock lock(mu);
      offsets.clear();
    }
    const auto start = std::chrono::steady_clock::now();
    Pending second(*content, 6 * kChunk, 8);
    std::this_thread::sleep_for(std::chrono::microseconds(500));  // time enough for the planner
    Pending first(*content, 0, 8);
    const auto took = std::chrono::steady_clock::now() - start;
    ASSERT_OK(second.Wait().status);
    ASSERT_OK(first.Wait().status);
    ASSERT_TRUE(AllHere(i));
    MutexLock lock(mu);
    const auto& chunks = sources_[i]->index->chunks;
    if (took >= milliseconds(2)) continue;  // this thread was kept from the processor for longer than the planner waits
    ++quick;
    ASSERT_GT(offsets.size(), 2u);
    EXPECT_EQ(offsets[0], chunks[6].blob_offset);
    EXPECT_EQ(offsets[1], chunks[0].blob_offset);
  }
  EXPECT_GE(quick, 10u);
}

// A reader that misses is served before what is planned, and joins what is under way instead of fetching it again.
TEST_F(PlannerTest, TheWindowIsKeptAndAMissGoesFirst) {
  Start();
  MakeShards(1, 60);
  auto content = Open(sources_[0], 0);
  Pending head(*content, 0, 8);
  auto demand = source_.Next();
  ASSERT_TRUE(demand);
  EXPECT_EQ(demand->offset, 0u);
  auto planned = source_.Next();  // one: with the demanded one the window of two is full
  ASSERT_TRUE(planned);
  EXPECT_FALSE(source_.HasNext());
  Pending joined(*content, kChunk, 100);
  EXPECT_FALSE(source_.HasNext());
  Pending miss(*content, 50 * kChunk, 100);
  auto missed = source_.Next();
  ASSERT_TRUE(missed);
  EXPECT_EQ(missed->offset, sources_[0]->index->chunks[50].blob_offset);
  for (const auto& request : {missed, planned, demand}) request->Serve(777);
  ExpectBytes(miss.Wait(), layers_[0].file(0), 50 * kChunk, 100);
  ExpectBytes(joined.Wait(), layers_[0].file(0), kChunk, 100);
  ExpectBytes(head.Wait(), layers_[0].file(0), 0, 8);
  source_.ServeEverything();
  // Those that came before the script did.
  while (source_.HasNext()) source_.Next()->Serve();
  ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
  EXPECT_EQ(source_.requested_bytes(), layers_[0].blob().size());
}

TEST_F(PlannerTest, NextShardsFollowInNaturalOrder) {
  Start();
  std::vector<Digest> order;
  std::mutex mu;
  MakeShards(12, 4);
  Attach();
  source_.SetScript([&](const std::shared_ptr<FakeRequest>& request, uint64_t) {
    {
      std::lock_guard lock(mu);
      if (order.empty() || order.back() != request->blob.digest) order.push_back(request->blob.digest);
    }
    request->Serve();
  });
  auto content = Open(sources_[1], 0);
  ExpectBytes(Pending(*content, 0, 8).Wait(), layers_[1].file(0), 0, 8);
  for (unsigned i = 0; i < 12; ++i) ASSERT_TRUE(AllHere(i)) << i;
  std::lock_guard lock(mu);
  ASSERT_GE(order.size(), 12u);
  for (unsigned i = 0; i < 12; ++i) EXPECT_EQ(order[i], layers_[(1 + i) % 12].blob_digest()) << i;
  uint64_t all = 0;
  for (const FakeLayer& layer : layers_) all += layer.blob().size();
  EXPECT_EQ(source_.requested_bytes(), all);
}

TEST_F(PlannerTest, TheRestOfTheImageIsFilledIfItMayBe) {
  options_.fill_rate = uint64_t{1} << 30;
  Start();
  source_.ServeEverything();
  MakeShards(1, 4);
  FakeLayer foreign;
  foreign.AddRandomFile("extra/data2", 5, kChunk, 78);
  const auto elsewhere = Publish(foreign);
  Attach();
  const auto in_image = AddOther("extra/data", 5);
  streamer_->AddToImage("another image", elsewhere, true);
  ExpectBytes(Pending(*Open(sources_[0], 0), 0, 8).Wait(), layers_[0].file(0), 0, 8);
  EXPECT_TRUE(Eventually([&] { return streamer_->ResidentBytes(*in_image) == 5 * kChunk; }));
  EXPECT_EQ(streamer_->ResidentBytes(*elsewhere), 0u);
  EXPECT_GT(Metrics::Get(metrics_.ranges_fill), 0);
}

TEST_F(PlannerTest, FillBeginsWhenItsRateIsSet) {
  Start();
  source_.ServeEverything();
  MakeShards(1, 4);
  Attach();
  const auto in_image = AddOther("extra/data", 5);
  ExpectBytes(Pending(*Open(sources_[0], 0), 0, 8).Wait(), layers_[0].file(0), 0, 8);
  ASSERT_TRUE(AllHere(0));
  EXPECT_EQ(Metrics::Get(metrics_.ranges_fill), 0);
  streamer_->SetFillRate(uint64_t{1} << 30);
  EXPECT_TRUE(Eventually([&] { return streamer_->ResidentBytes(*in_image) == 5 * kChunk; }));
}

TEST_F(PlannerTest, FillKeepsToItsRate) {
  options_.fill_rate = 100'000;
  Start();
  source_.ServeEverything();
  MakeShards(1, 1);
  Attach();
  const auto in_image = AddOther("data", 1000);
  const auto start = std::chrono::steady_clock::now();
  ExpectBytes(Pending(*Open(sources_[0], 0), 0, 8).Wait(), layers_[0].file(0), 0, 8);
  ASSERT_TRUE(Eventually([&] { return streamer_->ResidentBytes(*in_image) >= 8 * kChunk; }));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  // A range and a tenth of a second's worth may come early.
  EXPECT_LE(static_cast<double>(streamer_->ResidentBytes(*in_image)), seconds * 100'000 + 3 * kChunk + 10'000 + 3 * kChunk);
}

// A registry that is away is asked by one range at a time, and everything comes when it is back.
TEST_F(PlannerTest, FailuresRestAndComeAgain) {
  Start();
  MakeShards(1, 30);
  std::atomic<bool> away{true};
  source_.SetScript([&](const std::shared_ptr<FakeRequest>& request, uint64_t number) {
    if (number > 0 && away) return request->Finish(UnavailableError("away"));
    request->Serve();
  });
  auto content = Open(sources_[0], 0);
  ExpectBytes(Pending(*content, 0, 8).Wait(), layers_[0].file(0), 0, 8);
  ASSERT_TRUE(Eventually([&] { return source_.requests() > 5; }));
  EXPECT_FALSE(content->sealed());
  away = false;
  ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
}

// What is fetched ahead leaves a registry alone for as long as it wishes.
TEST_F(PlannerTest, ThePlanKeepsToRetryAfter) {
  Start();
  MakeShards(1, 30);
  auto content = Open(sources_[0], 0);
  Pending read(*content, 0, 8);
  auto demand = source_.Next();
  ASSERT_TRUE(demand);
  demand->Serve();
  auto planned = source_.Next();
  ASSERT_TRUE(planned);
  auto beside = source_.Next();  // the window is two ranges
  ASSERT_TRUE(beside);
  const auto start = std::chrono::steady_clock::now();
  planned->Finish(ResourceExhaustedError("429").WithRetryAfter(milliseconds(700)));
  beside->Finish(ResourceExhaustedError("429"));
  ASSERT_TRUE(source_.Next());
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(700));
  source_.ServeEverything();
}

// A chunk that the registry has wrong is not fetched for ever by nobody; readers still get their error, the rest comes.
TEST_F(PlannerTest, AWrongChunkIsGivenUp) {
  options_.read_deadline = milliseconds(200);
  Start();
  MakeShards(1, 30);
  const format::Chunk bad = sources_[0]->index->chunks[10];
  source_.SetScript([bad](const std::shared_ptr<FakeRequest>& request, uint64_t) {  // by value: a try may outlive this body
    if (request->offset <= bad.blob_offset && bad.blob_offset < request->offset + request->bytes.size()) {
      request->bytes[bad.blob_offset - request->offset + bad.blob_size / 2] ^= 1;
    }
    request->Serve();
  });
  auto content = Open(sources_[0], 0);
  ExpectBytes(Pending(*content, 0, 8).Wait(), layers_[0].file(0), 0, 8);
  ASSERT_TRUE(Eventually([&] { return streamer_->ResidentBytes(*sources_[0]) == 29 * kChunk; }));
  ASSERT_TRUE(Eventually([&] { return Metrics::Get(metrics_.chunk_digest_mismatches) >= 4; }));
  const uint64_t requests = source_.requests();
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_LE(source_.requests(), requests + 1);
  EXPECT_CODE(Pending(*content, 10 * kChunk, 8).Wait().status, StatusCode::kDataLoss);
}

TEST_F(PlannerTest, NothingMoreIsPlannedForALayerThatWent) {
  Start();
  MakeShards(2, 40);
  Attach();
  auto content = Open(sources_[0], 0);
  Pending head(*content, 0, 8);
  auto demand = source_.Next();
  auto planned = source_.Next();
  ASSERT_TRUE(demand && planned);
  for (const auto& source : sources_) streamer_->RemoveFromImage("image", source);
  demand->Serve();
  planned->Serve();
  ExpectBytes(head.Wait(), layers_[0].file(0), 0, 8);
  // What was decided before the layer went may still come; the rest of 80 chunks does not.
  source_.ServeEverything();
  while (source_.HasNext()) source_.Next()->Serve();
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_LE(streamer_->ResidentBytes(*sources_[0]) + streamer_->ResidentBytes(*sources_[1]), 20 * kChunk);
}

// After a reboot the cache is not believed: what is planned is checked against its digests, not fetched again.
TEST_F(PlannerTest, UnverifiedChunksAreCheckedAhead) {
  Start();
  source_.ServeEverything();
  MakeShards(1, 12);
  options_.read_ahead = false;
  Start();
  ExpectBytes(Pending(*Open(sources_[0], 0), 0, 9 * kChunk).Wait(), layers_[0].file(0), 0, 9 * kChunk);
  ASSERT_TRUE(Eventually([&] { return streamer_->ResidentBytes(*sources_[0]) == 9 * kChunk; }));
  options_.read_ahead = true;
  Start();
  auto content = Open(sources_[0], 0);
  ExpectBytes(Pending(*content, 0, 8).Wait(), layers_[0].file(0), 0, 8);
  ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
  EXPECT_EQ(source_.requested_bytes(), layers_[0].blob().size());
}

class SmallFilesTest : public PlannerTest {
 protected:
  SmallFilesTest() {
    options_.small_file_bytes = 1 << 20;
    options_.ranges_first = options_.ranges_max = 8;
  }
  void MakeTree(unsigned files) {
    for (unsigned i = 0; i < files; ++i) tree_.AddRandomFile("usr/share/" + std::to_string(i), 1, 1000 + i, i + 1);
    source = Publish(tree_);
    streamer_->AddToImage("image", source, true);
  }
  // As kernel/ opens a small file.
  void OpenSmall(uint32_t entry) {
    auto content = Open(source, entry);
    content->FetchAll();
    ExpectBytes(Pending(*content, 0, 5000).Wait(), tree_.file(entry), 0, 5000);
  }
  bool Here(uint32_t entry) {
    auto content = streamer_->Open(source, entry);  // an open of its own, so only what must be here may be asked for
    return content.ok() && (*content)->complete();
  }

  FakeLayer tree_;
  std::shared_ptr<const LayerSource> source;
};

// Who opens one small file after the other finds those behind them there; each byte comes once.
TEST_F(SmallFilesTest, AWalkFindsTheNextFilesThere) {
  Start();
  source_.ServeEverything();
  MakeTree(300);
  for (uint32_t i = 0; i < 10; ++i) OpenSmall(i);
  ASSERT_TRUE(Eventually([&] { return streamer_->ResidentBytes(*source) > 100 * 1000; }));
  ASSERT_TRUE(Here(9 + Neighbours::kAheadMax / 2));
  for (uint32_t i = 10; i < 300; ++i) OpenSmall(i);
  EXPECT_EQ(source_.requested_bytes(), tree_.blob().size());
  EXPECT_EQ(source_.requests(), 300u);
}

// Opens here and there ask for nothing more than themselves.
TEST_F(SmallFilesTest, OpensHereAndThereAskForNothingMore) {
  Start();
  source_.ServeEverything();
  MakeTree(1500);
  for (uint32_t entry : {700u, 10u, 1300u, 400u, 1000u}) OpenSmall(entry);
  EXPECT_EQ(source_.requests(), 5u);
}

}  // namespace
}  // namespace headrace::stream
