// What the tests of a mounted file system share: contents whose bytes the test controls, a Vfs over them, and a FuseServer mounted in a
// mount namespace of the test's own. Needs root and /dev/fuse; tests are skipped without.
#ifndef HEADRACE_TEST_KERNEL_FUSE_FIXTURE_H_
#define HEADRACE_TEST_KERNEL_FUSE_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "fusefs/kernel/fuse_server.h"
#include "fusefs/vfs/vfs.h"
#include "test/support/matchers.h"
#include "test/support/random_tree.h"
#include "test/support/temp_dir.h"

namespace headrace::test {

// One file: answers at once, or, while held, when the test says so. Thread-safe.
class ControlledContent : public stream::FileContent {
 public:
  ControlledContent(std::string bytes, std::string backing_path) : bytes_(std::move(bytes)), path_(std::move(backing_path)) {}
  uint64_t size() const override { return bytes_.size(); }
  bool sealed() const override { return sealed_; }
  bool complete() const override { return complete_ || sealed_; }
  void AwaitSeal(std::chrono::milliseconds most, std::function<void()> done) override;
  int backing_fd() const override { return backing_.get(); }
  void Read(uint64_t offset, uint64_t size, ReadDone done) override;
  void FetchAll() override { ++fetch_alls; }

  // The next Read keeps the thread that calls it, as a defect would, until ReleaseThread.
  void HoldThread() { hold_thread_ = true; }
  void ReleaseThread() { hold_thread_ = false; hold_thread_.notify_all(); }
  // Reads wait from now on.
  void Hold() { held_ = true; }
  // Answers the waiting reads and those to come.
  void Release();
  // Answers the waiting reads and those to come with an error.
  void Fail(Status status);
  // Complete: the bytes are in a file that may be passed through.
  void Seal();
  // All bytes are here, the seal takes its time: opens wait until Seal or EndWait.
  void Complete() { complete_ = true; }
  void EndWait();

  std::atomic<int> opens_waiting{0};
  std::atomic<int> reads{0};
  std::atomic<int> fetch_alls{0};

 private:
  void Answer(uint64_t offset, uint64_t size, const ReadDone& done);
  const std::string bytes_;
  const std::string path_;
  UniqueFd backing_;
  std::atomic<bool> sealed_{false};
  std::atomic<bool> complete_{false};
  std::atomic<bool> held_{false};
  std::atomic<bool> hold_thread_{false};
  std::vector<std::function<void()>> opens_;
  std::mutex mu_;
  Status failure_;
  std::vector<std::function<void()>> waiting_;
};

class ControlledStreamer : public stream::Streamer {
 public:
  explicit ControlledStreamer(std::string dir) : dir_(std::move(dir)) {}
  void Know(const Digest& blob, const TreeLayer& layer);
  std::shared_ptr<ControlledContent> File(const std::string& name);
  Result<std::shared_ptr<stream::FileContent>> Open(std::shared_ptr<const stream::LayerSource> layer, uint32_t entry) override;
  void AddToImage(const std::string&, const std::shared_ptr<const stream::LayerSource>&, bool) override {}
  void RemoveFromImage(const std::string&, const std::shared_ptr<const stream::LayerSource>&) override {}
  uint64_t ResidentBytes(const stream::LayerSource&) override { return 0; }
  void ReleaseAll();

 private:
  const std::string dir_;
  std::map<std::pair<Digest, uint32_t>, std::shared_ptr<ControlledContent>> files_;
  std::map<std::string, std::shared_ptr<ControlledContent>> by_name_;
};

// True if this machine can mount FUSE here; call GTEST_SKIP if not.
bool CanMountFuse();
// A mount namespace of the calling thread (and of threads that it starts from now on).
void EnterPrivateMountNamespace();
// Waits up to ten seconds until `condition` holds.
bool Eventually(const std::function<bool()>& condition);

class FuseFixture : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  // Shows the layer as mount `id` (on top of `parent`).
  void AddLayer(const std::string& id, const TreeLayer& layer, const std::string& parent = "");
  void Serve(unsigned threads = 2);
  std::string Path(const std::string& relative) const { return mountpoint + "/" + relative; }
  // errno of opening that path, 0 if it opens.
  int OpenErrno(const std::string& relative, int flags);

  TempDir dir;
  std::string mountpoint = dir / "fs";
  Metrics metrics;
  ControlledStreamer streamer{dir.path()};
  std::unique_ptr<vfs::Vfs> vfs = vfs::Vfs::Create(streamer, metrics);
  std::unique_ptr<kernel::FuseServer> server;
  kernel::FuseServerOptions options;
  std::atomic<int> ended{0};

 private:
  uint32_t next_slot_ = 1;
};

}  // namespace headrace::test

#endif  // HEADRACE_TEST_KERNEL_FUSE_FIXTURE_H_
