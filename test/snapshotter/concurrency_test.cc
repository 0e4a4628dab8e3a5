// Many calls on few keys at once: every answer is one of the documented ones, and what remains is
// consistent.
#include <atomic>
#include <random>
#include <set>
#include <thread>

#include "test/snapshotter/core_fixture.h"

namespace headrace::snapshotter {
namespace {

using ConcurrencyTest = CoreTest;

// Method: four threads prepare, commit, remove, list, stat and clean up three keys at random;
// afterwards each snapshot has its directory, and after a clean-up no directory is without its
// snapshot.
TEST_F(ConcurrencyTest, OneKeyEverything) {
  unsigned long seed = test::TestSeed();
  constexpr int kThreads = 4;
  constexpr int kSteps = 120;
  std::vector<std::thread> threads;
  std::atomic<int> prepared{0};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed + static_cast<unsigned long>(t));
      auto pick = [&](const char* prefix) { return prefix + std::to_string(random() % 3); };
      auto expect = [](const Status& status, std::set<StatusCode> allowed) {
        allowed.insert(StatusCode::kOk);
        EXPECT_TRUE(allowed.contains(status.code())) << status.ToString();
      };
      for (int i = 0; i < kSteps; ++i) {
        switch (random() % 7) {
          case 0: {
            std::string parent = random() % 2 == 0 ? "" : pick("name");
            auto answer = Prepare(pick("key"), parent);
            if (answer.ok()) ++prepared;
            // The parent may go between the look at it and the new row, or its directory's owner be
            // asked when it is gone.
            expect(answer.status(), {StatusCode::kAlreadyExists, StatusCode::kNotFound});
            break;
          }
          case 1:
            expect(core_->Commit(pick("name"), pick("key"), {}, ""),
                   {StatusCode::kAlreadyExists, StatusCode::kNotFound});
            break;
          case 2:
            expect(core_->Remove(pick("key")), {StatusCode::kNotFound});
            break;
          case 3:
            expect(core_->Remove(pick("name")),
                   {StatusCode::kNotFound, StatusCode::kFailedPrecondition});
            break;
          case 4:
            expect(core_->List({}).status(), {});
            break;
          case 5:
            expect(core_->Mounts(pick("key")).status(), {StatusCode::kNotFound});
            break;
          default:
            expect(core_->Cleanup(), {});
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GT(prepared, 0);
  ASSERT_OK(core_->Cleanup());
  auto infos = core_->List({});
  ASSERT_OK(infos);
  EXPECT_EQ(DirectoryCount(), infos->size());
  for (const Info& info : *infos) {
    if (info.kind == Kind::kCommitted) continue;
    EXPECT_OK(core_->Mounts(info.name));
  }
}

// Goal: of many calls that prepare, or commit, the same thing exactly one succeeds.
TEST_F(ConcurrencyTest, ExactlyOneWins) {
  for (int round = 0; round < 5; ++round) {
    std::string key = "key" + std::to_string(round);
    std::atomic<int> prepared{0};
    std::atomic<int> committed{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        auto mounts = Prepare(key, "");
        if (mounts.ok())
          ++prepared;
        else
          EXPECT_CODE(mounts, StatusCode::kAlreadyExists);
        if (core_->Commit("name" + std::to_string(round) + "/" + std::to_string(t % 2), key, {}, "")
                .ok())
          ++committed;
      });
    }
    for (auto& thread : threads) thread.join();
    // A thread may prepare the key again after another committed it; each success is one snapshot.
    EXPECT_GE(prepared, 1);
    EXPECT_GE(committed, 1);
    EXPECT_LE(committed, prepared);
  }
}

}  // namespace
}  // namespace headrace::snapshotter
