#include "fusefs/kernel/inode_modes.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>
#include <vector>

#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::kernel {
namespace {

class Content : public stream::FileContent {
 public:
  explicit Content(uint64_t size, bool sealed = false) : size_(size), sealed_(sealed) {}
  uint64_t size() const override { return size_; }
  bool sealed() const override { return sealed_; }
  int backing_fd() const override { return 7; }
  void Read(uint64_t, uint64_t, ReadDone) override {}
  void FetchAll() override {}
  void Seal() { sealed_ = true; }

 private:
  uint64_t size_;
  std::atomic<bool> sealed_;
};

class Registrar : public BackingRegistrar {
 public:
  Result<int> Register(int) override {
    if (refuse) return FailedPreconditionError("backing file system is too deep");
    live.insert(++last);
    return last;
  }
  void Unregister(int id) override { EXPECT_EQ(live.erase(id), 1u) << "backing id " << id << " closed twice"; }
  bool refuse = false;
  int last = 0;
  std::set<int> live;
};

constexpr uint64_t kSmall = 1000;

SessionTable NewTable() {
  auto table = SessionTable::Create({"/mnt", "init", 0, 0});
  HEADRACE_CHECK(table.ok());
  return std::move(*table);
}

// As a server would: each request has a number of its own and is answered at once.
class Modes {
 public:
  Modes(Registrar& registrar, SessionTable& table, bool passthrough) : modes_(registrar, table, kSmall, passthrough) {}
  InodeModes::Opened Open(vfs::NodeId node, const std::shared_ptr<Content>& content) {
    auto opened = modes_.Open(node, content, ++unique_);
    HEADRACE_CHECK(opened.ok());
    modes_.Answered(opened->answer);
    return *opened;
  }
  bool Release(vfs::NodeId node) {
    const InodeModes::Released released = modes_.Release(node, ++unique_);
    modes_.Answered(released.answer);
    return released.known;
  }
  InodeModes* operator->() { return &modes_; }

 private:
  InodeModes modes_;
  std::atomic<uint64_t> unique_{0};
};

class InodeModesTest : public ::testing::Test {
 protected:
  Registrar registrar;
  SessionTable table = NewTable();
  Modes modes{registrar, table, /*passthrough=*/true};
  std::shared_ptr<Content> cold = std::make_shared<Content>(kSmall + 1);
};

// Goal: what the first open of each kind of file is answered.
TEST_F(InodeModesTest, ModeFollowsSealAndSize) {
  EXPECT_EQ(modes.Open(1, cold).mode, IoMode::kDirect);
  EXPECT_EQ(modes.Open(2, std::make_shared<Content>(kSmall)).mode, IoMode::kCached);
  EXPECT_EQ(modes.Open(3, std::make_shared<Content>(0)).mode, IoMode::kCached);
  auto sealed = modes.Open(4, std::make_shared<Content>(kSmall + 1, true));
  EXPECT_EQ(sealed.mode, IoMode::kPassthrough);
  EXPECT_GT(sealed.backing_id, 0);
  EXPECT_EQ(modes.Open(5, std::make_shared<Content>(1, true)).mode, IoMode::kPassthrough);
}

// Goal: a file that becomes complete while it is open stays in direct I/O until its last release, then is passed through.
TEST_F(InodeModesTest, ModeIsKeptUntilTheLastRelease) {
  EXPECT_TRUE(modes.Open(1, cold).first);
  cold->Seal();
  auto second = modes.Open(1, cold);
  EXPECT_FALSE(second.first);
  EXPECT_EQ(second.mode, IoMode::kDirect);
  EXPECT_TRUE(modes.Release(1));
  EXPECT_EQ(modes.Open(1, cold).mode, IoMode::kDirect);
  EXPECT_TRUE(modes.Release(1));
  EXPECT_TRUE(modes.Release(1));
  EXPECT_EQ(modes.Open(1, cold).mode, IoMode::kPassthrough);
}

// Goal: one backing id for an inode however often it is open, another for another inode of the same content; freed at the last release.
TEST_F(InodeModesTest, BackingIdBelongsToTheInode) {
  cold->Seal();
  int first = modes.Open(1, cold).backing_id;
  EXPECT_EQ(modes.Open(1, cold).backing_id, first);
  int other = modes.Open(2, cold).backing_id;
  EXPECT_NE(other, first);
  EXPECT_EQ(modes->BackingIds(), (std::map<vfs::NodeId, int>{{1, first}, {2, other}}));
  modes.Release(1);
  EXPECT_EQ(registrar.live.size(), 2u);
  modes.Release(1);
  EXPECT_EQ(registrar.live, std::set<int>{other});
  modes.Release(2);
  EXPECT_TRUE(registrar.live.empty());
  EXPECT_EQ(modes->open_inodes(), 0u);
}

// Goal: later opens of a live inode get the content of the first, so that READ by inode is unambiguous.
TEST_F(InodeModesTest, ContentIsTheFirstOpens) {
  modes.Open(1, cold);
  auto other = std::make_shared<Content>(5);
  EXPECT_EQ(modes.Open(1, other).content, cold);
  EXPECT_EQ(modes->Content(1), cold);
  EXPECT_EQ(modes->Content(2), nullptr);
}

// Goal: a kernel that refuses the backing file costs speed, not the open; nothing is registered twice.
TEST_F(InodeModesTest, RefusedRegistrationFallsBackToDirect) {
  registrar.refuse = true;
  cold->Seal();
  EXPECT_EQ(modes.Open(1, cold).mode, IoMode::kDirect);
  EXPECT_EQ(modes->registration_failures(), 1u);
  registrar.refuse = false;
  EXPECT_EQ(modes.Open(1, cold).mode, IoMode::kDirect) << "the mode is kept while it is open";
  modes.Release(1);
  modes.Release(1);
  EXPECT_EQ(modes.Open(1, cold).mode, IoMode::kPassthrough);
}

// Goal: a kernel without passthrough is served all the same.
TEST(InodeModesWithoutPassthroughTest, NeverRegisters) {
  Registrar registrar;
  SessionTable table = NewTable();
  Modes modes(registrar, table, /*passthrough=*/false);
  EXPECT_EQ(modes.Open(1, std::make_shared<Content>(kSmall + 1, true)).mode, IoMode::kDirect);
  EXPECT_EQ(registrar.last, 0);
}

// Goal: a release of what is not open is an answer, not a crash (a successor gets releases of opens that it never saw).
TEST_F(InodeModesTest, ReleaseOfUnknownInode) {
  EXPECT_FALSE(modes.Release(9));
  modes.Open(1, cold);
  EXPECT_TRUE(modes.Release(1));
  EXPECT_FALSE(modes.Release(1));
}

// Goal: Clear frees what is open. Method: also by the destructor, afterwards, which must free nothing twice.
TEST_F(InodeModesTest, ClearFreesBackingIds) {
  cold->Seal();
  modes.Open(1, cold);
  modes->Clear();
  EXPECT_TRUE(registrar.live.empty());
  EXPECT_EQ(cold.use_count(), 1);
}

// Goal: the rule itself: between two moments with no open, all opens of an inode have the same mode. Method: random opens, releases
// and seals on several threads; each thread watches the inodes that it holds open.
TEST_F(InodeModesTest, OneModeAtATimeUnderRandomUse) {
  const unsigned long seed = test::TestSeed();
  constexpr vfs::NodeId kNodes = 5;
  std::vector<std::shared_ptr<Content>> contents;
  for (vfs::NodeId n = 0; n < kNodes; ++n) contents.push_back(std::make_shared<Content>(kSmall + 1));
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed + t);
      std::vector<std::pair<vfs::NodeId, IoMode>> open;
      for (int step = 0; step < 20'000; ++step) {
        vfs::NodeId node = random() % kNodes;
        if (random() % 1000 == 0) contents[node]->Seal();
        if (open.size() < 8 && random() % 2 == 0) {
          auto opened = modes.Open(node, contents[node]);
          for (const auto& [other, mode] : open) {
            if (other == node) {
              EXPECT_EQ(mode, opened.mode);
            }
          }
          open.emplace_back(node, opened.mode);
        } else if (!open.empty()) {
          std::swap(open[random() % open.size()], open.back());
          EXPECT_TRUE(modes.Release(open.back().first));
          open.pop_back();
        }
      }
      for (const auto& [node, mode] : open) EXPECT_TRUE(modes.Release(node));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(modes->open_inodes(), 0u);
  EXPECT_TRUE(registrar.live.empty());
}

}  // namespace
}  // namespace headrace::kernel
