// Goal: a pool runs everything that was posted before it is gone; timers fire in the order of their times.
#include "fusefs/base/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "fusefs/base/metrics.h"

namespace headrace {
namespace {

TEST(ThreadPoolTest, DestructorRunsEverythingPosted) {
  std::atomic<int> ran{0};
  {
    ThreadPool pool("test", 3);
    for (int i = 0; i < 100; ++i) {
      pool.Post([&] {
        pool.Post([&] { ++ran; });
        ++ran;
      });
    }
  }
  EXPECT_EQ(ran.load(), 200);
}

TEST(TimerTest, FiresInOrderOfTime) {
  Timer timer("timer");
  std::promise<void> done;
  std::string order;  // touched by the timer's thread only, read after `done`
  timer.After(std::chrono::milliseconds(30), [&] { order += 'b'; done.set_value(); });
  timer.After(std::chrono::milliseconds(1), [&] { order += 'a'; });
  ASSERT_EQ(done.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(order, "ab");
}

TEST(TimerTest, DestructorDoesNotWaitForWhatIsNotDue) {
  bool fired = false;
  { Timer timer("timer"); timer.After(std::chrono::hours(1), [&] { fired = true; }); }
  EXPECT_FALSE(fired);
}

TEST(MetricsTest, PrometheusTextHasEveryMetric) {
  Metrics metrics;
  Metrics::Add(metrics.wire_bytes, 42);
  std::string text = metrics.ToPrometheus();
  EXPECT_NE(text.find("\nheadrace_wire_bytes_total 42\n"), std::string::npos);
  EXPECT_NE(text.find("# TYPE headrace_mounts gauge"), std::string::npos);
}

}  // namespace
}  // namespace headrace
