// Goal: a source or a disk that fails, hangs, lies or comes late: right bytes or an error in time, nothing wrong ever, nothing left behind.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fusefs/base/file.h"
#include "test/stream/stream_fixture.h"

namespace headrace::stream {
namespace {

class StreamFaultTest : public StreamTest {
 protected:
  void MakeFile(uint32_t chunks = 4, uint64_t chunk_size = 10'000) {
    entry_ = layer_.AddRandomFile("model", chunks, chunk_size, 1);
    layer_source_ = Publish(layer_);
  }
  const std::vector<uint8_t>& file() const { return layer_.file(entry_); }

  FakeLayer layer_;
  uint32_t entry_ = 0;
  std::shared_ptr<const LayerSource> layer_source_;
};

TEST_F(StreamFaultTest, FailuresAreRetriedWhateverTheyAre) {
  Start();
  MakeFile();
  const std::vector<Status> failures = {UnavailableError("a"), DeadlineExceededError("b"), ResourceExhaustedError("c"),
                                        NotFoundError("d"), PermissionDeniedError("e"), UnauthenticatedError("f"),
                                        InvalidArgumentError("g"), InternalError("h")};
  source_.SetScript([&](const std::shared_ptr<FakeRequest>& request, uint64_t n) {
    if (n < failures.size()) return request->Finish(failures[n]);
    request->Serve();
  });
  auto content = Open(layer_source_, entry_);
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
  EXPECT_EQ(source_.requests(), failures.size() + 1);
  EXPECT_EQ(Metrics::Get(metrics_.wire_retries), static_cast<int64_t>(failures.size()));
  EXPECT_EQ(Metrics::Get(metrics_.wire_errors), 0);
}

// Goal: a registry that wants to be left alone for longer than a reader can wait is asked once more before the reader is given an error.
TEST_F(StreamFaultTest, AWishBeyondTheDeadlineLeavesAnotherTry) {
  options_.read_deadline = milliseconds(2000);
  Start();
  MakeFile();
  source_.SetScript([&](const std::shared_ptr<FakeRequest>& request, uint64_t n) {
    if (n == 0) return request->Finish(ResourceExhaustedError("429").WithRetryAfter(std::chrono::hours(1)));
    request->Serve();
  });
  const auto start = std::chrono::steady_clock::now();
  auto content = Open(layer_source_, entry_);
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(900));
  EXPECT_EQ(source_.requests(), 2u);
}

TEST_F(StreamFaultTest, AfterABrokenBodyOnlyTheRestIsFetched) {
  Start();
  MakeFile();
  auto content = Open(layer_source_, entry_);
  Pending read(*content, 0, 40'000);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  request->Deliver(layer_source_->index->chunks[0].blob_size + layer_source_->index->chunks[1].blob_size + 5);
  request->Finish(UnavailableError("reset"));
  auto rest = source_.Next();
  ASSERT_TRUE(rest);
  EXPECT_EQ(rest->offset, layer_source_->index->chunks[2].blob_offset);
  rest->Serve();
  ExpectBytes(read.Wait(), file(), 0, 40'000);
}

TEST_F(StreamFaultTest, AShortBodyThatSaysOkIsAFailure) {
  Start();
  MakeFile();
  auto content = Open(layer_source_, entry_);
  Pending read(*content, 0, 10'000);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  request->Deliver(100);
  request->Finish(OkStatus());
  auto again = source_.Next();
  ASSERT_TRUE(again);
  again->Serve();
  ExpectBytes(read.Wait(), file(), 0, 10'000);
}

TEST_F(StreamFaultTest, ALongBodyIsCutOff) {
  Start();
  MakeFile();
  auto content = Open(layer_source_, entry_);
  Pending read(*content, 0, 10'000);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  EXPECT_TRUE(request->DeliverAll());
  EXPECT_FALSE(request->DeliverMore(std::vector<uint8_t>(5000, 1)));
  request->Finish(CancelledError("stopped"));
  ExpectBytes(read.Wait(), file(), 0, 10'000);
  EXPECT_FALSE(source_.HasNext());
}

TEST_F(StreamFaultTest, AWrongChunkIsFetchedAgainAndNeverServed) {
  Start();
  MakeFile();
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t n) {
    if (n < 3) request->bytes[request->bytes.size() / 2] ^= 1;
    request->Serve();
  });
  auto content = Open(layer_source_, entry_);
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
  EXPECT_GE(Metrics::Get(metrics_.chunk_digest_mismatches), 1);
  ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
  std::vector<uint8_t> got(40'000);
  ASSERT_EQ(pread(content->backing_fd(), got.data(), got.size(), 0), 40'000);
  EXPECT_EQ(got, file());
}

TEST_F(StreamFaultTest, AlwaysWrongBytesAreAnErrorAtTheDeadline) {
  options_.read_deadline = milliseconds(150);
  Start();
  MakeFile();
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t) {
    request->bytes[request->bytes.size() - 30] ^= 0x40;
    request->Serve();
  });
  auto content = Open(layer_source_, entry_);
  const Answer answer = Pending(*content, 0, 10'000).Wait();
  EXPECT_CODE(answer.status, StatusCode::kDataLoss);
  EXPECT_EQ(StatusToErrno(answer.status), EIO);
  EXPECT_TRUE(answer.bytes.empty());
  EXPECT_NE(answer.status.message().find(layer_.blob_digest().ToString()), std::string::npos) << answer.status.message();
  EXPECT_GE(Metrics::Get(metrics_.chunk_digest_mismatches), 2);
  EXPECT_EQ(Metrics::Get(metrics_.cache_write_bytes), 0);
  EXPECT_EQ(Metrics::Get(metrics_.wire_errors), 1);
  // Nobody reads any more: the tries end.
  ASSERT_TRUE(Eventually([&] {
    const uint64_t before = source_.requests();
    std::this_thread::sleep_for(2 * options_.retry_pause_max);
    return source_.requests() == before;
  }));
}

TEST_F(StreamFaultTest, AnotherErrorOfTheRegistryIsAnIoErrorToTheReader) {
  options_.read_deadline = milliseconds(60);
  Start();
  MakeFile();
  source_.SetScript([](const std::shared_ptr<FakeRequest>& r, uint64_t) { r->Finish(NotFoundError("gone")); });
  const Answer answer = Pending(*Open(layer_source_, entry_), 0, 10).Wait();
  EXPECT_CODE(answer.status, StatusCode::kNotFound);
  EXPECT_EQ(StatusToErrno(answer.status), EIO);
}

TEST_F(StreamFaultTest, DeadlineFiresWhileTheSourceHangsAndALateSuccessIsPossible) {
  options_.read_deadline = milliseconds(80);
  Start();
  MakeFile();
  auto content = Open(layer_source_, entry_);
  Pending read(*content, 5'000, 10'000);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  EXPECT_TRUE(request->Deliver(100));
  const Answer answer = read.Wait();
  EXPECT_CODE(answer.status, StatusCode::kDeadlineExceeded);
  EXPECT_EQ(StatusToErrno(answer.status), EIO);
  EXPECT_EQ(Metrics::Get(metrics_.reads_waiting), 0);
  EXPECT_FALSE(request->Deliver(100));  // nobody wants it
  request->Finish(CancelledError("stopped"));
  Pending again(*content, 5'000, 10'000);
  auto second = source_.Next();
  ASSERT_TRUE(second);
  second->Serve();
  ExpectBytes(again.Wait(), file(), 5'000, 10'000);
}

// One reader gives up, another came later: the fetch goes on for the second.
TEST_F(StreamFaultTest, EachReaderHasItsOwnDeadline) {
  options_.read_deadline = milliseconds(2000);
  Start();
  MakeFile();
  auto content = Open(layer_source_, entry_);
  Pending first(*content, 0, 100);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  const auto later = std::chrono::steady_clock::now() + milliseconds(800);
  ASSERT_TRUE(Eventually([&] { return std::chrono::steady_clock::now() >= later; }));
  Pending second(*content, 0, 100);
  EXPECT_CODE(first.Wait().status, StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(request->DeliverAll());
  request->Finish(OkStatus());
  ExpectBytes(second.Wait(), file(), 0, 100);
}

// A hanging fetch keeps the budget only while somebody waits for it.
TEST_F(StreamFaultTest, AGivenUpFetchFreesTheBudget) {
  options_.read_deadline = milliseconds(80);
  options_.inflight_bytes_max = 1;
  Start();
  MakeFile();
  auto content = Open(layer_source_, entry_);
  Pending hangs(*content, 0, 100);
  auto request = source_.Next();
  ASSERT_TRUE(request);
  EXPECT_FALSE(hangs.Wait().status.ok());
  Pending next(*content, 20'000, 100);
  auto second = source_.Next();
  ASSERT_TRUE(second);
  second->Serve();
  ExpectBytes(next.Wait(), file(), 20'000, 100);
}

// Two layers hold the content; the first one's registry does not have it any more.
TEST_F(StreamFaultTest, AnotherLayerWithTheSameContentHelps) {
  Start();
  MakeFile();
  FakeLayer other("other.test/x:1");
  other.AddGap(10);
  other.AddRandomFile("copy", 4, 10'000, 1);
  const auto gone = layer_source_->blob.digest;
  source_.SetScript([gone](const std::shared_ptr<FakeRequest>& request, uint64_t) {
    if (request->blob.digest == gone) return request->Finish(NotFoundError("deleted"));
    request->Serve();
  });
  auto content = Open(layer_source_, entry_);
  ASSERT_EQ(Open(Publish(other), 0), content);
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
}

// -- the cache

TEST_F(StreamFaultTest, WhatAnotherProcessLeftIsVerifiedAgain) {
  Start();
  source_.ServeEverything();
  MakeFile();
  {
    auto content = Open(layer_source_, entry_);
    ExpectBytes(Pending(*content, 0, 30'000).Wait(), file(), 0, 30'000);
    ASSERT_TRUE(Eventually([&] { return Metrics::Get(metrics_.cache_write_bytes) == 30'000; }));
  }
  Stop();
  {
    auto fd = OpenFile(OnlyCacheFile(".data"), O_RDWR);
    ASSERT_OK(fd);
    const uint8_t wrong = static_cast<uint8_t>(file()[15'000] ^ 1);
    ASSERT_OK(PwriteFull(fd->get(), {&wrong, 1}, 15'000));
  }
  Start();
  auto content = Open(layer_source_, entry_);
  const uint64_t before = source_.requested_bytes();
  ExpectBytes(Pending(*content, 0, 30'000).Wait(), file(), 0, 30'000);
  EXPECT_EQ(source_.requested_bytes() - before, layer_source_->index->chunks[1].blob_size);  // the others were good
  ASSERT_TRUE(Eventually([&] { return Metrics::Get(metrics_.cache_write_bytes) == 40'000; }));
  content.reset();
  Start();
  content = Open(layer_source_, entry_);
  ExpectBytes(Pending(*content, 0, 30'000).Wait(), file(), 0, 30'000);
  EXPECT_EQ(source_.requested_bytes() - before, layer_source_->index->chunks[1].blob_size);
}

// Somebody writes into the cache's file under us, before and after it is sealed: the readers that have it open, and those who open it then, get the right bytes.
TEST_F(StreamFaultTest, TouchedBackingFilesAreVerifiedAgain) {
  Start();
  source_.ServeEverything();
  MakeFile();
  const auto spoil = [this] {
    auto fd = OpenFile(OnlyCacheFile(".data"), O_RDWR);
    ASSERT_OK(fd);
    const uint8_t wrong = static_cast<uint8_t>(file()[15'000] ^ 1);
    ASSERT_OK(PwriteFull(fd->get(), {&wrong, 1}, 15'000));
  };
  auto content = Open(layer_source_, entry_);
  ExpectBytes(Pending(*content, 0, 30'000).Wait(), file(), 0, 30'000);
  ASSERT_TRUE(Eventually([&] { return Metrics::Get(metrics_.cache_write_bytes) == 30'000; }));
  uint64_t before = source_.requested_bytes();
  spoil();
  ExpectBytes(Pending(*content, 14'000, 4000).Wait(), file(), 14'000, 4000);
  ExpectBytes(Pending(*content, 0, 30'000).Wait(), file(), 0, 30'000);
  EXPECT_EQ(source_.requested_bytes() - before, layer_source_->index->chunks[1].blob_size);  // the others were good
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
  ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
  spoil();
  auto anew = Open(layer_source_, entry_);
  ASSERT_NE(anew, content);
  EXPECT_FALSE(anew->sealed());
  ExpectBytes(Pending(*anew, 0, 40'000).Wait(), file(), 0, 40'000);
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
  ASSERT_TRUE(Eventually([&] { return anew->sealed(); }));
  EXPECT_EQ(Open(layer_source_, entry_), anew);
}

TEST_F(StreamFaultTest, TruncatedBackingFileIsFetchedAgain) {
  Start();
  source_.ServeEverything();
  MakeFile();
  auto content = Open(layer_source_, entry_);
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
  ASSERT_TRUE(Eventually([&] { return content->sealed(); }));
  ASSERT_EQ(truncate(OnlyCacheFile(".data").c_str(), 12'000), 0);
  for (int round = 0; round < 2; ++round) {
    ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
    for (uint64_t at = 0; at < 40'000; at += 7'000) ExpectBytes(Pending(*content, at, 9'000).Wait(), file(), at, 9'000);
  }
  EXPECT_GE(Metrics::Get(metrics_.cache_read_errors), 1);
  EXPECT_FALSE(content->sealed());
  content.reset();
  ASSERT_TRUE(Eventually([&] { return store_->open_contents() == 0; }));
  content = Open(layer_source_, entry_);
  content->FetchAll();
  EXPECT_TRUE(Eventually([&] { return content->sealed(); }));
}

TEST_F(StreamFaultTest, DeletedCacheIsServedAndMadeAnew) {
  Start();
  source_.ServeEverything();
  MakeFile();
  auto content = Open(layer_source_, entry_);
  ExpectBytes(Pending(*content, 0, 10'000).Wait(), file(), 0, 10'000);
  std::filesystem::remove_all(dir_ / "cache");
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
  content.reset();
  Start();
  content = Open(layer_source_, entry_);
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
  EXPECT_TRUE(Eventually([&] { return content->sealed(); }));
}

// No cache at all (its directory is a file): everything is served; a recent chunk is not fetched for each of its reads.
TEST_F(StreamFaultTest, WithoutACacheEverythingIsServed) {
  Start();
  source_.ServeEverything();
  MakeFile();
  std::filesystem::remove_all(dir_ / "cache");
  ASSERT_OK(WriteFileAtomic(dir_ / "cache", "x"));
  auto content = Open(layer_source_, entry_);
  for (uint64_t at = 0; at < 40'000; at += 1'000) ExpectBytes(Pending(*content, at, 1'000).Wait(), file(), at, 1'000);
  EXPECT_EQ(source_.requests(), 4u);
  EXPECT_FALSE(content->sealed());
  content->FetchAll();
  EXPECT_EQ(source_.requests(), 4u);
  EXPECT_GE(Metrics::Get(metrics_.cache_write_errors), 1);
  ASSERT_EQ(unlink((dir_ / "cache").c_str()), 0);
}

// A disk that takes only the first chunk: everything is served, and what fits later is kept.
TEST_F(StreamFaultTest, AFullDiskIsLivedThrough) {
  signal(SIGXFSZ, SIG_IGN);
  Start();
  source_.ServeEverything();
  MakeFile();
  auto content = Open(layer_source_, entry_);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 15'000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  for (uint64_t at = 0; at < 40'000; at += 2'500) ExpectBytes(Pending(*content, at, 2'500).Wait(), file(), at, 2'500);
  // Readers are answered before the cache is written: the first chunk's write may be the last to end.
  EXPECT_TRUE(Eventually([&] {
    return Metrics::Get(metrics_.cache_write_errors) == 3 && Metrics::Get(metrics_.cache_write_bytes) == 10'000;
  }));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(source_.requests(), 4u);
  content.reset();  // what was only in memory is gone
  Start();
  content = Open(layer_source_, entry_);
  ExpectBytes(Pending(*content, 0, 40'000).Wait(), file(), 0, 40'000);
  EXPECT_TRUE(Eventually([&] { return content->sealed(); }));
  EXPECT_EQ(source_.requests(), 5u);
}

// -- the end

TEST_F(StreamFaultTest, DestructorWithWorkInFlightAnswersEverybody) {
  Start();
  MakeFile(8);
  auto content = Open(layer_source_, entry_);
  std::vector<Pending> reads;
  for (uint64_t i = 0; i < 8; i += 2) reads.emplace_back(*content, i * 10'000, 15'000);
  auto queued = source_.Next();
  auto half = source_.Next();
  ASSERT_TRUE(queued && half);
  half->Deliver(50);
  queued->Finish(UnavailableError("now it pauses"));
  streamer_.reset();
  for (Pending& read : reads) {
    ASSERT_TRUE(read.ready());
    EXPECT_CODE(read.Wait().status, StatusCode::kCancelled);
  }
  EXPECT_FALSE(half->Deliver(50));  // late callbacks are harmless
  half->Finish(OkStatus());
  Pending late(*content, 0, 10);
  EXPECT_CODE(late.Wait().status, StatusCode::kCancelled);
  EXPECT_EQ(Metrics::Get(metrics_.reads_waiting), 0);
  content.reset();
  Stop();
}

TEST_F(StreamFaultTest, DestructorWhileAScriptServes) {
  MakeFile(64, 5'000);
  source_.SetScript([](const std::shared_ptr<FakeRequest>& request, uint64_t n) {
    if (n % 3 == 1) return request->Finish(UnavailableError("x"));
    request->Serve(300);
  });
  for (int round = 0; round < 10; ++round) {
    std::filesystem::remove_all(dir_ / "cache");
    options_.range_bytes_max = 12'000;
    Start();
    auto content = Open(layer_source_, entry_);
    std::vector<Pending> reads;
    for (uint64_t i = 0; i < 20; ++i) reads.emplace_back(*content, i * 16'000, 16'000);
    content->FetchAll();
    for (int i = 0; i < round; ++i) reads[static_cast<size_t>(i)].Wait();
    content.reset();
    Stop();
    for (size_t i = static_cast<size_t>(round); i < reads.size(); ++i) {
      ASSERT_TRUE(reads[i].ready());
      const Answer answer = reads[i].Wait();
      if (answer.status.ok()) ExpectBytes(answer, file(), i * 16'000, 16'000);
    }
  }
}

}  // namespace
}  // namespace headrace::stream
