// LearnLayer, BlobReader and DecodingSource: a whole layer out of ranges, whatever the registry does on the way, and nothing kept of one that is wrong.
#include "fusefs/stream/learn_layer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <random>

#include "fusefs/format/tar_indexer.h"
#include "fusefs/stream/content_id.h"
#include "fusefs/stream/decoding_source.h"
#include "test/stream/fake_source.h"
#include "test/stream/noise.h"
#include "test/support/compress.h"
#include "test/support/matchers.h"
#include "test/support/random_tree.h"
#include "test/support/temp_dir.h"

namespace headrace::stream {
namespace {

using std::chrono::milliseconds;

std::string Gzip(const std::string& data) { return test::Gzip(data, 1); }

class LearnLayerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = cache::ContentStore::Create({.root = dir_ / "cache"}, metrics_);
    ASSERT_OK(store);
    cache_ = std::move(*store);
  }
  LearnRequest Request(const std::string& blob, const std::string& tar) {
    LearnRequest request;
    request.blob = {"registry.test/m:1", Digest::Of(blob), false, blob.size()};
    request.diff_id = Digest::Of(tar);
    request.reader.stall_deadline = milliseconds(3000);
    request.reader.retry_pause_min = milliseconds(5);
    request.done_bytes = &done_;
    source_.AddBlob(request.blob.digest, Bytes(blob));
    return request;
  }
  // Whether the content of every file of the table is in the cache, with the right bytes.
  void ExpectCached(const std::string& table, const std::map<std::string, std::string>& files) {
    auto index = format::ReadLearnedTable(table);
    ASSERT_OK(index);
    size_t seen = 0;
    for (const format::Entry& entry : index->entries) {
      if (entry.type != format::EntryType::kRegular || entry.size == 0) continue;
      auto spec = ContentId(*index, entry);
      ASSERT_OK(spec);
      auto file = cache_->Open(*spec);
      ASSERT_OK(file);
      EXPECT_TRUE((*file)->complete()) << entry.name;
      std::string bytes(entry.size, '\0');
      ASSERT_OK((*file)->Read(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
      EXPECT_TRUE(bytes == files.at(entry.name)) << entry.name;
      ++seen;
    }
    EXPECT_EQ(seen, files.size());
  }
  size_t StagedFiles() const {
    size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "cache/staged")) n += entry.exists();
    return n;
  }

  const std::map<std::string, std::string> files_ = {{"d/small", "small"}, {"big", Noise(10'000'000, 1)}, {"mid", Noise(700'000, 2)}, {"zeros", std::string(5'000'000, '\0')}};
  const std::string tar_ = *test::ToTar({test::Dir("d"), test::File("d/small", files_.at("d/small")), test::File("big", files_.at("big")), test::File("empty"),
                                         test::File("mid", files_.at("mid")), test::File("zeros", files_.at("zeros"))});
  test::TempDir dir_;
  Metrics metrics_;
  FakeSource source_;
  std::unique_ptr<cache::ContentStore> cache_;
  std::atomic<uint64_t> done_{0};
};

TEST_F(LearnLayerTest, PlainGzipAndZstd) {
  source_.ServeEverything();
  for (const std::string& blob : {tar_, Gzip(tar_), test::Zstd(tar_, 1)}) {
    done_ = 0;
    auto learned = LearnLayer(Request(blob, tar_), source_, *cache_);
    ASSERT_OK(learned);
    EXPECT_EQ(learned->decoded, blob != tar_);
    EXPECT_EQ(done_.load(), blob.size());
    ExpectCached(learned->table, files_);
  }
  EXPECT_EQ(StagedFiles(), 0u);
}

// Goal: what another reader is fetching chunk by chunk at the same time becomes complete too.
TEST_F(LearnLayerTest, ContentsThatAreOpen) {
  source_.ServeEverything();
  auto first = LearnLayer(Request(tar_, tar_), source_, *cache_);
  ASSERT_OK(first);
  auto index = format::ReadLearnedTable(first->table);
  test::TempDir other;
  auto store = cache::ContentStore::Create({.root = other / "cache"}, metrics_);
  ASSERT_OK(store);
  std::vector<std::shared_ptr<cache::ContentFile>> open;
  for (const format::Entry& entry : index->entries) {
    if (entry.size == 0) continue;
    auto file = (*store)->Open(*ContentId(*index, entry));
    ASSERT_OK(file);
    open.push_back(*file);
    EXPECT_FALSE((*file)->complete());
  }
  ASSERT_OK(LearnLayer(Request(tar_, tar_), source_, **store));
  for (const auto& file : open) EXPECT_TRUE(file->complete());
}

// Goal: ranges that break off, fail, come short or hang for a moment go on where they were; the bytes are the same.
TEST_F(LearnLayerTest, FaultsOnTheWay) {
  const std::string blob = Gzip(tar_);
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t number) {
    switch (number % 5) {
      case 0:
        request->Deliver(request->bytes.size() / 2);
        return request->Finish(UnavailableError("connection reset"));
      case 1: return request->Finish(ResourceExhaustedError("429"));
      case 2:
        request->Deliver(1);
        return request->Finish(OkStatus());  // short
      default: return request->Serve(10'000);
    }
  });
  auto learned = LearnLayer(Request(blob, tar_), source_, *cache_);
  ASSERT_OK(learned);
  ExpectCached(learned->table, files_);
}

// Goal: what is read whole leaves a registry alone for as long as it wishes, but not until it would be given up.
TEST_F(LearnLayerTest, RetryAfterIsHonoured) {
  for (const milliseconds wish : {milliseconds(600), milliseconds(3'600'000)}) {
    const uint64_t before = source_.requests();
    source_.SetScript([&](const std::shared_ptr<FakeRequest>& request, uint64_t number) {
      if (number == before) return request->Finish(ResourceExhaustedError("429").WithRetryAfter(wish));
      request->Serve();
    });
    const auto start = std::chrono::steady_clock::now();
    ASSERT_OK(LearnLayer(Request(tar_, tar_), source_, *cache_));
    const auto took = std::chrono::steady_clock::now() - start;
    EXPECT_GE(took, std::min(wish, milliseconds(1500)));  // half of the deadline
    EXPECT_EQ(source_.requests() - before, (tar_.size() + BlobReader::kRangeBytes - 1) / BlobReader::kRangeBytes + 1);
  }
}

TEST_F(LearnLayerTest, PermanentErrorsEndSoon) {
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t) { request->Finish(NotFoundError("no such blob")); });
  EXPECT_CODE(LearnLayer(Request(tar_, tar_), source_, *cache_), StatusCode::kNotFound);
  EXPECT_LE(source_.requests(), 4u * BlobReader::kRanges);
}

TEST_F(LearnLayerTest, StallEndsAtTheDeadline) {
  auto request = Request(tar_, tar_);
  request.reader.stall_deadline = milliseconds(300);
  source_.SetScript([](const std::shared_ptr<FakeRequest>& r, uint64_t) { r->Finish(UnavailableError("down")); });
  EXPECT_CODE(LearnLayer(request, source_, *cache_), StatusCode::kUnavailable);
}

// Goal: a source that never answers is given up as well.
TEST_F(LearnLayerTest, SilentSourceEndsToo) {
  auto request = Request(tar_, tar_);
  request.reader.stall_deadline = milliseconds(150);
  EXPECT_CODE(LearnLayer(request, source_, *cache_), StatusCode::kDeadlineExceeded);
}

// Goal: cancelling ends it at once, also while nothing comes; late bytes of the source harm nobody.
TEST_F(LearnLayerTest, Cancelled) {
  std::atomic<bool> cancel{false};
  auto request = Request(tar_, tar_);
  request.cancelled = [&] { return cancel.load(); };
  auto running = std::async(std::launch::async, [&] { return LearnLayer(request, source_, *cache_).status(); });
  auto hangs = source_.Next();
  ASSERT_NE(hangs, nullptr);
  cancel = true;
  EXPECT_CODE(running.get(), StatusCode::kCancelled);
  EXPECT_FALSE(hangs->Deliver(10));
  EXPECT_EQ(StagedFiles(), 0u);
}

// Goal: a wrong bit anywhere, a wrong DiffID, a blob cut short: DataLoss (or not a tar), never a table.
TEST_F(LearnLayerTest, WrongBytes) {
  source_.ServeEverything();
  const std::string blob = Gzip(tar_);
  auto request = Request(blob, tar_);
  request.diff_id = Digest::Of("another");
  EXPECT_CODE(LearnLayer(request, source_, *cache_), StatusCode::kDataLoss);
  for (const uint64_t at : {uint64_t{700'000}, uint64_t{9'000'000}}) {
    std::string bad = tar_;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    request = Request(bad, tar_);
    request.blob.digest = Digest::Of(tar_);
    source_.AddBlob(request.blob.digest, Bytes(bad));
    EXPECT_CODE(LearnLayer(request, source_, *cache_), StatusCode::kDataLoss);
  }
  const std::string cut = blob.substr(0, blob.size() / 2);
  EXPECT_CODE(LearnLayer(Request(cut, tar_), source_, *cache_), StatusCode::kDataLoss);
  EXPECT_FALSE(LearnLayer(Request(Noise(5000, 3), tar_), source_, *cache_).ok());
  EXPECT_EQ(StagedFiles(), 0u);
}

// A source whose bytes come from mirror 7 until it is reported, which flips a bit.
class MirrorSource : public registry::RangeSource {
 public:
  explicit MirrorSource(std::string blob) : blob_(std::move(blob)) {}
  void Fetch(const registry::BlobRef&, uint64_t offset, uint64_t size, std::shared_ptr<registry::RangeSink> sink) override {
    std::string bytes = blob_.substr(offset, size);
    const bool mirror = reported.load() == 0;
    if (mirror) bytes[0] = static_cast<char>(bytes[0] ^ 1);
    sink->OnSource(mirror ? 7 : 0);
    sink->OnData({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
    sink->OnDone(OkStatus());
  }
  void ReportWrongBytes(const registry::BlobRef&, uint64_t source) override {
    EXPECT_EQ(source, 7u);
    ++reported;
  }
  std::atomic<int> reported{0};

 private:
  const std::string blob_;
};

TEST_F(LearnLayerTest, MirrorWithWrongBytesIsLeft) {
  for (const std::string& blob : {tar_, Gzip(tar_)}) {
    MirrorSource source(blob);
    auto learned = LearnLayer(Request(blob, tar_), source, *cache_);
    ASSERT_OK(learned);
    EXPECT_EQ(source.reported.load(), 1);
    EXPECT_EQ(done_.load(), blob.size());
    done_ = 0;
    ExpectCached(learned->table, files_);
  }
}

// Collects one range.
class Collect : public registry::RangeSink {
 public:
  bool OnData(std::span<const uint8_t> data) override {
    bytes.insert(bytes.end(), data.begin(), data.end());
    return bytes.size() < stop_after;
  }
  void OnSource(uint64_t from) override { source = from; }
  void OnDone(Status status) override { done.set_value(std::move(status)); }
  uint64_t source = 0;
  std::string bytes;
  size_t stop_after = SIZE_MAX;
  std::promise<Status> done;
};

TEST_F(LearnLayerTest, DecodingSourceServesRangesOfTheTar) {
  source_.ServeEverything();
  const std::string blob = Gzip(tar_);
  auto request = Request(blob, tar_);
  request.blob.decoded = true;
  BlobReaderOptions options{milliseconds(1000), milliseconds(5), milliseconds(10)};
  DecodingSource source(source_, options);
  const auto fetch = [&](uint64_t offset, uint64_t size, size_t stop_after = SIZE_MAX) {
    auto sink = std::make_shared<Collect>();
    sink->stop_after = stop_after;
    source.Fetch(request.blob, offset, size, sink);
    return sink;
  };
  const auto wait = [](Collect& sink) {
    auto future = sink.done.get_future();
    EXPECT_EQ(future.wait_for(std::chrono::seconds(30)), std::future_status::ready);
    return future.get();
  };
  std::vector<std::pair<std::pair<uint64_t, uint64_t>, std::shared_ptr<Collect>>> asked;
  for (const auto& [offset, size] : std::vector<std::pair<uint64_t, uint64_t>>{{9'000'000, 3000}, {0, 100}, {5'000'000, 4'000'000}, {tar_.size() - 10, 10}, {1, 1}}) {
    asked.push_back({{offset, size}, fetch(offset, size)});
  }
  for (auto& [place, sink] : asked) {
    EXPECT_OK(wait(*sink));
    EXPECT_TRUE(sink->bytes == tar_.substr(place.first, place.second)) << place.first;
  }
  EXPECT_CODE(wait(*fetch(tar_.size() - 10, 20)), StatusCode::kDataLoss);  // beyond the end
  EXPECT_CODE(wait(*fetch(0, 5'000'000, 1000)), StatusCode::kCancelled);
  // A blob without decoding passes through.
  auto raw = std::make_shared<Collect>();
  request.blob.decoded = false;
  source.Fetch(request.blob, 5, 50, raw);
  EXPECT_OK(wait(*raw));
  EXPECT_EQ(raw->bytes, blob.substr(5, 50));
  // The registry's error is the reader's.
  request.blob.decoded = true;
  source_.SetScript([](const std::shared_ptr<FakeRequest>& r, uint64_t) { r->Finish(NotFoundError("gone")); });
  EXPECT_CODE(wait(*fetch(3, 4)), StatusCode::kNotFound);
}

// A tar of one file in 64 parts of a megabyte, each a member or frame of its own.
struct Parted {
  std::string tar, blob;
  SeekPoints starts;
  Parted(bool gzip, unsigned seed) {
    tar = *test::ToTar({test::File("big", Noise((64u << 20) - 2048, seed))});
    for (size_t at = 0; at < tar.size(); at += 1 << 20) {
      starts.push_back({blob.size(), at});
      blob += gzip ? Gzip(tar.substr(at, 1 << 20)) : test::Zstd(tar.substr(at, 1 << 20), 1);
    }
    starts.push_back({blob.size(), tar.size()});
  }
  // Bytes of the parts in which [offset, offset + size) lies.
  uint64_t BytesNeeded(uint64_t offset, uint64_t size) const { return starts[((offset + size - 1) >> 20) + 1].blob_offset - starts[offset >> 20].blob_offset; }
};

// Goal: what the cache lost of a blob of many members or frames costs those that it lies in, and nothing else; the bytes are the tar's wherever the stream is entered.
TEST_F(LearnLayerTest, SeekPointsAreEntered) {
  const uint64_t seed = test::TestSeed();
  for (const bool gzip : {false, true}) {
    SCOPED_TRACE("HEADRACE_TEST_SEED=" + std::to_string(seed) + (gzip ? " gzip" : " zstd"));
    source_.ServeEverything();
    const Parted parts(gzip, static_cast<unsigned>(seed));
    ASSERT_GE(parts.starts.size(), 65u);
    LearnRequest request = Request(parts.blob, parts.tar);
    auto learned = LearnLayer(request, source_, *cache_);
    ASSERT_OK(learned);
    auto index = format::ReadLearnedTable(learned->table);
    ASSERT_OK(index);
    EXPECT_EQ(index->seek_points, SeekPoints(parts.starts.begin() + 1, parts.starts.end() - 1));
    request.blob.decoded = true;
    request.blob.seek_points = std::make_shared<SeekPoints>(index->seek_points);
    DecodingSource source(source_, {milliseconds(3000), milliseconds(5), milliseconds(10)});
    const auto begin = [&](uint64_t offset, uint64_t size) {
      auto sink = std::make_shared<Collect>();
      source.Fetch(request.blob, offset, size, sink);
      return sink;
    };
    const auto expect = [&](Collect& sink, uint64_t offset, uint64_t size) {
      auto done = sink.done.get_future();
      ASSERT_EQ(done.wait_for(std::chrono::seconds(30)), std::future_status::ready);
      EXPECT_OK(done.get());
      EXPECT_TRUE(sink.bytes == parts.tar.substr(offset, size)) << offset << " " << size;
    };
    std::mt19937_64 random(seed);
    // One lost chunk, at the start, in the middle, over a boundary, at the end.
    for (const auto& [offset, size] : std::vector<std::pair<uint64_t, uint64_t>>{{0, 1000}, {40u << 20, 1 << 20}, {(10u << 20) - 500, 1000}, {parts.tar.size() - 100, 100}}) {
      const uint64_t before = source_.requested_bytes();
      expect(*begin(offset, size), offset, size);
      EXPECT_EQ(source_.requested_bytes() - before, parts.BytesNeeded(offset, size)) << offset;
    }
    // Many at a time.
    for (int round = 0; round < 4; ++round) {
      std::vector<std::pair<std::pair<uint64_t, uint64_t>, std::shared_ptr<Collect>>> asked;
      for (int i = 0; i < 12; ++i) {
        const uint64_t offset = random() % parts.tar.size();
        const uint64_t size = 1 + random() % std::min<uint64_t>(parts.tar.size() - offset, 5'000'000);
        asked.push_back({{offset, size}, begin(offset, size)});
      }
      for (auto& [place, sink] : asked) expect(*sink, place.first, place.second);
    }
    // Without points, as tables of older versions have none: from the start.
    request.blob.seek_points = nullptr;
    DecodingSource old(source_, {milliseconds(3000), milliseconds(5), milliseconds(10)});
    auto sink = std::make_shared<Collect>();
    old.Fetch(request.blob, 50u << 20, 1000, sink);
    expect(*sink, 50u << 20, 1000);
  }
}

// Goal: points that are not where the stream can be entered give errors, not a hang; the digests of the chunks are what is believed.
TEST_F(LearnLayerTest, WrongSeekPointsAreErrors) {
  source_.ServeEverything();
  const Parted parts(false, 1);
  registry::BlobRef ref = Request(parts.blob, parts.tar).blob;
  ref.decoded = true;
  DecodingSource source(source_, {milliseconds(3000), milliseconds(5), milliseconds(10)});
  const SeekPoint good = parts.starts[20];
  for (const SeekPoint& wrong : {SeekPoint{good.blob_offset + 1, good.decoded_offset}, SeekPoint{parts.blob.size() + 5, good.decoded_offset}}) {
    ref.seek_points = std::make_shared<SeekPoints>(SeekPoints{wrong});
    ref.image_ref = "registry.test/m:" + std::to_string(wrong.blob_offset);
    for (const uint64_t offset : {good.decoded_offset + 5, good.decoded_offset - 500'000}) {
      auto sink = std::make_shared<Collect>();
      source.Fetch(ref, offset, 1'000'000, sink);
      auto done = sink->done.get_future();
      ASSERT_EQ(done.wait_for(std::chrono::seconds(30)), std::future_status::ready);
      const Status status = done.get();
      EXPECT_TRUE(!status.ok() || sink->bytes == parts.tar.substr(offset, 1'000'000)) << wrong.blob_offset << " " << offset;
    }
  }
}

// Goal: of a decoded stream, too, it is known which mirror it is from: who finds a wrong digest can name it, and one that does not even decode is named at once.
TEST_F(LearnLayerTest, DecodingSourceNamesTheMirror) {
  const BlobReaderOptions options{milliseconds(1000), milliseconds(5), milliseconds(10)};
  for (const std::string& blob : {tar_, Gzip(tar_)}) {
    MirrorSource mirror(blob);  // flips a bit: of the plain tar a byte is wrong, the gzip stream breaks
    DecodingSource source(mirror, options);
    registry::BlobRef ref = Request(blob, tar_).blob;
    ref.decoded = true;
    const auto fetch = [&] {
      auto sink = std::make_shared<Collect>();
      source.Fetch(ref, 0, 4000, sink);
      EXPECT_EQ(sink->done.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
      return sink;
    };
    auto first = fetch();
    if (mirror.reported.load() == 0) {
      EXPECT_NE(first->bytes, tar_.substr(0, 4000));
      EXPECT_EQ(first->source, 7u);
      source.ReportWrongBytes(ref, first->source);  // as who compares the digest does
    }
    EXPECT_EQ(mirror.reported.load(), 1);
    auto second = fetch();
    EXPECT_EQ(second->source, 0u);
    EXPECT_TRUE(second->bytes == tar_.substr(0, 4000));
  }
}

}  // namespace
}  // namespace headrace::stream
