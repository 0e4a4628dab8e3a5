// A ContentStore in a directory of the test's own, with a content of four chunks of 1000 bytes (the last one 500).
#ifndef HEADRACE_TEST_CACHE_STORE_FIXTURE_H_
#define HEADRACE_TEST_CACHE_STORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/cache/content_store.h"
#include "test/cache/wait.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::cache {

class StoreTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kChunks = 4;
  static constexpr uint64_t kChunkSize = 1000;
  static constexpr uint64_t kSize = 3500;

  StoreTest() {
    for (uint64_t i = 0; i < kSize; ++i) bytes_.push_back(static_cast<uint8_t>(i * 7 + i / 256 + 1));
    spec_.id = Digest::Of("content");
    spec_.file_digest = Digest::Of(bytes_);
    spec_.size = kSize;
    spec_.chunk_count = kChunks;
    Restart();
  }

  // A new process: the store is made anew.
  void Restart() {
    store_.reset();
    auto store = ContentStore::Create({.root = dir_ / "cache", .write_pause = std::chrono::milliseconds(0)},
                                      metrics_);
    ASSERT_OK(store);
    store_ = std::move(*store);
    // What was here is counted beside whatever comes; a test that compares counts begins after it.
    ASSERT_TRUE(WaitUntil([&] { return store_->Usage().counted; }));
  }
  std::shared_ptr<ContentFile> Open() {
    auto file = store_->Open(spec_);
    EXPECT_OK(file);
    return file.ok() ? *file : nullptr;
  }
  std::span<const uint8_t> ChunkBytes(uint32_t i) const {
    return std::span(bytes_).subspan(i * kChunkSize, std::min(kChunkSize, kSize - i * kChunkSize));
  }
  void Write(ContentFile& file, uint32_t i) { ASSERT_OK(file.WriteChunk(i, i * kChunkSize, ChunkBytes(i))); }
  void WriteAll(ContentFile& file) {
    for (uint32_t i = 0; i < kChunks; ++i) Write(file, i);
  }
  static bool WaitForSeal(const ContentFile& file) { return WaitUntil([&] { return file.sealed(); }); }
  void ExpectChunk(ContentFile& file, uint32_t i) {
    std::vector<uint8_t> got(ChunkBytes(i).size());
    ASSERT_OK(file.Read(i * kChunkSize, got));
    EXPECT_TRUE(std::equal(got.begin(), got.end(), ChunkBytes(i).begin())) << "chunk " << i;
  }
  std::string Path(const std::string& extension) const {
    const std::string hex = spec_.id.Hex();
    return dir_.path() + "/cache/" + hex.substr(0, 2) + "/" + hex.substr(2, 2) + "/" + hex + extension;
  }

  test::TempDir dir_;
  Metrics metrics_;
  ContentSpec spec_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<ContentStore> store_;
};

}  // namespace headrace::cache

#endif  // HEADRACE_TEST_CACHE_STORE_FIXTURE_H_
