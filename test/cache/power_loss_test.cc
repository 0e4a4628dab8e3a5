// Goal: power may be lost at any moment and the cache never gives a wrong byte afterwards, and keeps what it called sealed.
//
// A workload makes files in every way in which the cache makes them; the changes of the disk that the real code makes are recorded (disk_recorder.h), cut after each of them, with
// everything before the cut on the disk, and with any part of what was not synced missing (disk_model.h), from a printed seed. Each remainder is opened as after a reboot.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include "fusefs/base/file.h"
#include "fusefs/cache/content_store.h"
#include "test/cache/disk_recorder.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::cache {
namespace {

using test::DiskModel;
using test::DiskOp;
using test::DiskRecorder;
using test::DiskState;
using test::Loss;

constexpr uint64_t kChunkSize = 1000;  // not a multiple of anything
constexpr uint32_t kHole = 1;          // this chunk is zeros in every second content

struct Truth {
  ContentSpec spec;
  std::vector<uint8_t> bytes;

  bool hole(uint32_t chunk) const { return chunk == kHole && std::all_of(Of(chunk).begin(), Of(chunk).end(), [](uint8_t b) { return b == 0; }); }
  uint64_t at(uint32_t chunk) const { return chunk * kChunkSize; }
  std::span<const uint8_t> Of(uint32_t chunk) const { return std::span(bytes).subspan(at(chunk), std::min(kChunkSize, bytes.size() - at(chunk))); }
};

Truth MakeTruth(unsigned number) {
  Truth truth;
  truth.bytes.resize(2500 + 700 * number);
  std::mt19937 random(number);
  for (uint8_t& byte : truth.bytes) byte = static_cast<uint8_t>(random() % 255 + 1);  // no zeros: what was lost is never right
  if (number % 2 == 1) std::fill_n(truth.bytes.begin() + kHole * kChunkSize, kChunkSize, 0);
  truth.spec.id = Digest::Of("content " + std::to_string(number));
  truth.spec.size = truth.bytes.size();
  truth.spec.chunk_count = static_cast<uint32_t>((truth.bytes.size() + kChunkSize - 1) / kChunkSize);
  return truth;
}

bool Right(ContentFile& file, const Truth& truth, uint32_t chunk) {
  std::vector<uint8_t> got(truth.Of(chunk).size());
  return file.Read(truth.at(chunk), got).ok() && std::equal(got.begin(), got.end(), truth.Of(chunk).begin());
}

Status Write(ContentFile& file, const Truth& truth, uint32_t chunk) {
  if (truth.hole(chunk)) return file.MarkHole(chunk, truth.at(chunk), truth.Of(chunk).size());
  return file.WriteChunk(chunk, truth.at(chunk), truth.Of(chunk));
}

// As stream::Content does it: what is unverified is compared first, what is missing is written.
void Fill(ContentFile& file, const Truth& truth, std::mt19937_64& random) {
  std::vector<uint32_t> order(truth.spec.chunk_count);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  for (const uint32_t chunk : order) {
    if (file.state(chunk) == ChunkState::kUnverified) {
      if (Right(file, truth, chunk)) {
        ASSERT_OK(file.Confirm(chunk, file.give_backs()));
      } else {
        file.Drop(chunk, ChunkState::kUnverified);
      }
    }
    ASSERT_OK(Write(file, truth, chunk));
  }
}

bool WaitForSeal(const ContentFile& file) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!file.sealed() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  return file.sealed();
}

constexpr const char* kPinned = "pinned";

// What must be there after any loss.
struct Lasting {
  std::set<unsigned> sealed;
  bool pinned = false;
};

class PowerLossTest : public ::testing::Test {
 protected:
  PowerLossTest() : random_(seed_) {
    for (unsigned i = 0; i < 10; ++i) truths_.push_back(MakeTruth(i));
  }

  std::unique_ptr<ContentStore> Store(const std::string& root) {
    auto store = ContentStore::Create({.root = root, .write_pause = std::chrono::milliseconds(0)}, metrics_);
    EXPECT_OK(store);
    return std::move(*store);
  }
  std::shared_ptr<ContentFile> Open(ContentStore& store, unsigned content) {
    auto file = store.Open(truths_[content].spec);
    EXPECT_OK(file);
    return file.ok() ? *file : nullptr;
  }
  // Fills and seals; from the mark on it must outlast everything.
  void FillAndSeal(DiskRecorder& disk, ContentStore& store, unsigned content) {
    auto file = Open(store, content);
    ASSERT_TRUE(file);
    Fill(*file, truths_[content], random_);
    ASSERT_TRUE(WaitForSeal(*file));
    disk.Mark("sealed " + std::to_string(content));
  }
  std::string DataPath(const std::string& root, unsigned content) const {
    const std::string hex = truths_[content].spec.id.Hex();
    return root + "/" + hex.substr(0, 2) + "/" + hex.substr(2, 2) + "/" + hex + ".data";
  }

  void Workload(DiskRecorder& disk, const std::string& root);
  void EvictAndBeginAnew(DiskRecorder& disk, ContentStore& store);
  void DamageAndBeginAnew(DiskRecorder& disk, ContentStore& store, const std::string& root, unsigned content, bool complete);
  // Opens what is left as after a reboot and looks at every byte that it would serve; then goes on with it.
  void Reopen(const DiskState& left, const Lasting& lasting, bool go_on, DiskModel* recorded);

  const unsigned long seed_ = test::TestSeed();
  std::mt19937_64 random_;
  std::vector<Truth> truths_;
  // In memory, where there is such a place: the files are made anew thousands of times, and what lasts is the model's matter.
  test::TempDir dir_{::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ""};
  Metrics metrics_;
  unsigned roots_ = 0;
  // How often each outcome was seen: a test that sees only empty disks tests nothing.
  size_t sealed_seen_ = 0, verified_seen_ = 0, lies_seen_ = 0;
};

// Somebody cuts the data file of a sealed content; the cache throws the pair away and makes another one under the same names.
void PowerLossTest::DamageAndBeginAnew(DiskRecorder& disk, ContentStore& store, const std::string& root, unsigned content, bool complete) {
  const Truth& truth = truths_[content];
  FillAndSeal(disk, store, content);
  {
    auto file = Open(store, content);
    disk.Mark("damaged " + std::to_string(content));
    ASSERT_EQ(::truncate(DataPath(root, content).c_str(), 10), 0);
    std::vector<uint8_t> got(truth.bytes.size());
    ASSERT_FALSE(file->Read(0, got).ok());
    ASSERT_FALSE(file->usable());
  }
  if (complete) return FillAndSeal(disk, store, content);
  auto file = Open(store, content);
  ASSERT_OK(Write(*file, truth, 0));
}

// Two contents are evicted; one of them comes back under the same names. What is pinned before that stays, and stays pinned.
void PowerLossTest::EvictAndBeginAnew(DiskRecorder& disk, ContentStore& store) {
  for (const unsigned content : {8u, 9u}) FillAndSeal(disk, store, content);
  ASSERT_OK(store.Pin("kept", {truths_[0].spec.id}));
  disk.Mark(kPinned);
  FillAndSeal(disk, store, 0);
  for (const unsigned content : {8u, 9u}) disk.Mark("evicted " + std::to_string(content));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  uint64_t evicted = 0;
  while (evicted < 2 && std::chrono::steady_clock::now() < deadline) {  // the sealing thread may have one still open
    auto pruned = store.Prune({});
    ASSERT_OK(pruned);
    evicted += pruned->contents;
  }
  ASSERT_EQ(evicted, 2u);
  FillAndSeal(disk, store, 9);
}

void PowerLossTest::Workload(DiskRecorder& disk, const std::string& root) {
  auto store = Store(root);
  EvictAndBeginAnew(disk, *store);
  FillAndSeal(disk, *store, 0);  // chunk by chunk
  {                              // in two processes; a chunk was bad in between
    auto file = Open(*store, 1);
    for (const uint32_t chunk : {0u, kHole, 2u}) ASSERT_OK(Write(*file, truths_[1], chunk));
    file.reset();
    store.reset();
    store = Store(root);
    file = Open(*store, 1);
    file->Drop(0, file->state(0));
  }
  FillAndSeal(disk, *store, 1);
  ASSERT_OK(store->Put(truths_[2].spec, truths_[2].bytes));  // whole
  FillAndSeal(disk, *store, 2);
  {  // staged
    auto staged = store->Stage();
    ASSERT_OK(staged);
    const std::span<const uint8_t> bytes(truths_[3].bytes);
    ASSERT_OK((*staged)->Write(1500, bytes.subspan(1500)));
    ASSERT_OK((*staged)->Write(0, bytes.first(1500)));
    ASSERT_OK(store->Adopt(truths_[3].spec, std::move(*staged)));
  }
  FillAndSeal(disk, *store, 3);
  DamageAndBeginAnew(disk, *store, root, 4, false);
  DamageAndBeginAnew(disk, *store, root, 5, true);
  {  // two processes at once
    auto other = Store(root);
    auto mine = Open(*store, 6);
    auto theirs = Open(*other, 6);
    for (uint32_t chunk = 0; chunk < truths_[6].spec.chunk_count; ++chunk) {
      ASSERT_OK(Write(*mine, truths_[6], chunk));
      ASSERT_OK(Write(*theirs, truths_[6], chunk));
    }
    for (ContentFile* file : {mine.get(), theirs.get()}) {  // each sees that the other wrote, and does not believe what it wrote itself
      std::vector<uint8_t> got(1);
      EXPECT_EQ(file->ReadPresent(file->epoch(), 0, got).ok(), file == theirs.get());  // they wrote last
      Fill(*file, truths_[6], random_);
      ASSERT_TRUE(WaitForSeal(*file));
    }
  }
  auto file = Open(*store, 7);  // never complete
  for (const uint32_t chunk : {4u, kHole, 0u}) ASSERT_OK(Write(*file, truths_[7], chunk));
}

void PowerLossTest::Reopen(const DiskState& left, const Lasting& lasting, bool go_on, DiskModel* recorded) {
  const std::string root = dir_ / ("d" + std::to_string(roots_++));
  {
    DiskRecorder disk(root, left);
    auto store = Store(root);
    const auto pins = store->Pinned();
    EXPECT_TRUE(!lasting.pinned || (pins.size() == 1 && !pins[0].damaged && pins[0].contents == std::vector<Digest>{truths_[0].spec.id})) << "a pin was lost";
    for (unsigned content = 0; content < truths_.size(); ++content) {
      SCOPED_TRACE("content " + std::to_string(content));
      const Truth& truth = truths_[content];
      auto file = Open(*store, content);
      ASSERT_TRUE(file);
      EXPECT_TRUE(file->sealed() || !lasting.sealed.contains(content)) << "a seal was lost";
      sealed_seen_ += file->sealed();
      for (uint32_t chunk = 0; chunk < truth.spec.chunk_count; ++chunk) {
        if (file->state(chunk) == ChunkState::kPresent) {
          EXPECT_TRUE(file->sealed()) << "believed without a seal after a reboot: chunk " << chunk;
          ASSERT_TRUE(Right(*file, truth, chunk)) << "WRONG BYTES of chunk " << chunk;
        } else if (file->state(chunk) == ChunkState::kUnverified) {
          (Right(*file, truth, chunk) ? verified_seen_ : lies_seen_) += 1;
        }
      }
      if (!go_on) continue;
      Fill(*file, truth, random_);
      ASSERT_TRUE(WaitForSeal(*file));
      for (uint32_t chunk = 0; chunk < truth.spec.chunk_count; ++chunk) ASSERT_TRUE(Right(*file, truth, chunk)) << "WRONG BYTES of chunk " << chunk;
    }
    store.reset();
    if (recorded != nullptr) *recorded = disk.model();
  }
  std::filesystem::remove_all(root);
}

// What is there for good when `count` changes were made.
Lasting LastingAt(const std::vector<DiskOp>& ops, size_t count) {
  Lasting lasting;
  std::set<unsigned>& sealed = lasting.sealed;
  for (size_t i = 0; i < count; ++i) {
    if (ops[i].kind != DiskOp::Kind::kMark) continue;
    lasting.pinned = lasting.pinned || ops[i].name == kPinned;
    if (ops[i].name == kPinned) continue;
    const unsigned content = static_cast<unsigned>(ops[i].name.back() - '0');
    if (ops[i].name.starts_with("sealed")) {
      sealed.insert(content);
    } else {
      sealed.erase(content);
    }
  }
  return lasting;
}

TEST_F(PowerLossTest, EveryCutOfAWorkload) {
  DiskModel model;
  {
    const std::string root = dir_ / "w";
    DiskRecorder disk(root);
    Workload(disk, root);
    if (HasFatalFailure()) return;
    ASSERT_EQ(disk.Difference(), "");
    model = disk.model();
  }
  ASSERT_GT(model.ops().size(), 150u);
  const std::vector<Loss> kinds = {Loss::kNone, Loss::kDataOnly, Loss::kDataOnly, Loss::kUnsynced, Loss::kUnsynced, Loss::kUnsynced, Loss::kUnsynced, Loss::kUnsynced};
  for (size_t cut = 0; cut <= model.ops().size(); ++cut) {
    for (size_t i = 0; i < kinds.size(); ++i) {
      SCOPED_TRACE("cut " + std::to_string(cut) + " kind " + std::to_string(static_cast<int>(kinds[i])));
      DiskModel second;
      const bool go_on = random_() % 8 == 0;
      Reopen(model.Cut(cut, kinds[i], random_), LastingAt(model.ops(), cut), go_on, &second);
      if (HasFailure()) return;
      if (!go_on) continue;
      // Power is lost once more, while the cache mends what the first loss left.
      Reopen(second.Cut(random_() % (second.ops().size() + 1), Loss::kUnsynced, random_), LastingAt(model.ops(), cut), false, nullptr);
      if (HasFailure()) return;
    }
  }
  std::cout << "changes=" << model.ops().size() << " sealed=" << sealed_seen_ << " chunks right=" << verified_seen_ << " wrong or missing=" << lies_seen_ << "\n";
  EXPECT_GT(sealed_seen_, 1000u);
  EXPECT_GT(verified_seen_, 300u);
  EXPECT_GT(lies_seen_, 50u) << "the model loses nothing";
}

// The model itself: what was synced is there, whatever else is lost.
TEST_F(PowerLossTest, TheModelKeepsWhatWasSyncedAndNothingElse) {
  const std::string root = dir_ / "w";
  DiskRecorder disk(root);
  ASSERT_OK(WriteFileAtomic(root + "/synced", std::string(3000, 's')));
  ASSERT_OK(WriteFileAtomic(root + "/not", std::string(3000, 'n'), 0600, Durability::kProcessCrash));
  ASSERT_EQ(disk.Difference(), "");
  const DiskModel model = disk.model();
  size_t missing = 0, torn = 0;
  for (int i = 0; i < 1000; ++i) {
    const DiskState state = model.Cut(model.ops().size(), Loss::kUnsynced, random_);
    const auto& names = state.at(1).names;
    ASSERT_TRUE(names.contains("synced"));
    ASSERT_EQ(state.at(names.at("synced")).bytes, std::string(3000, 's'));
    if (!names.contains("not")) {
      ++missing;
    } else {
      torn += state.at(names.at("not")).bytes != std::string(3000, 'n');
    }
  }
  EXPECT_GT(missing, 100u);
  EXPECT_GT(torn, 100u);
}

}  // namespace
}  // namespace headrace::cache
