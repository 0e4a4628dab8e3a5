// Goal: what the planner decides with: how reads are taken for streams, the order of an image's files, how many ranges are under way, room.
#include <gtest/gtest.h>

#include "fusefs/stream/image_files.h"
#include "fusefs/stream/neighbours.h"
#include "fusefs/stream/read_tracker.h"
#include "fusefs/stream/scheduler.h"
#include "fusefs/stream/window_tuner.h"
#include "test/stream/fake_layer.h"
#include "test/support/matchers.h"

namespace headrace::stream {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
const TimePoint kStart = TimePoint(std::chrono::hours(1));

TEST(KindOfTest, ByTheEndOfTheName) {
  EXPECT_EQ(KindOf("models/a-00001-of-2.safetensors"), FileKind::kModel);
  EXPECT_EQ(KindOf("Q4.GGUF"), FileKind::kModel);
  EXPECT_EQ(KindOf("pytorch_model.bin"), FileKind::kWeights);
  EXPECT_EQ(KindOf("libtorch.so"), FileKind::kPlain);
  EXPECT_EQ(KindOf(""), FileKind::kPlain);
}

TEST(ReadTrackerTest, AModelIsWholeAtItsFirstTouchOnce) {
  ReadTracker tracker(100 * kMiB);
  EXPECT_TRUE(tracker.OnRead(FileKind::kModel, 0, 8, kStart));
  EXPECT_FALSE(tracker.OnRead(FileKind::kModel, 8, 8, kStart));
  tracker.ForgetWhole();
  EXPECT_TRUE(tracker.OnRead(FileKind::kModel, 16, 8, kStart));
}

TEST(ReadTrackerTest, APlainFileIsWholeWhenReadForwardOrAllOver) {
  ReadTracker forward(100 * kMiB);
  EXPECT_FALSE(forward.OnRead(FileKind::kPlain, 0, kMiB / 2, kStart));
  EXPECT_TRUE(forward.OnRead(FileKind::kPlain, kMiB / 2, kMiB / 2, kStart));
  ReadTracker all_over(1000 * kMiB);
  int whole = 0;
  for (uint64_t i = 0; i < 8; ++i) whole += all_over.OnRead(FileKind::kPlain, (i * 37 % 50) * 20 * kMiB, 4096, kStart);
  EXPECT_EQ(whole, 1);
  ReadTracker looked_at(1000 * kMiB);
  for (uint64_t i = 0; i < 100; ++i) EXPECT_FALSE(looked_at.OnRead(FileKind::kPlain, (i % 3) * 100 * kMiB, 4096, kStart));
}

// Four interleaved forward streams: planning goes on where the reader has least in front of it.
TEST(ReadTrackerTest, TheLeastServedCursorIsNext) {
  ReadTracker tracker(400 * kMiB);
  for (uint64_t i = 0; i < 4; ++i) tracker.OnRead(FileKind::kModel, i * 100 * kMiB, kMiB, kStart);
  std::vector<uint64_t> planned(4);
  for (int n = 0; n < 40; ++n) {
    const uint64_t at = tracker.NextPosition();
    planned[at / (100 * kMiB)] += 4 * kMiB;
    tracker.Planned(at, at + 4 * kMiB);
  }
  for (const uint64_t bytes : planned) EXPECT_EQ(bytes, 40 * kMiB);
  tracker.OnRead(FileKind::kModel, 201 * kMiB, 30 * kMiB, kStart);  // the third one ran ahead
  EXPECT_EQ(tracker.NextPosition(), 241 * kMiB);
  EXPECT_EQ(tracker.Lead(), 10 * kMiB);
}

TEST(ReadTrackerTest, WhatCursorsLeaveIsSweptAndFailuresComeAgain) {
  ReadTracker tracker(100 * kMiB);
  tracker.OnRead(FileKind::kModel, 60 * kMiB, kMiB, kStart);
  EXPECT_EQ(tracker.NextPosition(), 61 * kMiB);
  tracker.Planned(61 * kMiB, 100 * kMiB);
  EXPECT_EQ(tracker.NextPosition(), 0u);
  tracker.Planned(0, 100 * kMiB);
  EXPECT_EQ(tracker.NextPosition(), 100 * kMiB);
  tracker.Rewind(80 * kMiB);
  EXPECT_EQ(tracker.NextPosition(), 80 * kMiB);
  tracker.Planned(80 * kMiB, 100 * kMiB);
  tracker.Rewind(10 * kMiB);  // behind the reader: only the sweep goes back
  EXPECT_EQ(tracker.NextPosition(), 10 * kMiB);
}

using Part = std::optional<std::pair<uint64_t, uint64_t>>;
Part BehindInMiB(const ReadTracker& tracker, uint64_t from = 0) {
  const auto part = tracker.Behind(from);
  return part ? Part({part->begin / kMiB, part->end / kMiB}) : std::nullopt;
}

// What a reader has behind it may go, but for the eight MiB in which its requests may still come; once.
TEST(ReadTrackerTest, WhatIsBehindAReaderIsGivenBackOnce) {
  ReadTracker tracker(400 * kMiB);
  tracker.OnRead(FileKind::kModel, 0, 8 * kMiB, kStart);
  EXPECT_EQ(BehindInMiB(tracker), std::nullopt);
  for (uint64_t i = 1; i < 5; ++i) tracker.OnRead(FileKind::kModel, i * 8 * kMiB, 8 * kMiB, kStart);
  EXPECT_EQ(BehindInMiB(tracker), Part({0, 32}));
  tracker.GaveBack(0, 12 * kMiB);
  EXPECT_EQ(BehindInMiB(tracker), Part({12, 32}));
  tracker.GaveBack(12 * kMiB, 32 * kMiB);
  EXPECT_EQ(BehindInMiB(tracker), std::nullopt);
  // And it is not planned again: neither as a hole nor before the next read.
  EXPECT_EQ(tracker.NextPosition(), 40 * kMiB);
  tracker.Planned(40 * kMiB, 400 * kMiB);
  EXPECT_EQ(tracker.NextPosition(), 400 * kMiB);
}

TEST(ReadTrackerTest, WhatAnotherReaderIsAboutToReadStays) {
  ReadTracker tracker(400 * kMiB);
  for (uint64_t i = 0; i < 10; ++i) tracker.OnRead(FileKind::kModel, i * 10 * kMiB, 10 * kMiB, kStart);
  tracker.OnRead(FileKind::kModel, 0, 8, kStart);  // from the front again
  tracker.OnRead(FileKind::kModel, 8, 20 * kMiB, kStart);
  tracker.Planned(20 * kMiB + 8, 40 * kMiB);
  // The second one is at 20, planned to 40: behind it goes what it has read; the first one's part only when that is past.
  EXPECT_EQ(BehindInMiB(tracker), Part({0, 12}));
  tracker.GaveBack(0, 12 * kMiB);
  // Both have looked at it.
  EXPECT_NE(BehindInMiB(tracker), Part({0, 12}));
  tracker.OnRead(FileKind::kModel, 20 * kMiB + 8, 80 * kMiB, kStart);
  EXPECT_EQ(BehindInMiB(tracker), Part({12, 92}));
}

// Four read a quarter each: the plan of the first does not go on with what the second one has read already.
TEST(ReadTrackerTest, APlanGoesAroundWhatWasGivenBack) {
  ReadTracker tracker(400 * kMiB);
  for (uint64_t i = 0; i < 2; ++i) {
    tracker.OnRead(FileKind::kModel, i * 100 * kMiB, 60 * kMiB, kStart);
    tracker.Planned((i * 100 + 60) * kMiB, (i * 100 + 100) * kMiB);
  }
  tracker.GaveBack(100 * kMiB, 140 * kMiB);
  EXPECT_EQ(tracker.NextPosition(), 200 * kMiB);  // of the second one: the first one's next is further away now
  tracker.Planned(200 * kMiB, 400 * kMiB);
  EXPECT_EQ(tracker.NextPosition(), 160 * kMiB);
  // Who begins within it reads it again.
  tracker.OnRead(FileKind::kModel, 110 * kMiB, kMiB, kStart);
  EXPECT_EQ(tracker.NextPosition(), 111 * kMiB);
}

// More places than cursors: what the forgotten ones have read may go all the same.
TEST(ReadTrackerTest, ReadersThatWereForgottenLeaveTheirParts) {
  ReadTracker tracker(uint64_t{1} << 40);
  for (uint64_t i = 0; i < 2 * ReadTracker::kCursorsMax; ++i) tracker.OnRead(FileKind::kModel, i * 100 * kMiB, 4 * kMiB, kStart);
  uint64_t parts = 0;
  for (Part part = BehindInMiB(tracker); part; part = BehindInMiB(tracker)) {
    EXPECT_EQ(part->second - part->first, 4u);
    tracker.GaveBack(part->first * kMiB, part->second * kMiB);
    ++parts;
  }
  EXPECT_EQ(parts, ReadTracker::kCursorsMax);
}

// A part that is too small to go (less than a chunk, and its reader gone) is passed over, and keeps none of those behind it; of two that begin alike the larger one is meant.
TEST(ReadTrackerTest, PartsArePassedOver) {
  ReadTracker tracker(uint64_t{1} << 40);
  for (uint64_t i = 0; i < ReadTracker::kCursorsMax; ++i) tracker.OnRead(FileKind::kModel, i * 100 * kMiB, kMiB, kStart);
  for (uint64_t i = 1; i < 7; ++i) tracker.OnRead(FileKind::kModel, i * kMiB, kMiB, kStart);          // 7 of the first: all within its slack
  for (uint64_t i = 0; i < 2; ++i) tracker.OnRead(FileKind::kModel, (8000 + i * 100) * kMiB, kMiB, kStart);  // two are forgotten
  EXPECT_EQ(BehindInMiB(tracker), Part({100, 101}));
  EXPECT_EQ(BehindInMiB(tracker, 100 * kMiB + 1), Part({200, 201}));
  EXPECT_EQ(BehindInMiB(tracker, 200 * kMiB + 1), std::nullopt);
  for (uint64_t i = 0; i < 20; ++i) tracker.OnRead(FileKind::kModel, (100 + i) * kMiB, kMiB, kStart);  // from its begin once more
  EXPECT_EQ(BehindInMiB(tracker), Part({100, 112}));
}

TEST(ReadTrackerTest, ManyStreamsAreBounded) {
  ReadTracker tracker(uint64_t{1} << 40);
  for (uint64_t i = 0; i < 1000; ++i) tracker.OnRead(FileKind::kModel, (i * 7919 % 1000) << 30, 4096, kStart);
  const uint64_t at = tracker.NextPosition();
  EXPECT_LT(at, uint64_t{1} << 40);
}

TEST(ReadTrackerTest, ActiveIsReadBeyondTheHeadLately) {
  ReadTracker tracker(1000 * kMiB);
  tracker.OnRead(FileKind::kModel, 0, kMiB, kStart);
  EXPECT_FALSE(tracker.Active(kStart));
  tracker.OnRead(FileKind::kModel, kMiB, 8 * kMiB, kStart);
  EXPECT_TRUE(tracker.Active(kStart));
  EXPECT_FALSE(tracker.Active(kStart + std::chrono::seconds(6)));
}

TEST(NaturalLessTest, DigitsAreNumbers) {
  EXPECT_TRUE(NaturalLess("model-2", "model-10"));
  EXPECT_FALSE(NaturalLess("model-10", "model-2"));
  EXPECT_TRUE(NaturalLess("model-00009-of-00012", "model-00010-of-00012"));
  EXPECT_TRUE(NaturalLess("a", "b"));
  EXPECT_TRUE(NaturalLess("a", "a1"));
  EXPECT_FALSE(NaturalLess("a1", "a1"));
  EXPECT_NE(NaturalLess("a01", "a1"), NaturalLess("a1", "a01"));  // some order, the same always
  EXPECT_TRUE(NaturalLess("99999999999999999999998", "99999999999999999999999"));
}

std::vector<std::string> TakeAll(ImageFiles& files, const FilePlace& from) {
  std::vector<std::string> names;
  while (auto place = files.TakeNext(from)) names.push_back(place->meta().name);
  return names;
}

// Shards are in layers of their own; what comes next is found across them.
TEST(ImageFilesTest, NextShardsAcrossLayersInNaturalOrder) {
  ImageFiles files(100);
  std::vector<std::shared_ptr<const LayerSource>> layers;
  for (const char* name : {"m/w-10.safetensors", "m/w-2.safetensors", "m/w-1.safetensors", "m/other.bin", "n/w-3.safetensors"}) {
    FakeLayer layer;
    layer.AddRandomFile(name, 1, 1000, layers.size() + 1);
    layer.AddRandomFile(std::string(name) + ".json", 1, 50, 99);  // small: not taken up
    layers.push_back(layer.Source());
    files.Add("image", layers.back(), true);
  }
  const FilePlace second{layers[1], 0};
  files.Take(second);
  EXPECT_EQ(TakeAll(files, second), (std::vector<std::string>{"m/w-10.safetensors", "m/w-1.safetensors"}));
  EXPECT_FALSE(files.TakeNext(second));
  files.PutBack(FilePlace{layers[2], 0});
  EXPECT_EQ(TakeAll(files, second), (std::vector<std::string>{"m/w-1.safetensors"}));
  EXPECT_EQ(files.TakeFill(second)->meta().name, "n/w-3.safetensors");
  EXPECT_EQ(files.TakeFill(second)->meta().name, "m/other.bin");
  EXPECT_FALSE(files.TakeFill(second));
}

TEST(ImageFilesTest, LayersAreCountedAndFillCanBeOff) {
  ImageFiles files(0);
  FakeLayer a, b;
  a.AddRandomFile("w-1.gguf", 1, 1000, 1);
  b.AddRandomFile("w-2.gguf", 1, 1000, 2);
  const auto first = a.Source(), second = b.Source();
  files.Add("image", first, true);
  files.Add("image", second, false);
  files.Add("image", second, false);
  EXPECT_FALSE(files.TakeFill({first, 0}));
  files.Remove("image", second);
  EXPECT_EQ(files.TakeNext({first, 0})->meta().name, "w-2.gguf");
  files.Remove("image", second);
  files.PutBack({second, 0});
  EXPECT_FALSE(files.TakeNext({first, 0}));
  files.Remove("image", first);
  files.Remove("image", first);  // once too often: harmless
  files.Remove("no such image", first);
}

// A path on which each connection brings 1000 bytes a second, up to `limit` in all.
unsigned Settle(WindowTuner& tuner, double limit) {
  TimePoint now = kStart;
  double bytes = 0;
  for (int i = 0; i < 20; ++i) {
    tuner.Tick(now, static_cast<uint64_t>(bytes), true);
    now += WindowTuner::kTick;
    bytes += std::min(limit, tuner.window() * 1000.0) * 0.2;
  }
  return tuner.window();
}

TEST(WindowTunerTest, GrowsWhileItPays) {
  WindowTuner slow(4, 64), wide(4, 64);
  EXPECT_EQ(Settle(slow, 3'000), 4u);
  EXPECT_GE(Settle(wide, 30'000), 26u);
  EXPECT_LE(wide.window(), 64u);
}

TEST(WindowTunerTest, LearnsNothingWithoutPressure) {
  WindowTuner tuner(4, 64);
  TimePoint now = kStart;
  for (int i = 0; i < 50; ++i) EXPECT_FALSE(tuner.Tick(now += WindowTuner::kTick, 1000u * static_cast<unsigned>(i), false));
  EXPECT_EQ(tuner.window(), 4u);
  EXPECT_EQ(WindowTuner(10, 3).window(), 3u);
}

TEST(WindowTunerTest, RangesAreHalfASecondOfTheWire) {
  WindowTuner tuner(10, 10);
  EXPECT_EQ(tuner.RangeBytes(8 * kMiB), 4 * kMiB);
  TimePoint now = kStart;
  uint64_t bytes = 0;
  for (int i = 0; i < 10; ++i) tuner.Tick(now += std::chrono::seconds(1), bytes += 60 * kMiB, true);
  EXPECT_EQ(tuner.RangeBytes(8 * kMiB), 3 * kMiB);
  EXPECT_EQ(tuner.RangeBytes(2 * kMiB), 2 * kMiB);
}

class PlannedJob : public Job {
 public:
  PlannedJob(std::shared_ptr<Scheduler> scheduler, uint64_t cost) : scheduler_(std::move(scheduler)), cost_(cost) {}
  uint64_t cost() const override { return cost_; }
  bool cancelled() const override { return false; }
  void Begin() override { charge_ = Charge(scheduler_, cost_); }
  void End() {
    charge_ = Charge();
    scheduler_->EndTurn();
  }

 private:
  std::shared_ptr<Scheduler> scheduler_;
  uint64_t cost_;
  Charge charge_;
};

TEST(SchedulerRoomTest, LeavesAQuarterToReadersAndKeepsToTheWindow) {
  auto scheduler = std::make_shared<Scheduler>(1000);
  int told = 0;
  scheduler->SetListener([&] { ++told; });
  scheduler->SetWindow(2);
  EXPECT_EQ(scheduler->Room(), UINT64_MAX);  // nothing is under way: any may go
  auto a = std::make_shared<PlannedJob>(scheduler, 700), b = std::make_shared<PlannedJob>(scheduler, 100);
  scheduler->StartPlanned(a);
  EXPECT_EQ(scheduler->Room(), 50u);
  scheduler->Submit(b, Priority::kDemand);  // a reader has the rest
  EXPECT_EQ(scheduler->used(), 800u);
  EXPECT_EQ(scheduler->Room(), 0u);
  auto c = std::make_shared<PlannedJob>(scheduler, 300);
  scheduler->Submit(c, Priority::kDemand);
  EXPECT_EQ(scheduler->queued(), 1u);
  told = 0;
  a->End();
  EXPECT_GT(told, 0);
  EXPECT_EQ(scheduler->active(), 2u);  // b and c
  EXPECT_EQ(scheduler->Room(), 0u);    // the window is full
  b->End();
  EXPECT_EQ(scheduler->Room(), 450u);
  c->End();
  EXPECT_EQ(scheduler->active(), 0u);
}

class NeighboursTest : public ::testing::Test {
 protected:
  NeighboursTest() {
    auto index = std::make_shared<format::LayerIndex>();
    for (int i = 0; i < 2000; ++i) {
      format::Entry entry;
      entry.name = std::to_string(i);
      entry.type = i % 10 == 9 ? format::EntryType::kSymlink : format::EntryType::kRegular;
      entry.size = entry.type == format::EntryType::kRegular ? 1000 : 0;
      index->entries.push_back(entry);
    }
    index->entries[20].size = 5 << 20;  // not a small one
    layer_ = std::make_shared<const LayerSource>(LayerSource{{"r/m:1", Digest::Of("blob")}, index});
  }
  std::vector<uint32_t> Taken() {
    std::vector<uint32_t> entries;
    while (auto place = neighbours_.Take()) entries.push_back(place->entry);
    return entries;
  }

  std::shared_ptr<const LayerSource> layer_;
  Neighbours neighbours_{1 << 20};
};

// Goal: the second open of a walk asks for four, then twice as many; what is no small file is left out; nothing twice.
TEST_F(NeighboursTest, AWalkIsFollowedFurtherAndFurther) {
  neighbours_.Opened({layer_, 5});
  EXPECT_EQ(Taken(), std::vector<uint32_t>{});
  neighbours_.Opened({layer_, 6});
  EXPECT_EQ(Taken(), (std::vector<uint32_t>{7, 8, 10, 11}));
  neighbours_.Opened({layer_, 7});
  EXPECT_EQ(Taken(), (std::vector<uint32_t>{12, 13, 14, 15, 16}));
  for (uint32_t i = 8; i < 300; ++i) neighbours_.Opened({layer_, i});
  const std::vector<uint32_t> rest = Taken();
  EXPECT_EQ(rest.front(), 17u);
  EXPECT_TRUE(std::is_sorted(rest.begin(), rest.end()));
  EXPECT_EQ(std::adjacent_find(rest.begin(), rest.end()), rest.end());
  EXPECT_EQ(std::count(rest.begin(), rest.end(), 20u), 0);
  EXPECT_LE(rest.back(), 299 + Neighbours::kNear);
  EXPECT_GE(rest.back(), 299 + Neighbours::kAheadMax);
}

// Goal: jumps ask for nothing, and make a walk that was followed less far; a dropped layer asks for nothing.
TEST_F(NeighboursTest, JumpsAndDrops) {
  for (uint32_t entry : {1000u, 1u, 1900u, 600u}) neighbours_.Opened({layer_, entry});
  EXPECT_EQ(Taken(), std::vector<uint32_t>{});
  neighbours_.Opened({layer_, 601});
  neighbours_.Drop(layer_->blob.digest);
  EXPECT_EQ(Taken(), std::vector<uint32_t>{});
}

}  // namespace
}  // namespace headrace::stream
