// Goal: staged blobs have their bytes whichever way they are written; what a killed process left is removed by the next one, and
// nothing else is.
#include "snapshotter/cli/staging.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "fusefs/base/file.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::cli {
namespace {

constexpr size_t kMiB = 1 << 20;

std::unique_ptr<Staging> NewStaging(const std::string& parent, Staging::ReadBack read_back = Staging::ReadBack::kNever) {
  Result<std::unique_ptr<Staging>> staging = Staging::Create(parent, read_back, nullptr);
  EXPECT_OK(staging.status());
  return staging.ok() ? std::move(*staging) : nullptr;
}

bool Exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// Sizes around the buffers of DirectFile, in pieces of any size; both ways of writing.
TEST(StagedBlobTest, BytesComeBack) {
  test::TempDir dir;
  std::mt19937_64 random(test::TestSeed());
  for (Staging::ReadBack read_back : {Staging::ReadBack::kSoon, Staging::ReadBack::kNever}) {
    const auto staging = NewStaging(dir.path(), read_back);
    for (size_t size : {size_t{0}, size_t{1}, size_t{4095}, 4 * kMiB - 1, 4 * kMiB, 4 * kMiB + 1, 13 * kMiB + 5}) {
      std::string content(size, '\0');
      for (size_t i = 0; i + 8 <= size; i += 8) {
        const uint64_t word = random();
        std::memcpy(content.data() + i, &word, sizeof word);
      }
      auto blob = staging->NewBlob();
      ASSERT_OK(blob);
      for (size_t done = 0; done < size;) {
        const size_t n = std::min<size_t>(random() % (2 * kMiB) + 1, size - done);
        ASSERT_OK((*blob)->Append({reinterpret_cast<const uint8_t*>(content.data()) + done, n}));
        done += n;
      }
      EXPECT_EQ((*blob)->size(), size);
      ASSERT_OK((*blob)->Close(Durable::kYes));
      ASSERT_OK((*blob)->Close(Durable::kNo));  // a second time changes nothing
      Result<std::string> back = ReadFile((*blob)->path(), 64 * kMiB);
      ASSERT_OK(back);
      EXPECT_TRUE(*back == content) << size;
    }
  }
}

// A disk that takes no more is an error that names the file, from the thread that writes too.
TEST(StagedBlobTest, WriteErrorsAreTold) {
  test::TempDir dir;
  const auto staging = NewStaging(dir.path());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{6 * kMiB, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::vector<uint8_t> piece(kMiB, 1);
  auto blob = staging->NewBlob();
  Status status = blob.status();
  for (int i = 0; i < 20 && status.ok(); ++i) status = (*blob)->Append(piece);
  if (status.ok()) status = (*blob)->Close(Durable::kNo);
  EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("--tmp-dir"), std::string::npos) << status.message();
}

// Goal: kill -9 in the middle leaves a directory; while the process lives nobody touches it, afterwards the next Create removes it.
TEST(StagingTest, SweepsAfterAKilledProcess) {
  test::TempDir dir;
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto staging = Staging::Create(dir.path(), Staging::ReadBack::kSoon, nullptr);
    if (!staging.ok()) ::_exit(1);
    auto blob = (*staging)->NewBlob();
    const std::vector<uint8_t> piece(1000, 1);
    if (!blob.ok() || !(*blob)->Append(piece).ok()) ::_exit(2);
    if (::write(pipe_fds[1], (*staging)->path().data(), (*staging)->path().size()) < 0) ::_exit(3);
    ::alarm(30);  // never longer than the test
    for (;;) ::pause();
  }
  ::close(pipe_fds[1]);
  char text[4096];
  const ssize_t n = ::read(pipe_fds[0], text, sizeof text);
  ::close(pipe_fds[0]);
  ASSERT_GT(n, 0);
  const std::string left(text, static_cast<size_t>(n));
  NewStaging(dir.path()).reset();
  EXPECT_TRUE(Exists(left + "/0")) << "swept while its process was alive";
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(Exists(left + "/0"));
  const auto next = NewStaging(dir.path());
  EXPECT_FALSE(Exists(left));
  EXPECT_TRUE(Exists(next->path()));
}

// Goal: only directories of that name and of this user, and no links, are anybody's leavings.
TEST(StagingTest, SweepsNothingElse) {
  test::TempDir dir;
  const std::vector<std::string> names = {"blobs", ".headrace-XyZ", "headrace-staging-a"};
  for (const std::string& name : names) ASSERT_OK(MakeDirs(dir / name));
  ASSERT_OK(WriteFileAtomic(dir / ".headrace-staging-file", "x"));
  ASSERT_OK(MakeDirs(dir / "elsewhere/keep"));
  ASSERT_EQ(::symlink((dir / "elsewhere").c_str(), (dir / ".headrace-staging-link").c_str()), 0);
  ASSERT_OK(MakeDirs(dir / ".headrace-staging-theirs"));
  const bool root = ::geteuid() == 0;
  if (root) {
    ASSERT_EQ(::chown((dir / ".headrace-staging-theirs").c_str(), 12345, 12345), 0);
  }
  NewStaging(dir.path()).reset();
  for (const std::string& name : names) EXPECT_TRUE(Exists(dir / name)) << name;
  EXPECT_TRUE(Exists(dir / ".headrace-staging-file"));
  EXPECT_TRUE(Exists(dir / "elsewhere/keep"));
  EXPECT_EQ(Exists(dir / ".headrace-staging-theirs"), root);
}

// Goal: processes that start at the same time in one place never take each other's directory.
TEST(StagingTest, ManyAtATime) {
  test::TempDir dir;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        const auto staging = NewStaging(dir.path());
        ASSERT_NE(staging, nullptr);
        auto blob = staging->NewBlob();
        ASSERT_OK(blob);
        EXPECT_TRUE(Exists((*blob)->path()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(::rmdir(dir.path().c_str()), 0);  // nothing stayed
  EXPECT_EQ(::mkdir(dir.path().c_str(), 0700), 0);
}

}  // namespace
}  // namespace headrace::cli
