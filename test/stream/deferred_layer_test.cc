// DeferredLayer and BlockFetcher: a plain tar is read while it is being hashed; every byte is the tar's, every block is fetched once, and what turns out wrong is not read any more.
#include "fusefs/stream/deferred_layer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "fusefs/format/tar_indexer.h"
#include "test/format/layer_fixture.h"
#include "test/stream/noise.h"
#include "test/stream/stream_fixture.h"
#include "test/support/random_tree.h"

namespace headrace::stream {
namespace {

using format::test::Shell;

constexpr uint64_t kBlock = BlockFetcher::kBlockBytes;

class DeferredLayerTest : public StreamTest {
 protected:
  // Five large files with small ones between them; 61 MB, 15 blocks.
  void SetUp() override {
    Start();
    for (unsigned i = 0; i < 5; ++i) {
      Add("big-" + std::to_string(i), Noise(12'000'000 + 1000 * i, i));
      Add("small-" + std::to_string(i), Noise(100 + 70'000 * i, 10 + i));
    }
    SetTar(*test::ToTar(tree_));
  }
  void TearDown() override {
    if (layer_) layer_->Stop();
    layer_.reset();
  }
  void Add(const std::string& name, const std::string& bytes) {
    tree_.push_back(test::File(name, bytes));
    files_[name] = Bytes(bytes);
  }
  void SetTar(std::string tar) {
    tar_ = std::move(tar);
    format::TarWalk walk;
    ASSERT_OK(walk.Write({reinterpret_cast<const uint8_t*>(tar_.data()), tar_.size()}));
    auto table = walk.Finish(tar_.size());
    ASSERT_OK(table);
    auto index = format::ReadLearnedTable(*table);
    ASSERT_OK(index);
    walked_ = std::make_shared<const format::LayerIndex>(std::move(*index));
  }
  // Begins to read; the registry has `served` (the tar, unless the test spoils it) under the tar's digest.
  void Begin(std::string served = "") {
    if (served.empty()) served = tar_;
    DeferredRequest request;
    request.blob = {"registry.test/m:1", Digest::Of(tar_), false, tar_.size()};
    request.diff_id = request.blob.digest;
    request.walked = walked_;
    request.read_deadline = deadline_;
    request.pauses.retry_pause_min = milliseconds(2);
    request.pauses.retry_pause_max = milliseconds(20);
    source_.AddBlob(request.blob.digest, Bytes(served));
    layer_ = DeferredLayer::Create(request, {source_, *store_, *streamer_, *pool_, *timer_, metrics_, turns_}, [this](Result<LearnedTable> learned) {
      end_.set_value(std::move(learned));  // throws if it is called twice
    });
    lazy_ = std::make_shared<const LayerSource>(LayerSource{request.blob, walked_, layer_});
    layer_->Start();
  }
  Result<LearnedTable> End() {
    auto future = end_.get_future();
    if (future.wait_for(std::chrono::seconds(30)) != std::future_status::ready) return InternalError("the test waited 30 s for the end");
    return future.get();
  }
  // Requests of a kind wait until Release, all others are served. May outlive the round of the test that made it: so does the source's script.
  struct Held {
    std::mutex mu;
    bool released = false;
    std::vector<std::shared_ptr<FakeRequest>> requests;
  };
  std::shared_ptr<Held> HoldBack(std::function<bool(const FakeRequest&)> which) {
    auto held = std::make_shared<Held>();
    source_.SetScript([held, which = std::move(which)](const std::shared_ptr<FakeRequest>& request, uint64_t) {
      {
        std::lock_guard lock(held->mu);
        if (!held->released && which(*request)) return held->requests.push_back(request);
      }
      request->Serve();
    });
    return held;
  }
  static void Release(Held& held) {
    std::vector<std::shared_ptr<FakeRequest>> come;
    {
      std::lock_guard lock(held.mu);
      held.released = true;
      come.swap(held.requests);
    }
    for (const auto& request : come) request->Serve();
  }
  uint32_t EntryOf(const std::string& name) {
    for (uint32_t i = 0; i < walked_->entries.size(); ++i) {
      if (walked_->entries[i].name == name) return i;
    }
    ADD_FAILURE() << name;
    return 0;
  }
  uint64_t TarOffset(const std::string& name) { return walked_->chunks[walked_->entries[EntryOf(name)].first_chunk].blob_offset; }
  std::shared_ptr<FileContent> OpenFile(const std::string& name) { return Open(lazy_, EntryOf(name)); }
  void ExpectFile(FileContent& content, const std::string& name) {
    const std::vector<uint8_t>& wanted = files_.at(name);
    for (uint64_t at = 0; at < wanted.size(); at += 1 << 20) ExpectBytes(Pending(content, at, 1 << 20).Wait(), wanted, at, 1 << 20);
  }
  size_t StagedFiles() const {
    size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "cache/staged")) n += entry.exists();
    return n;
  }

  test::TreeLayer tree_;
  std::map<std::string, std::vector<uint8_t>> files_;
  std::string tar_;
  std::shared_ptr<const format::LayerIndex> walked_;
  std::shared_ptr<const LayerSource> lazy_;
  std::shared_ptr<DeferredLayer> layer_;
  std::promise<Result<LearnedTable>> end_;
  milliseconds deadline_{20'000};
  DeferredTurns turns_{1};
};

// Goal: everything is read right while it comes, the table is the learned one, every byte is fetched once, and nothing is left over.
TEST_F(DeferredLayerTest, ReadWhileItComes) {
  source_.ServeEverything();
  Begin();
  std::vector<std::shared_ptr<FileContent>> open;
  for (const auto& [name, bytes] : files_) {
    open.push_back(OpenFile(name));
    ExpectFile(*open.back(), name);
  }
  auto learned = End();
  ASSERT_OK(learned);
  auto index = format::ReadLearnedTable(learned->table);
  ASSERT_OK(index);
  EXPECT_EQ(format::CompareShapes(*index, *walked_), "");
  EXPECT_EQ(source_.requested_bytes(), tar_.size());
  uint64_t all = 0;
  for (const auto& [name, bytes] : files_) all += bytes.size();
  EXPECT_TRUE(Eventually([&] { return streamer_->ResidentBytes(*lazy_) == all; }));
  EXPECT_EQ(layer_->trust(), DeferredLayer::Trust::kVerified);
  // What was open can be passed through now, as what is opened anew.
  for (const auto& content : open) EXPECT_TRUE(Eventually([&] { return content->sealed(); }));
  for (const auto& [name, bytes] : files_) {
    auto content = OpenFile(name);
    EXPECT_TRUE(content->complete()) << name;
    ExpectFile(*content, name);
  }
  EXPECT_EQ(source_.requested_bytes(), tar_.size());
  layer_->Stop();
  EXPECT_EQ(StagedFiles(), 0u);
}

// Goal: a reader far behind the place of the hashing gets its block before that place has moved at all; nothing may be passed through before the end.
TEST_F(DeferredLayerTest, ReadersFirst) {
  const auto held = HoldBack([](const FakeRequest& request) { return request.offset / kBlock < BlockFetcher::kWindow; });
  Begin();
  auto far = OpenFile("big-4");
  ExpectBytes(Pending(*far, 3'000'000, 100'000).Wait(), files_.at("big-4"), 3'000'000, 100'000);
  ExpectFile(*far, "big-4");
  EXPECT_FALSE(far->sealed());
  EXPECT_FALSE(far->complete());
  Pending first(*OpenFile("big-0"), 0, 1000);
  EXPECT_FALSE(first.ready());
  Release(*held);
  ExpectBytes(first.Wait(), files_.at("big-0"), 0, 1000);
  ASSERT_OK(End());
  EXPECT_EQ(source_.requested_bytes(), tar_.size());
  EXPECT_TRUE(Eventually([&] { return Pending(*far, 0, 1).Wait().status.ok() && far->sealed(); }));
}

// Goal: random reads by many threads, through a registry that breaks off, refuses and sends too little: right bytes.
TEST_F(DeferredLayerTest, RandomReadsAndFaults) {
  const uint64_t seed = test::TestSeed();
  SCOPED_TRACE("HEADRACE_TEST_SEED=" + std::to_string(seed));
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t number) {
    switch (number % 5) {
      case 0:
        request->Deliver(request->bytes.size() / 2);
        return request->Finish(UnavailableError("connection reset"));
      case 1: return request->Finish(ResourceExhaustedError("429"));
      case 2:
        request->Deliver(1);
        return request->Finish(OkStatus());  // short
      default: return request->Serve(100'000);
    }
  });
  Begin();
  std::vector<std::thread> readers;
  for (unsigned r = 0; r < 6; ++r) {
    readers.emplace_back([this, seed, r] {
      std::mt19937_64 random(seed + r);
      for (int i = 0; i < 60; ++i) {
        auto it = std::next(files_.begin(), static_cast<ptrdiff_t>(random() % files_.size()));
        const uint64_t offset = random() % it->second.size();
        const uint64_t size = 1 + random() % (i % 7 == 0 ? 9'000'000 : 200'000);
        ExpectBytes(Pending(*OpenFile(it->first), offset, size).Wait(), it->second, offset, size);
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  ASSERT_OK(End());
  for (const auto& [name, bytes] : files_) ExpectFile(*OpenFile(name), name);
}

// Goal: one wrong bit anywhere, in a content or in a header, and after the end nothing is read any more, nor opened; what waits fails as well.
TEST_F(DeferredLayerTest, WrongBytesPoison) {
  for (const uint64_t at : {TarOffset("big-3") + 77, TarOffset("small-1") - 512 + 100}) {
    // Until a file was read: else the end may come first.
    const auto held = HoldBack([at](const FakeRequest& request) { return at - request.offset < request.bytes.size(); });
    std::string bad = tar_;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    end_ = {};
    Begin(bad);
    auto early = OpenFile("big-0");
    ExpectFile(*early, "big-0");
    Release(*held);
    EXPECT_FALSE(End().ok());
    EXPECT_EQ(layer_->trust(), DeferredLayer::Trust::kWrong);
    EXPECT_CODE(Pending(*early, 0, 1000).Wait().status, StatusCode::kDataLoss);
    EXPECT_FALSE(early->sealed());
    EXPECT_CODE(streamer_->Open(lazy_, EntryOf("big-1")), StatusCode::kDataLoss);
    layer_->Stop();
    layer_.reset();
  }
}

// Goal: right bytes under another tree than was shown are wrong too: names and sizes were read before the digest was known.
TEST_F(DeferredLayerTest, WrongTreePoisons) {
  source_.ServeEverything();
  format::LayerIndex other = *walked_;
  other.entries[0].mode ^= 0111;
  walked_ = std::make_shared<const format::LayerIndex>(std::move(other));
  Begin();
  auto end = End();
  EXPECT_CODE(end, StatusCode::kDataLoss);
  EXPECT_NE(end.status().message().find("shown"), std::string::npos) << end.status().message();
}

TEST_F(DeferredLayerTest, AnotherDiffId) {
  source_.ServeEverything();
  DeferredRequest request;
  request.blob = {"registry.test/m:1", Digest::Of(tar_), false, tar_.size()};
  request.diff_id = Digest::Of("another");
  request.walked = walked_;
  source_.AddBlob(request.blob.digest, Bytes(tar_));
  layer_ = DeferredLayer::Create(request, {source_, *store_, *streamer_, *pool_, *timer_, metrics_, turns_}, [this](Result<LearnedTable> learned) { end_.set_value(std::move(learned)); });
  layer_->Start();
  EXPECT_CODE(End(), StatusCode::kDataLoss);
}

// Goal: sparse files, files that are all hole, several of one name, hard links between them.
TEST_F(DeferredLayerTest, SparseAndOverwritten) {
  test::TempDir dir;
  ASSERT_OK(Shell("cd " + dir.path() + " && truncate -s 9000000 hole && truncate -s 30000000 s && printf data | dd of=s bs=1 seek=20000000 conv=notrunc status=none"
                  " && head -c 6000000 /dev/urandom > twice && cp twice old"));
  const std::string first = *Shell("cd " + dir.path() + " && tar --format=posix --sparse -cf - hole s twice");
  ASSERT_OK(Shell("cd " + dir.path() + " && head -c 7000000 /dev/urandom > twice"));
  const std::string second = *Shell("cd " + dir.path() + " && tar --format=posix --sparse -cf - twice old");
  const size_t end = first.find_last_not_of('\0');
  SetTar(first.substr(0, (end / 512 + 1) * 512) + second);
  files_.clear();
  for (const char* name : {"hole", "s", "twice", "old"}) files_[name] = Bytes(*Shell("cat " + dir.path() + "/" + name));
  source_.ServeEverything();
  Begin();
  ASSERT_OK(End());
  for (const auto& [name, bytes] : files_) ExpectFile(*OpenFile(name), name);
  for (const auto& [name, bytes] : files_) ExpectFile(*OpenFile(name), name);
}

// Goal: a cache that takes nothing costs that files are fetched again, not right bytes, and not the verification.
TEST_F(DeferredLayerTest, CacheThatRefuses) {
  std::filesystem::remove_all(dir_ / "cache");
  source_.ServeEverything();
  Begin();
  for (const char* name : {"big-4", "small-4", "big-0", "small-0"}) ExpectFile(*OpenFile(name), name);
  ASSERT_OK(End());
  ExpectFile(*OpenFile("big-2"), "big-2");
}

// Goal: a layer whose turn it is not gives its readers what they ask for, and goes on when it is; one that is stopped meanwhile stops.
TEST_F(DeferredLayerTest, WaitsForItsTurn) {
  ASSERT_TRUE(turns_.Take(milliseconds(0)));
  source_.ServeEverything();
  Begin();
  ExpectBytes(Pending(*OpenFile("big-2"), 5'000'000, 1000).Wait(), files_.at("big-2"), 5'000'000, 1000);
  EXPECT_LT(source_.requested_bytes(), 8 * kBlock);
  turns_.GiveBack();
  ASSERT_OK(End());
  EXPECT_EQ(source_.requested_bytes(), tar_.size());
  layer_->Stop();
  ASSERT_TRUE(turns_.Take(milliseconds(5000)));
  end_ = {};
  Begin();
  layer_->Stop();
  EXPECT_FALSE(turns_.Take(milliseconds(0)));
}

// Goal: a registry that asks for a pause gets it.
TEST_F(DeferredLayerTest, RetryAfterIsHonoured) {
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t number) {
    if (number == 0) return request->Finish(ResourceExhaustedError("429").WithRetryAfter(milliseconds(600)));
    request->Serve();
  });
  const auto start = std::chrono::steady_clock::now();
  Begin();
  ASSERT_OK(End());
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(600));
  EXPECT_EQ(source_.requests(), (tar_.size() + kBlock - 1) / kBlock + 1);
}

// Goal: a registry that is away: readers get its error at their deadline; when it is back the layer goes on and is verified.
TEST_F(DeferredLayerTest, DeadlineOfReaders) {
  deadline_ = milliseconds(1000);
  std::atomic<bool> away{true};
  source_.SetScript([&](const std::shared_ptr<FakeRequest>& request, uint64_t) {
    if (away.load()) return request->Finish(UnavailableError("nobody is there"));
    request->Serve();
  });
  Begin();
  const auto file = OpenFile("big-1");
  Pending waits(*file, 0, 1000);
  EXPECT_EQ(Metrics::Get(metrics_.reads_waiting), 1);
  EXPECT_TRUE(Eventually([&] {
    for (const FileState& state : streamer_->FileStates(*lazy_)) {
      if (state.entry == EntryOf("big-1")) return state.open && state.waiting == 1 && state.resident == 0 && state.cause == "retrying" && !state.last_error.empty();
    }
    return false;
  }));
  const Answer answer = waits.Wait();
  EXPECT_CODE(answer.status, StatusCode::kUnavailable);
  EXPECT_EQ(Metrics::Get(metrics_.reads_waiting), 0);
  EXPECT_EQ(Metrics::Get(metrics_.reads_stalled), 1);
  EXPECT_GE(Metrics::Get(metrics_.read_stall_us), 990'000);
  EXPECT_NE(answer.status.message().find("nobody is there"), std::string::npos) << answer.status.message();
  away = false;
  ASSERT_OK(End());
  ExpectFile(*OpenFile("big-1"), "big-1");
}

// Goal: the end while readers wait and answers are under way: readers hear it, late bytes harm nobody, files that are open still say something.
TEST_F(DeferredLayerTest, StopWhileItComes) {
  Begin();
  auto hangs = source_.Next();
  ASSERT_NE(hangs, nullptr);
  auto file = OpenFile("big-2");
  Pending waits(*file, 0, 1000);
  layer_->Stop();
  EXPECT_CODE(waits.Wait().status, StatusCode::kCancelled);
  EXPECT_CODE(Pending(*file, 0, 1000).Wait().status, StatusCode::kCancelled);
  EXPECT_CODE(streamer_->Open(lazy_, EntryOf("big-1")), StatusCode::kCancelled);
  EXPECT_FALSE(hangs->DeliverAll());
  hangs->Finish(OkStatus());
  EXPECT_EQ(StagedFiles(), 0u);
}

}  // namespace
}  // namespace headrace::stream
