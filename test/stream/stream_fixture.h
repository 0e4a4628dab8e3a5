// A Streamer over a FakeSource and a store in a directory of the test's own, and reads that can be waited for.
#ifndef HEADRACE_TEST_STREAM_STREAM_FIXTURE_H_
#define HEADRACE_TEST_STREAM_STREAM_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fusefs/cache/content_store.h"
#include "fusefs/stream/streamer.h"
#include "test/stream/fake_layer.h"
#include "test/stream/fake_source.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::stream {

using std::chrono::milliseconds;

struct Answer {
  Status status;
  std::vector<uint8_t> bytes;
};

// A read under way.
class Pending {
 public:
  Pending(FileContent& content, uint64_t offset, uint64_t size) {
    auto promise = std::make_shared<std::promise<Answer>>();
    future_ = promise->get_future();
    content.Read(offset, size, [promise](Status status, std::span<const uint8_t> bytes) {
      promise->set_value({std::move(status), {bytes.begin(), bytes.end()}});  // throws if it is called twice
    });
  }
  bool ready() const { return future_.wait_for(milliseconds(0)) == std::future_status::ready; }
  Answer Wait() {
    if (future_.wait_for(std::chrono::seconds(30)) != std::future_status::ready) {
      return {InternalError("the test waited 30 s for an answer"), {}};
    }
    return future_.get();
  }

 private:
  std::future<Answer> future_;
};

class StreamTest : public ::testing::Test {
 protected:
  StreamTest() { options_.retry_pause_min = milliseconds(2); options_.retry_pause_max = milliseconds(20); }
  ~StreamTest() override { Stop(); }

  // A new process on the same cache.
  void Start() {
    Stop();
    pool_ = std::make_unique<ThreadPool>("pool", 3);
    timer_ = std::make_unique<Timer>("timer");
    auto store = cache::ContentStore::Create({.root = dir_ / "cache", .write_pause = milliseconds(0), .limits = {.budget = cache_budget_}}, metrics_);
    ASSERT_OK(store);
    store_ = std::move(*store);
    auto streamer = Streamer::Create(options_, *store_, source_, *pool_, *timer_, metrics_);
    ASSERT_OK(streamer);
    streamer_ = std::move(*streamer);
  }
  void Stop() {
    streamer_.reset();
    pool_.reset();
    timer_.reset();
    store_.reset();
  }
  std::shared_ptr<const LayerSource> Publish(const FakeLayer& layer) {
    source_.AddBlob(layer.blob_digest(), layer.blob());
    return layer.Source();
  }
  std::shared_ptr<FileContent> Open(const std::shared_ptr<const LayerSource>& layer, uint32_t entry) {
    auto content = streamer_->Open(layer, entry);
    EXPECT_OK(content);
    return content.ok() ? *content : nullptr;
  }
  static void ExpectBytes(const Answer& answer, const std::vector<uint8_t>& file, uint64_t offset, uint64_t size) {
    ASSERT_OK(answer.status);
    offset = std::min<uint64_t>(offset, file.size());
    size = std::min<uint64_t>(size, file.size() - offset);
    ASSERT_EQ(answer.bytes.size(), size);
    EXPECT_TRUE(std::equal(answer.bytes.begin(), answer.bytes.end(), file.begin() + static_cast<ptrdiff_t>(offset)));
  }
  template <typename Condition>
  static bool Eventually(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return true;
  }
  // The path of a cache file; REQUIRES that there is one content only.
  std::string OnlyCacheFile(const std::string& extension) {
    std::string found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir_ / "cache")) {
      if (entry.path().extension() == extension) found = entry.path();
    }
    return found;
  }

  test::TempDir dir_;
  uint64_t cache_budget_ = 0;
  Metrics metrics_;
  FakeSource source_;
  StreamerOptions options_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Timer> timer_;
  std::unique_ptr<cache::ContentStore> store_;
  std::unique_ptr<Streamer> streamer_;
};

}  // namespace headrace::stream

#endif  // HEADRACE_TEST_STREAM_STREAM_FIXTURE_H_
