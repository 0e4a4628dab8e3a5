#include "test/kernel/fuse_fixture.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

// libfuse keeps the copy of the mount point's name when it is a descriptor ("/dev/fd/N"): a few bytes for each session.
extern "C" const char* __lsan_default_suppressions() { return "leak:fuse_session_mount\n"; }

namespace headrace::test {

void ControlledContent::Answer(uint64_t offset, uint64_t size, const ReadDone& done) {
  Status failure;
  {
    std::lock_guard<std::mutex> lock(mu_);
    failure = failure_;
  }
  if (!failure.ok()) return done(failure, {});
  uint64_t begin = std::min<uint64_t>(offset, bytes_.size());
  uint64_t length = std::min<uint64_t>(size, bytes_.size() - begin);
  done(OkStatus(), {reinterpret_cast<const uint8_t*>(bytes_.data()) + begin, length});
}

void ControlledContent::Read(uint64_t offset, uint64_t size, ReadDone done) {
  ++reads;
  hold_thread_.wait(true);
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (held_) {
      waiting_.push_back([this, offset, size, done = std::move(done)] { Answer(offset, size, done); });
      return;
    }
  }
  Answer(offset, size, done);
}

void ControlledContent::Release() {
  std::vector<std::function<void()>> waiting;
  {
    std::lock_guard<std::mutex> lock(mu_);
    held_ = false;
    waiting.swap(waiting_);
  }
  for (auto& answer : waiting) answer();
}

void ControlledContent::Fail(Status status) {
  {
    std::lock_guard<std::mutex> lock(mu_);
    failure_ = std::move(status);
  }
  Release();
}

void ControlledContent::Seal() {
  EXPECT_OK(WriteFileAtomic(path_, bytes_));
  auto fd = OpenFile(path_, O_RDONLY);
  ASSERT_OK(fd);
  backing_ = std::move(*fd);
  sealed_ = true;
  EndWait();
}

void ControlledContent::AwaitSeal(std::chrono::milliseconds most, std::function<void()> done) {
  EXPECT_GT(most.count(), 0);
  EXPECT_LE(most.count(), 250);
  std::lock_guard lock(mu_);
  opens_.push_back(std::move(done));
  ++opens_waiting;
}

void ControlledContent::EndWait() {
  std::vector<std::function<void()>> opens;
  {
    std::lock_guard lock(mu_);
    opens.swap(opens_);
  }
  for (const auto& done : opens) done();
}

void ControlledStreamer::Know(const Digest& blob, const TreeLayer& layer) {
  for (uint32_t i = 0; i < layer.size(); ++i) {
    if (layer[i].meta.type != format::EntryType::kRegular) continue;
    auto file = std::make_shared<ControlledContent>(layer[i].content, dir_ + "/backing." + std::to_string(files_.size()));
    files_[{blob, i}] = file;
    by_name_[layer[i].meta.name] = file;
  }
}

std::shared_ptr<ControlledContent> ControlledStreamer::File(const std::string& name) {
  EXPECT_TRUE(by_name_.contains(name)) << name;
  return by_name_[name];
}

Result<std::shared_ptr<stream::FileContent>> ControlledStreamer::Open(std::shared_ptr<const stream::LayerSource> layer,
                                                                      uint32_t entry) {
  return std::shared_ptr<stream::FileContent>(files_.at({layer->blob.digest, entry}));
}

void ControlledStreamer::ReleaseAll() {
  for (auto& [key, file] : files_) file->Release();
}

bool CanMountFuse() { return ::geteuid() == 0 && ::access("/dev/fuse", R_OK | W_OK) == 0; }

void EnterPrivateMountNamespace() {
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0) << std::strerror(errno);
  ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0) << std::strerror(errno);
}

bool Eventually(const std::function<bool()>& condition) {
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

void FuseFixture::SetUp() {
  if (!CanMountFuse()) GTEST_SKIP() << "needs root and /dev/fuse";
  EnterPrivateMountNamespace();
  options.mountpoint = mountpoint;
  options.small_file_bytes = 64 << 10;
}

void FuseFixture::TearDown() {
  streamer.ReleaseAll();
  if (server) {
    EXPECT_TRUE(Eventually([&] { return server->waiting_reads() == 0; }));
    server->Stop();
  }
  EXPECT_EQ(Metrics::Get(metrics.reads_waiting), 0);
  server.reset();
}

void FuseFixture::AddLayer(const std::string& id, const TreeLayer& layer, const std::string& parent) {
  vfs::MountSpec spec;
  spec.id = id;
  spec.parent_id = parent;
  spec.layer_slot = next_slot_++;
  spec.view_slot = next_slot_++;
  const Digest blob = Digest::Of("layer " + id);
  streamer.Know(blob, layer);
  auto source = std::make_shared<stream::LayerSource>();
  source->blob = {"registry.test/model:1", blob};
  source->index = std::make_shared<const format::LayerIndex>(ToIndex(layer));
  spec.layer = source;
  ASSERT_OK(vfs->AddMount(spec));
}

void FuseFixture::Serve(unsigned threads) {
  options.threads = threads;
  auto started = kernel::FuseServer::Start(options, *vfs, metrics, [this] { ++ended; });
  ASSERT_OK(started);
  server = std::move(*started);
}

int FuseFixture::OpenErrno(const std::string& relative, int flags) {
  int fd = ::open(Path(relative).c_str(), flags | O_CLOEXEC, 0600);
  if (fd < 0) return errno;
  ::close(fd);
  return 0;
}

}  // namespace headrace::test
