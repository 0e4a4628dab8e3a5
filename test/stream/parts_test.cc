// Goal: the parts of the streamer keep their promises on their own: budget and order of the scheduler, recycling of buffers, identity of
// contents, pieces of a read.
#include <gtest/gtest.h>

#include "fusefs/stream/buffer_pool.h"
#include "fusefs/stream/content_id.h"
#include "fusefs/stream/core.h"
#include "fusefs/stream/scheduler.h"
#include "test/stream/fake_layer.h"
#include "test/support/matchers.h"

namespace headrace::stream {
namespace {

class FakeJob : public Job {
 public:
  FakeJob(std::shared_ptr<Scheduler> scheduler, uint64_t cost, std::string name, std::string* log)
      : scheduler_(std::move(scheduler)), cost_(cost), name_(std::move(name)), log_(log) {}
  uint64_t cost() const override { return cost_; }
  bool cancelled() const override { return cancelled_; }
  void Begin() override {
    *log_ += name_;
    charge_ = Charge(scheduler_, cost_);
  }
  void End() { charge_ = Charge(); }
  void Cancel() { cancelled_ = true; }

 private:
  std::shared_ptr<Scheduler> scheduler_;
  uint64_t cost_;
  std::string name_;
  std::string* log_;
  bool cancelled_ = false;
  Charge charge_;
};

class SchedulerTest : public ::testing::Test {
 protected:
  std::shared_ptr<FakeJob> Make(uint64_t cost, const std::string& name) {
    return std::make_shared<FakeJob>(scheduler_, cost, name, &log_);
  }
  std::shared_ptr<Scheduler> scheduler_ = std::make_shared<Scheduler>(100);
  std::string log_;
};

TEST_F(SchedulerTest, StartsInOrderWithinTheBudget) {
  auto a = Make(60, "a"), b = Make(60, "b"), c = Make(10, "c");
  for (const auto& job : {a, b, c}) scheduler_->Submit(job, Priority::kDemand);
  EXPECT_EQ(log_, "a");  // c would fit, but b is first in line
  a->End();
  EXPECT_EQ(log_, "abc");
  b->End();
  c->End();
  EXPECT_EQ(scheduler_->used(), 0u);
}

TEST_F(SchedulerTest, OneLargerThanTheBudgetStartsAlone) {
  auto a = Make(1, "a"), big = Make(1000, "B"), c = Make(1, "c");
  for (const auto& job : {a, big, c}) scheduler_->Submit(job, Priority::kDemand);
  EXPECT_EQ(log_, "a");
  a->End();
  EXPECT_EQ(log_, "aB");
  big->End();
  EXPECT_EQ(log_, "aBc");
}

TEST_F(SchedulerTest, DemandGoesBeforeFillAndPromotionMakesDemand) {
  auto first = Make(100, "1"), fill = Make(100, "f"), fill2 = Make(100, "g"), demand = Make(100, "d");
  scheduler_->Submit(first, Priority::kDemand);
  scheduler_->Submit(fill, Priority::kFill);
  scheduler_->Submit(fill2, Priority::kFill);
  scheduler_->Submit(demand, Priority::kDemand);
  scheduler_->Promote(fill2, Priority::kDemand);
  for (const auto& job : {first, demand, fill2, fill}) job->End();
  EXPECT_EQ(log_, "1dgf");
}

TEST_F(SchedulerTest, CancelledAndClosedJobsDoNotStart) {
  auto a = Make(100, "a"), b = Make(100, "b"), c = Make(100, "c");
  for (const auto& job : {a, b, c}) scheduler_->Submit(job, Priority::kDemand);
  b->Cancel();
  a->End();
  EXPECT_EQ(log_, "ac");
  scheduler_->Submit(b, Priority::kDemand);
  scheduler_->Close();
  c->End();
  scheduler_->Submit(a, Priority::kDemand);
  EXPECT_EQ(log_, "ac");
}

TEST(ChargeTest, SplitsAddUp) {
  auto scheduler = std::make_shared<Scheduler>(100);
  std::string log;
  auto job = std::make_shared<FakeJob>(scheduler, 70, "a", &log);
  scheduler->Submit(job, Priority::kDemand);
  EXPECT_EQ(scheduler->used(), 70u);
  job->End();
  EXPECT_EQ(scheduler->used(), 0u);
}

TEST(BufferPoolTest, RecyclesMemoryOfTheSameClass) {
  auto pool = std::make_shared<BufferPool>(size_t{8} << 20);
  const uint8_t* first = nullptr;
  {
    Buffer buffer = pool->Get(1'000'000);
    ASSERT_TRUE(buffer.valid());
    EXPECT_EQ(buffer.bytes().size(), 1'000'000u);
    std::fill(buffer.bytes().begin(), buffer.bytes().end(), uint8_t{1});
    first = buffer.bytes().data();
  }
  Buffer again = pool->Get(1'000'100);
  EXPECT_EQ(again.bytes().data(), first);
  Buffer moved = std::move(again);
  EXPECT_FALSE(again.valid());  // NOLINT: what a move leaves is specified
  pool.reset();                 // buffers may outlive the pool
  EXPECT_EQ(moved.bytes().size(), 1'000'100u);
}

TEST(BufferPoolTest, KeepsNoMoreThanItsLimitAndTrims) {
  auto pool = std::make_shared<BufferPool>(size_t{8} << 20);
  {
    std::vector<Buffer> buffers;
    for (int i = 0; i < 8; ++i) buffers.push_back(pool->Get(size_t{2} << 20));
    EXPECT_EQ(pool->idle_bytes(), 0u);
    buffers.erase(buffers.begin(), buffers.begin() + 4);
    EXPECT_EQ(pool->idle_bytes(), 0u);  // what is in use fills the limit
  }
  EXPECT_EQ(pool->idle_bytes(), size_t{8} << 20);
  pool->Trim(size_t{4} << 20);
  EXPECT_EQ(pool->idle_bytes(), size_t{4} << 20);
  pool->Trim(0);
  EXPECT_EQ(pool->idle_bytes(), 0u);
}

TEST(BufferPoolTest, AnAbsurdSizeIsInvalidAndNotFatal) {
  auto pool = std::make_shared<BufferPool>(0);
  EXPECT_FALSE(pool->Get(size_t{1} << 62).valid());
  for (size_t size : {size_t{1}, size_t{16384}, size_t{16385}, size_t{65536}, size_t{65537}, size_t{4} << 20}) {
    Buffer buffer = pool->Get(size);
    ASSERT_TRUE(buffer.valid());
    EXPECT_EQ(buffer.bytes().size(), size);
    buffer.bytes().back() = 1;
  }
}

TEST(ContentIdTest, DependsOnBytesAndCutAndNothingElse) {
  FakeLayer a, b;
  b.AddGap(100);
  const uint32_t in_a = a.AddRandomFile("x", 3, 1000, 1);
  const uint32_t in_b = b.AddRandomFile("other/name", 3, 1000, 1);
  const uint32_t other = b.AddRandomFile("x", 3, 1000, 2);
  const uint32_t cut = b.AddFile("cut", a.file(in_a), {1500, 1500});
  const auto id = [](const FakeLayer& layer, uint32_t entry) {
    const auto source = layer.Source();
    auto spec = ContentId(*source->index, source->index->entries[entry]);
    EXPECT_OK(spec);
    return spec->id;
  };
  EXPECT_EQ(id(a, in_a), id(b, in_b));
  EXPECT_NE(id(a, in_a), id(b, other));
  EXPECT_NE(id(a, in_a), id(b, cut));
}

// A layer that claims another file's digest for its own bytes must not get at, or put itself in place of, that file's cache.
TEST(ContentIdTest, AClaimedFileDigestIsNotBelieved) {
  FakeLayer a, liar;
  a.AddRandomFile("x", 3, 1000, 1);
  liar.AddRandomFile("x", 3, 1000, 2);
  liar.index().entries[0].file_digest = a.index().entries[0].file_digest;
  EXPECT_NE(ContentId(a.index(), a.index().entries[0])->id, ContentId(liar.index(), liar.index().entries[0])->id);
}

TEST(ContentIdTest, ImpossibleEntriesAreRefused) {
  FakeLayer good;
  good.AddRandomFile("x", 3, 1000, 1);
  const auto check = [&](auto change) {
    format::LayerIndex index = good.index();
    change(index);
    EXPECT_CODE(ContentId(index, index.entries[0]), StatusCode::kInvalidArgument);
  };
  check([](auto& i) { i.entries[0].chunk_count = 4; });
  check([](auto& i) { i.entries[0].chunk_count = 0; });
  check([](auto& i) { i.entries[0].first_chunk = 0xffffffff; });
  check([](auto& i) { i.entries[0].size = 2999; });
  check([](auto& i) { i.entries[0].size = 3001; });
  check([](auto& i) { i.entries[0].type = format::EntryType::kSymlink; });
  check([](auto& i) { i.chunks[1].file_offset = 999; });
  check([](auto& i) { i.chunks[1].size = uint64_t{1} << 60; });
  check([](auto& i) { i.chunks[1].blob_size = uint64_t{1} << 40; });
  check([](auto& i) { i.chunks[1].blob_size = 0; });
  check([](auto& i) { i.chunks[1].digest = Digest(); });
}

TEST(LogLimiterTest, LetsAFewThroughAndCountsTheRest) {
  LogLimiter limiter;
  uint64_t suppressed = 99;
  int allowed = 0;
  for (int i = 0; i < 1000; ++i) allowed += limiter.Allow(&suppressed);
  EXPECT_EQ(allowed, 10);
  EXPECT_EQ(suppressed, 0u);
}

}  // namespace
}  // namespace headrace::stream
