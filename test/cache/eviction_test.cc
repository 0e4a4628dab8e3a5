// Goal: the cache stays within its limits whatever is read through it, nothing wrong is read, nothing that is pinned or in use goes, and what goes is what was used least recently.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>
#include <set>
#include <thread>

#include "fusefs/base/file.h"
#include "fusefs/cache/content_store.h"
#include "test/cache/wait.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::cache {
namespace {

constexpr uint64_t kChunk = 16 << 10;
constexpr uint32_t kChunksEach = 8;
constexpr uint64_t kContentBytes = kChunk * kChunksEach;

class EvictionTest : public ::testing::Test {
 protected:
  void Start(const SpaceLimits& limits, std::chrono::seconds max_age = std::chrono::seconds(0)) {
    store_.reset();
    auto store = ContentStore::Create({.root = Root(), .write_pause = std::chrono::milliseconds(0), .limits = limits, .max_age = max_age}, metrics_);
    ASSERT_OK(store);
    store_ = std::move(*store);
    ASSERT_TRUE(WaitUntil([&] { return store_->Usage().counted; }));
  }
  std::string Root() const { return dir_ / "cache"; }
  static ContentSpec Spec(unsigned number) {
    return {.id = Digest::Of("content " + std::to_string(number)), .file_digest = {}, .size = kContentBytes, .chunk_count = kChunksEach};
  }
  static std::vector<uint8_t> Bytes(unsigned number, uint32_t chunk) {
    std::vector<uint8_t> bytes(kChunk);
    std::minstd_rand random(number * 1000 + chunk + 1);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 255 + 1);
    return bytes;
  }
  std::shared_ptr<ContentFile> Open(unsigned number) {
    auto file = store_->Open(Spec(number));
    EXPECT_OK(file);
    return file.ok() ? *file : nullptr;
  }
  // Writes all of it and lets go once it is sealed.
  void Fill(unsigned number) {
    auto file = Open(number);
    for (uint32_t i = 0; i < kChunksEach; ++i) ASSERT_OK(file->WriteChunk(i, i * kChunk, Bytes(number, i)));
    ASSERT_TRUE(WaitUntil([&] { return file->sealed(); }));
  }
  std::string Path(unsigned number, const std::string& extension) const {
    const std::string hex = Spec(number).id.Hex();
    return Root() + "/" + hex.substr(0, 2) + "/" + hex.substr(2, 2) + "/" + hex + extension;
  }
  bool IsHere(unsigned number) const { return ::access(Path(number, ".data").c_str(), F_OK) == 0; }
  // Last used so long ago. Whoever still lets go of it (who sealed it) would set the time anew: waits until the map's lock is free.
  void Age(unsigned number, std::chrono::seconds ago) {
    ASSERT_TRUE(WaitUntilUnused(Path(number, ".map")));
    timespec times[2];
    ASSERT_EQ(::clock_gettime(CLOCK_REALTIME, &times[0]), 0);
    times[0].tv_sec -= ago.count();
    times[1] = times[0];
    ASSERT_EQ(::utimensat(AT_FDCWD, Path(number, ".map").c_str(), times, 0), 0);
  }
  void Pin(const std::string& name, std::initializer_list<unsigned> numbers) {
    std::vector<Digest> ids;
    for (const unsigned number : numbers) ids.push_back(Spec(number).id);
    ASSERT_OK(store_->Pin(name, ids));
  }
  void Mounted(std::set<unsigned> numbers) {
    store_->SetMounted([numbers] {
      std::vector<Digest> ids;
      for (const unsigned number : numbers) ids.push_back(Spec(number).id);
      return ids;
    });
  }
  // As the file system counts the files of the cache.
  uint64_t DiskUse() const {
    uint64_t bytes = 0;
    std::error_code ignored;
    for (auto it = std::filesystem::recursive_directory_iterator(Root(), ignored); it != std::filesystem::recursive_directory_iterator(); it.increment(ignored)) {
      struct stat st;
      if (::stat(it->path().c_str(), &st) == 0 && S_ISREG(st.st_mode) && it->path().native().find("/pins/") == std::string::npos) bytes += static_cast<uint64_t>(st.st_blocks) * 512;
    }
    return bytes;
  }
  // On tmpfs only: ext4 counts a block of a file's extents while it allocates and gives it back afterwards, after everybody has let go (traced: 135168 bytes counted at the last closing,
  // 131072 at the eviction).
  uint64_t CountIsOffBy() const {
    return static_cast<uint64_t>(std::abs(static_cast<int64_t>(store_->Usage().used) - static_cast<int64_t>(DiskUse())));
  }
  // Runs `test` on a thread of its own with the cache on a small file system of its own, which nobody else sees; skips where that cannot be.
  template <typename Test>
  void OnTmpfs(const std::string& size, const Test& test) {
    std::string skip;
    std::thread([&] {
      ASSERT_OK(MakeDirs(Root()));
      if (geteuid() != 0 || unshare(CLONE_FS | CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
          mount("tmpfs", Root().c_str(), "tmpfs", 0, ("size=" + size).c_str()) != 0) {
        skip = "no mount namespace (needs root)";
        return;
      }
      test();
      store_.reset();
      umount2(Root().c_str(), MNT_DETACH);
    }).join();
    if (!skip.empty()) GTEST_SKIP() << skip;
  }
  // All that the file system holds, at one moment.
  uint64_t FileSystemUse() const {
    struct statvfs fs;
    EXPECT_EQ(::statvfs(Root().c_str(), &fs), 0);
    return (fs.f_blocks - fs.f_bfree) * fs.f_frsize;
  }
  std::vector<unsigned> Here(unsigned count) const {
    std::vector<unsigned> here;
    for (unsigned i = 0; i < count; ++i) {
      if (IsHere(i)) here.push_back(i);
    }
    return here;
  }

  test::TempDir dir_;
  Metrics metrics_;
  std::unique_ptr<ContentStore> store_;
};

// The issue's own sentence, 1 : 1024. Method: four threads read 80 contents (10 MiB) chunk by chunk in random order through a budget of 2 MiB, as stream::Content does it (what is not
// believed is compared, what is absent is written, a full cache is none), while somebody asks the file system all the time how much it holds.
class RandomReadsTest : public EvictionTest {
 protected:
  static constexpr uint64_t kBudget = 2 << 20;
  static constexpr unsigned kContents = 80;

  void ReadChunk(ContentFile& file, unsigned number, uint32_t chunk, std::span<uint8_t> got) {
    const std::vector<uint8_t> right = Bytes(number, chunk);
    const auto is_right = [&] { return std::equal(got.begin(), got.end(), right.begin(), right.end()); };
    const uint64_t epoch = file.epoch();
    ++reads_;
    const ChunkState seen = file.state(chunk);
    if (seen == ChunkState::kPresent && file.ReadPresent(epoch, chunk * kChunk, got).ok()) {
      ASSERT_TRUE(is_right()) << "WRONG BYTES of content " << number << " chunk " << chunk;
      ++hits_;
      return;
    }
    if (seen == ChunkState::kUnverified && file.Read(chunk * kChunk, got).ok() && is_right()) {
      ASSERT_OK(file.Confirm(chunk, 0));  // nobody gives back
      return;
    }
    file.Drop(chunk, seen);
    const Status written = file.WriteChunk(chunk, chunk * kChunk, right);
    ASSERT_TRUE(written.ok() || written.code() == StatusCode::kResourceExhausted) << written.ToString();
    refused_ += !written.ok();
  }
  void Read(unsigned long seed) {
    std::mt19937_64 random(seed);
    std::vector<uint8_t> got(kChunk);
    for (int round = 0; round < 1500 && !HasFatalFailure(); ++round) {
      const unsigned number = static_cast<unsigned>(random() % kContents);
      auto file = store_->Open(Spec(number));
      ASSERT_TRUE(file.ok() || file.status().code() == StatusCode::kResourceExhausted) << file.status().ToString();
      refused_ += !file.ok();
      if (!file.ok()) continue;
      for (int i = 0; i < 2; ++i) ReadChunk(**file, number, static_cast<uint32_t>(random() % kChunksEach), got);
    }
  }
  void Run() {
    const unsigned long seed = test::TestSeed();
    Start({.budget = kBudget});
    Mounted({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
    Pin("kept", {3, 50});
    const uint64_t pins = FileSystemUse();  // not contents
    Fill(3);
    Fill(50);
    std::atomic<unsigned> running{4};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        Read(seed + t);
        --running;
      });
    }
    uint64_t most = 0;
    for (; running > 0; std::this_thread::yield()) most = std::max(most, FileSystemUse() - pins);
    for (std::thread& thread : threads) thread.join();
    std::cout << "reads=" << reads_ << " hits=" << hits_ << " refused=" << refused_ << " evicted=" << Metrics::Get(metrics_.cache_evicted_contents) << " most=" << most << "\n";
    // "never exceeds the high mark by more than one range" is asked; a chunk is the least that a range has. tmpfs counts pages before it knows whether another thread has just brought the same ones.
    EXPECT_LE(most, kBudget + kChunk);
    EXPECT_GT(most, kBudget / 2) << "the budget is not used";
    EXPECT_GT(Metrics::Get(metrics_.cache_evicted_contents), 100);
    EXPECT_TRUE(WaitUntil([&] { return CountIsOffBy() == 0; })) << "the count is wrong: " << store_->Usage().used << " of " << DiskUse();
    for (const unsigned number : {3u, 50u}) EXPECT_TRUE(Open(number)->sealed()) << "a pinned content was lost: " << number;
  }

  std::atomic<uint64_t> reads_{0}, hits_{0}, refused_{0};
};

TEST_F(RandomReadsTest, NeverExceedTheBudgetAndNeverGiveWrongBytes) {
  OnTmpfs("64m", [this] { Run(); });
}

TEST_F(EvictionTest, UnmountedGoFirstThenLeastRecentlyUsed) {
  Start({});
  for (unsigned i = 0; i < 8; ++i) {
    Fill(i);
    Age(i, std::chrono::seconds(1000 - i * 100));
  }
  Mounted({0, 2});
  Pin("image", {1});
  auto open = Open(3);
  const uint64_t each = (DiskUse() + 7) / 8;
  // In order: 4 5 6 7, then 0 2; never 1 and 3.
  const std::vector<std::vector<unsigned>> left = {{0, 1, 2, 3, 5, 6, 7}, {0, 1, 2, 3, 6, 7}, {0, 1, 2, 3, 7}, {0, 1, 2, 3}, {1, 2, 3}, {1, 3}, {1, 3}};
  for (size_t i = 0; i < left.size(); ++i) {
    SCOPED_TRACE(i);
    const uint64_t keep = (7 - i) * each + each / 2;
    auto would = store_->Prune({.keep_bytes = keep, .mounted = true, .dry_run = true});
    ASSERT_OK(would);
    EXPECT_EQ(would->contents, i + 1 < left.size() ? 1u : 0u);
    auto pruned = store_->Prune({.keep_bytes = keep, .mounted = true});
    ASSERT_OK(pruned);
    EXPECT_EQ(pruned->contents, would->contents);
    EXPECT_EQ(Here(8), left[i]);
    EXPECT_EQ(store_->Usage().used, DiskUse());
  }
}

TEST_F(EvictionTest, PruneLeavesMountedAndRecentOnes) {
  Start({});
  for (unsigned i = 0; i < 4; ++i) {
    Fill(i);
    Age(i, std::chrono::seconds(i * 100));
  }
  Mounted({3});
  auto pruned = store_->Prune({.min_age = std::chrono::seconds(150)});
  ASSERT_OK(pruned);
  EXPECT_EQ(Here(4), std::vector<unsigned>({0, 1, 3}));
  ASSERT_OK(store_->Prune({}));
  EXPECT_EQ(Here(4), std::vector<unsigned>({3}));
}

// The kernel reads a passed-through file without us, and goes on when this process is gone: what it has is the description of the file that we opened.
TEST_F(EvictionTest, WhatTheKernelServesIsLeftAlone) {
  Start({});
  Fill(0);
  auto file = Open(0);
  UniqueFd kernel(::fcntl(file->backing_fd(), F_DUPFD_CLOEXEC, 0));  // the same description, as /dev/fuse takes it
  ASSERT_TRUE(kernel.valid());
  file.reset();
  for (const bool another_process : {false, true}) {
    if (another_process) Start({});
    auto pruned = store_->Prune({.mounted = true});
    ASSERT_OK(pruned);
    EXPECT_EQ(pruned->contents, 0u);
    EXPECT_TRUE(Open(0)->sealed());
  }
  kernel.Reset();
  ASSERT_OK(store_->Prune({}));
  EXPECT_FALSE(IsHere(0));
}

TEST_F(EvictionTest, WhatAnotherProcessHasOpenIsLeftAlone) {
  Start({});
  auto other = ContentStore::Create({.root = Root()}, metrics_);
  ASSERT_OK(other);
  auto theirs = (*other)->Open(Spec(0));
  ASSERT_OK(theirs);
  ASSERT_OK((*theirs)->WriteChunk(0, 0, Bytes(0, 0)));
  auto pruned = store_->Prune({});
  ASSERT_OK(pruned);
  EXPECT_EQ(pruned->contents, 0u);
  EXPECT_TRUE(IsHere(0));
  theirs->reset();
  ASSERT_OK(store_->Prune({}));
  EXPECT_FALSE(IsHere(0));
}

TEST_F(EvictionTest, PinsSurviveRestartsAndEnd) {
  Start({});
  for (unsigned i = 0; i < 3; ++i) Fill(i);
  Pin("registry.example.com/m:v1", {0, 1});
  Pin("registry.example.com/m:v2", {1});
  ASSERT_OK(store_->Pin("registry.example.com/m:v2", {}, {"layer one"}));
  Start({});
  auto pins = store_->Pinned();
  ASSERT_EQ(pins.size(), 2u);
  EXPECT_EQ(pins[0].contents.size(), 2u);
  EXPECT_EQ(pins[1].notes, std::vector<std::string>({"layer one"}));
  ASSERT_OK(store_->Prune({.mounted = true}));
  EXPECT_EQ(Here(3), std::vector<unsigned>({0, 1}));
  ASSERT_OK(store_->Unpin("registry.example.com/m:v1"));
  EXPECT_CODE(store_->Unpin("registry.example.com/m:v1"), StatusCode::kNotFound);
  Start({});
  ASSERT_OK(store_->Prune({.mounted = true}));
  EXPECT_EQ(Here(3), std::vector<unsigned>({1}));
  ASSERT_OK(store_->Unpin("registry.example.com/m:v2"));
  ASSERT_OK(store_->Prune({.mounted = true}));
  EXPECT_TRUE(Here(3).empty());
  for (const std::string& name : {std::string(), std::string("a\nb"), std::string(5000, 'x')}) EXPECT_CODE(store_->Pin(name, {}), StatusCode::kInvalidArgument);
}

// Method: a pin's file loses or changes bytes; what is still clear in it is pinned all the same, and it can be removed under the name that is listed.
TEST_F(EvictionTest, ADamagedPinProtectsWhatIsReadable) {
  Start({});
  Fill(0);
  Fill(1);
  Pin("kept", {0, 1});
  const std::string path = Root() + "/pins/" + Digest::Of("kept").Hex();
  auto text = ReadFile(path, 1 << 20);
  ASSERT_OK(text);
  std::string torn = *text;
  torn[torn.find(Spec(1).id.Hex())] = 'x';
  torn.replace(torn.find("name kept"), 9, "name torn");
  ASSERT_OK(WriteFileAtomic(path, torn));
  Start({});
  ASSERT_OK(store_->Prune({.mounted = true}));
  EXPECT_EQ(Here(2), std::vector<unsigned>({0}));
  const auto pins = store_->Pinned();
  ASSERT_EQ(pins.size(), 1u);
  ASSERT_OK(store_->Unpin(pins[0].name));
  Start({});
  EXPECT_TRUE(store_->Pinned().empty());
}

TEST_F(EvictionTest, PinFilesOfAnyBytesAreParsed) {
  const unsigned long seed = test::TestSeed();
  std::mt19937_64 random(seed);
  const PinRecord pin{.name = "registry/image:tag", .contents = {Digest::Of("a"), Digest::Of("b")}, .notes = {"layer x"}, .damaged = false};
  const std::string text = EncodePin(pin);
  const PinRecord back = ParsePin(text);
  EXPECT_FALSE(back.damaged);
  EXPECT_EQ(back.name, pin.name);
  EXPECT_EQ(back.contents, pin.contents);
  EXPECT_EQ(back.notes, pin.notes);
  for (int round = 0; round < 5000; ++round) {
    std::string other = text;
    for (uint64_t i = random() % 4; i > 0; --i) other[random() % other.size()] = static_cast<char>(random());
    other.resize(random() % 3 == 0 ? random() % other.size() : other.size());
    const PinRecord parsed = ParsePin(other);
    // A changed byte may end a line, and both halves be read: what is readable of a damaged pin is pinned. (Seen with 3: seed of 29 November.)
    EXPECT_LE(parsed.contents.size(), other.size() / 8 + 1);
    EXPECT_TRUE(parsed.damaged || parsed.contents.size() == 2);
  }
}

// Method: everything is pinned, so nothing can go: writes are refused at once, and go on as soon as there is room.
TEST_F(EvictionTest, AFullCacheRefusesWithoutWaiting) {
  Start({.budget = 10 * kContentBytes});
  std::vector<Digest> ids;
  for (unsigned i = 0; i < 20; ++i) ids.push_back(Spec(i).id);
  ASSERT_OK(store_->Pin("everything", ids));
  Status status;
  unsigned number = 0;
  std::shared_ptr<ContentFile> file;
  for (; number < 20 && status.ok(); ++number) {
    file = Open(number);
    for (uint32_t i = 0; i < kChunksEach && status.ok(); ++i) status = file->WriteChunk(i, i * kChunk, Bytes(number, i));
  }
  EXPECT_CODE(status, StatusCode::kResourceExhausted);
  EXPECT_GE(number, 9u);
  EXPECT_TRUE(file->usable());
  EXPECT_FALSE(file->HasRoom(kChunk));
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(file->WriteChunk(7, 7 * kChunk, Bytes(number, 7)).ok());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2)) << "a writer waited for the evictor";
  EXPECT_EQ(Metrics::Get(metrics_.cache_evicted_contents), 0);
  EXPECT_GE(Metrics::Get(metrics_.cache_writes_refused), 1000);
  EXPECT_EQ(Metrics::Get(metrics_.cache_write_errors), 0);
  // A whole content is not placed either, after a while.
  ASSERT_OK(store_->Put(Spec(30), std::vector<uint8_t>(kContentBytes, 1)));
  EXPECT_FALSE(IsHere(30));
  ASSERT_OK(store_->Unpin("everything"));
  EXPECT_TRUE(WaitUntil([&] { return file->WriteChunk(7, 7 * kChunk, Bytes(number, 7)).ok(); }));
  EXPECT_GT(Metrics::Get(metrics_.cache_evicted_contents), 0);
}

// What does not fit when it is staged is not adopted; its bytes are given back.
TEST_F(EvictionTest, StagedFilesCount) {
  Start({.budget = 4 * kContentBytes});
  Pin("kept", {0, 1, 2});
  for (unsigned i = 0; i < 3; ++i) Fill(i);
  const std::vector<uint8_t> bytes(kContentBytes, 7);
  for (const bool fits : {true, false}) {
    const uint64_t before = store_->Usage().used;
    auto staged = store_->Stage();
    ASSERT_OK(staged);
    ASSERT_OK((*staged)->Write(0, std::span(bytes).first(kContentBytes / 2)));
    EXPECT_GT(store_->Usage().used, before);
    if (fits) {
      staged->reset();
    } else {
      ASSERT_OK((*staged)->Write(kContentBytes / 2, bytes));
      ASSERT_OK(store_->Adopt(Spec(9), std::move(*staged)));
      EXPECT_FALSE(IsHere(9));
    }
    EXPECT_EQ(store_->Usage().used, before);
  }
  EXPECT_EQ(store_->Usage().used, DiskUse());
}

TEST_F(EvictionTest, WhatWasHereBeforeCounts) {
  Start({});
  for (unsigned i = 0; i < 10; ++i) {
    Fill(i);
    Age(i, std::chrono::seconds(100 - i));
  }
  const uint64_t used = DiskUse();
  Start({.budget = used / 2});
  EXPECT_TRUE(WaitUntil([&] { return DiskUse() <= used / 2 * 90 / 100; }));
  EXPECT_FALSE(IsHere(0));
  EXPECT_TRUE(IsHere(9));
  EXPECT_TRUE(WaitUntil([&] { return store_->Usage().used == DiskUse(); }));
}

TEST_F(EvictionTest, OldContentsGoUnlessMountedOrPinned) {
  Start({});
  for (unsigned i = 0; i < 5; ++i) {
    Fill(i);
    Age(i, std::chrono::hours(i * 10));
  }
  Pin("kept", {4});
  Start({}, std::chrono::hours(15));
  EXPECT_TRUE(WaitUntil([&] { return !IsHere(2) && !IsHere(3); }));
  EXPECT_EQ(Here(5), std::vector<unsigned>({0, 1, 4}));
}

// A crash between the two removals leaves a data file that nobody would find again.
TEST_F(EvictionTest, ADataFileWithoutMapGoes) {
  Start({});
  Fill(0);
  ASSERT_EQ(::unlink(Path(0, ".map").c_str()), 0);
  Start({});
  EXPECT_EQ(store_->List().size(), 1u);
  ASSERT_OK(store_->Prune({}));
  EXPECT_TRUE(store_->List().empty());
  EXPECT_EQ(store_->Usage().used, 0u);
  Fill(0);
}

// Readers that open, write and read while everything that is idle is being thrown away: nothing wrong, nothing stuck.
TEST_F(EvictionTest, OpeningAndEvictingAtOnce) {
  OnTmpfs("64m", [this] {
    Start({});
    std::atomic<bool> stop{false};
    std::thread pruner([&] {
      while (!stop) ASSERT_OK(store_->Prune({.mounted = true}));
    });
    std::vector<std::thread> readers;
    for (unsigned t = 0; t < 3; ++t) {
      readers.emplace_back([&, t] {
        std::vector<uint8_t> got(kChunk);
        for (unsigned round = 0; round < 400; ++round) {
          const unsigned number = (round + t) % 3;
          auto file = Open(number);
          ASSERT_TRUE(file);
          const uint32_t chunk = round % kChunksEach;
          if (file->state(chunk) == ChunkState::kUnverified) file->Drop(chunk, ChunkState::kUnverified);  // another one may have brought it meanwhile
          const Status written = file->WriteChunk(chunk, chunk * kChunk, Bytes(number, chunk));
          // Refused if another reader's write of the same bytes came after the seal ("touched"): the content is opened anew.
          ASSERT_TRUE(written.ok() || (written.code() == StatusCode::kFailedPrecondition && !file->usable())) << written.ToString();
          if (file->ReadPresent(file->epoch(), chunk * kChunk, got).ok()) {  // else another reader dropped one
            ASSERT_EQ(got, Bytes(number, chunk));
          }
        }
      });
    }
    for (std::thread& reader : readers) reader.join();
    stop = true;
    pruner.join();
    EXPECT_GT(Metrics::Get(metrics_.cache_evicted_contents), 10);
    EXPECT_TRUE(WaitUntil([&] { return CountIsOffBy() == 0; })) << "counted " << store_->Usage().used << ", on the disk " << DiskUse();
  });
}

// Readers that write and read one content, each chunk many times, while its chunks are given back: nothing that is present is wrong, and the count stays exact.
TEST_F(EvictionTest, GivingBackAndWritingAtOnce) {
  OnTmpfs("64m", [this] {
    Start({});
    auto file = Open(0);
    Mounted({0});
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> given{0}, read{0};
    std::thread giver([&] {
      for (uint32_t i = 0; !stop; i = (i + 3) % (kChunksEach - 1)) given += file->GiveBack(i, i + 2, i * kChunk, 2 * kChunk) + file->GiveBack(i, i + 1, i * kChunk, kChunk);
    });
    std::vector<std::thread> readers;
    for (unsigned t = 0; t < 3; ++t) {
      readers.emplace_back([&, t] {
        std::vector<uint8_t> got(kChunk);
        for (unsigned round = 0; round < 4000; ++round) {
          const uint32_t chunk = (round + t) % (kChunksEach - 1);  // never complete
          const Status written = file->WriteChunk(chunk, chunk * kChunk, Bytes(0, chunk));
          ASSERT_TRUE(written.ok() || written.code() == StatusCode::kUnavailable) << written.ToString();
          const uint64_t epoch = file->epoch();
          if (file->state(chunk) != ChunkState::kPresent || !file->ReadPresent(epoch, chunk * kChunk, got).ok()) continue;
          ASSERT_EQ(got, Bytes(0, chunk));
          ++read;
        }
      });
    }
    for (std::thread& reader : readers) reader.join();
    stop = true;
    giver.join();
    EXPECT_GT(given, 100 * kChunk);
    EXPECT_GT(read, 100u);
    file.reset();
    EXPECT_TRUE(WaitUntil([&] { return CountIsOffBy() == 0; })) << "counted " << store_->Usage().used << ", on the disk " << DiskUse();
  });
}

// Others fill the file system: writing ends at the floor, and eviction makes room above it.
TEST_F(EvictionTest, AFloorOfFreeSpaceIsKept) {
  OnTmpfs("8m", [this] {
    Start({.free_min = uint64_t{1} << 30});  // a twentieth of the file system
    const uint64_t floor = store_->Usage().floor;
    EXPECT_EQ(floor, (uint64_t{8} << 20) / 20);
    std::vector<Digest> ids;
    for (unsigned i = 0; i < 100; ++i) ids.push_back(Spec(i).id);
    ASSERT_OK(store_->Pin("everything", ids));
    Status status;
    for (unsigned number = 0; number < 100 && status.ok(); ++number) {
      auto file = store_->Open(Spec(number));
      if (!file.ok()) status = file.status();
      for (uint32_t i = 0; i < kChunksEach && status.ok(); ++i) status = (*file)->WriteChunk(i, i * kChunk, Bytes(number, i));
    }
    EXPECT_CODE(status, StatusCode::kResourceExhausted);
    EXPECT_GE(store_->Usage().free, floor - 64 * 1024);  // maps and directories are not asked for
    ASSERT_OK(store_->Unpin("everything"));
    EXPECT_TRUE(WaitUntil([&] { return store_->Usage().free >= floor * 3 / 2; }));
    Fill(200);
  });
}

}  // namespace
}  // namespace headrace::cache
