// Goal: an evictor that found nothing to evict rests, whoever is refused meanwhile, but not longer than until something may go.
#include "fusefs/cache/space.h"

#include <unistd.h>

#include <chrono>
#include <future>

#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::cache {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

class SpaceRestTest : public ::testing::Test {
 protected:
  // Rests on a thread of its own, `most` at the longest.
  std::future<void> Rest(uint64_t let_go, std::chrono::steady_clock::duration least, std::chrono::steady_clock::duration most) {
    const auto now = std::chrono::steady_clock::now();
    return std::async(std::launch::async, [=, this] { space_.Rest(let_go, now + least, now + most); });
  }
  static bool Ends(const std::future<void>& rest) { return rest.wait_for(seconds(20)) == std::future_status::ready; }
  static bool Goes(const std::future<void>& rest) { return rest.wait_for(milliseconds(50)) == std::future_status::timeout; }
  bool HasWork() { return space_.WaitForWork(std::chrono::steady_clock::now()); }

  void SetUp() override { HasWork(); }  // limits that are new are a reason to look
  void TearDown() override { space_.Stop(); }  // whatever failed: nobody is waited for for an hour

  test::TempDir dir_;
  Metrics metrics_;
  Space space_{dir_ / ".", {.budget = 1000}, metrics_};
};

// Named after what CI found on 30 November (cache-limits, seed 2752277384): everything was in use for a moment, and for a whole second nothing was evicted, so nothing that was read was kept.
TEST_F(SpaceRestTest, EndsWhenSomethingIsLetGo) {
  auto rest = Rest(space_.let_go(), milliseconds(0), hours(1));
  EXPECT_TRUE(Goes(rest));
  space_.LetGo();
  ASSERT_TRUE(Ends(rest));
  EXPECT_TRUE(HasWork()) << "it would look only when the next writer is refused";
}

// During the pass that found nothing.
TEST_F(SpaceRestTest, DoesNotBeginWhenSomethingWasLetGoBefore) {
  const uint64_t let_go = space_.let_go();
  space_.LetGo();
  ASSERT_TRUE(Ends(Rest(let_go, milliseconds(0), hours(1))));
  EXPECT_TRUE(HasWork());
}

TEST_F(SpaceRestTest, RefusalsDoNotEndIt) {
  space_.Counted(1000);
  auto rest = Rest(space_.let_go(), milliseconds(0), hours(1));
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(space_.Reserve(1));
  EXPECT_TRUE(Goes(rest));
  space_.Hurry();
  ASSERT_TRUE(Ends(rest));
  EXPECT_TRUE(HasWork());
}

// However often something is let go.
TEST_F(SpaceRestTest, LastsAsLongAsItMust) {
  auto rest = Rest(space_.let_go(), hours(1), hours(2));
  for (int i = 0; i < 100; ++i) space_.LetGo();
  EXPECT_TRUE(Goes(rest));
  space_.Stop();
  ASSERT_TRUE(Ends(rest));
}

TEST_F(SpaceRestTest, EndsByItselfAndIsNoReasonToLook) {
  ASSERT_TRUE(Ends(Rest(space_.let_go(), milliseconds(0), milliseconds(1))));
  EXPECT_FALSE(HasWork());
}

}  // namespace
}  // namespace headrace::cache
