// Reading through the mounted file system: I/O modes, asynchronous answers, interrupted readers, the end of a session.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <future>
#include <iterator>
#include <random>
#include <thread>

#include "test/kernel/fuse_fixture.h"

namespace headrace::test {
namespace {

std::string RandomBytes(size_t size, unsigned seed = 1) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

std::string Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// An open descriptor with the calls that the tests make.
class Reader {
 public:
  explicit Reader(const std::string& path, int flags = O_RDONLY) : fd_(::open(path.c_str(), flags | O_CLOEXEC)) {
    EXPECT_TRUE(fd_.valid()) << path << ": " << std::strerror(errno);
  }
  std::string Pread(size_t size, off_t offset) {
    std::string bytes(size, '\0');
    ssize_t n = ::pread(fd_.get(), bytes.data(), size, offset);
    if (n < 0) return "errno " + std::to_string(errno);
    bytes.resize(static_cast<size_t>(n));
    return bytes;
  }
  // The whole file by mmap; "" and a failure if it cannot be mapped.
  std::string Map(size_t size, int flags) {
    void* at = ::mmap(nullptr, size, PROT_READ, flags, fd_.get(), 0);
    if (at == MAP_FAILED) {
      ADD_FAILURE() << "mmap: " << std::strerror(errno);
      return "";
    }
    std::string bytes(static_cast<const char*>(at), size);
    ::munmap(at, size);
    return bytes;
  }

 private:
  UniqueFd fd_;
};

constexpr size_t kLarge = (1 << 20) + 4321;

class FuseIoTest : public FuseFixture {
 protected:
  void SetUp() override {
    FuseFixture::SetUp();
    if (IsSkipped()) return;
    AddLayer("1", {File("large", large), File("other", other), File("small", small), File("empty")});
    Serve();
  }
  int64_t Get(const std::atomic<int64_t>& metric) { return Metrics::Get(metric); }
  bool AllClosed() {
    return Eventually([&] { return Get(metrics.open_files) == 0 && server->open_inodes() == 0; });
  }

  const std::string large = RandomBytes(kLarge, 1);
  const std::string other = RandomBytes(kLarge, 2);
  const std::string huge = RandomBytes(16 << 20, 3);
  const std::string small = RandomBytes(10'000, 3);
};

// Goal: a cold large file is read right by read (short at its end), scattered, O_DIRECT, and by shared and private mappings.
TEST_F(FuseIoTest, ColdFileByEveryWayOfReading) {
  Reader reader(Path("1/large"));
  EXPECT_EQ(reader.Pread(2 * kLarge, 0), large);
  EXPECT_EQ(reader.Pread(100, kLarge - 10), large.substr(kLarge - 10));
  EXPECT_EQ(reader.Pread(100, kLarge), "");
  EXPECT_EQ(reader.Pread(100, kLarge + 5000), "");
  EXPECT_EQ(reader.Pread(5, 4094), large.substr(4094, 5));
  EXPECT_EQ(reader.Map(kLarge, MAP_SHARED), large);
  EXPECT_EQ(reader.Map(kLarge, MAP_PRIVATE), large);
  EXPECT_EQ(Get(metrics.fuse_opens_direct), 1);
  Reader direct(Path("1/large"), O_RDONLY | O_DIRECT);
  void* page = nullptr;
  ASSERT_EQ(::posix_memalign(&page, 4096, 8192), 0);
  std::unique_ptr<void, decltype(&::free)> owner(page, &::free);
  int fd = ::open(Path("1/large").c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  ASSERT_EQ(::pread(fd, page, 8192, 8192), 8192);
  ::close(fd);
  EXPECT_EQ(std::string(static_cast<char*>(page), 8192), large.substr(8192, 8192));
}

// Goal: small files live in the page cache: fetched whole at the first open, read once from us, then not again.
TEST_F(FuseIoTest, SmallFileIsKeptInThePageCache) {
  EXPECT_EQ(Read(Path("1/small")), small);
  auto file = streamer.File("small");
  EXPECT_EQ(file->fetch_alls, 1);
  int reads = file->reads;
  EXPECT_GT(reads, 0);
  ASSERT_TRUE(AllClosed());
  EXPECT_EQ(Read(Path("1/small")), small);
  EXPECT_EQ(file->reads, reads) << "keep_cache";
  EXPECT_EQ(Get(metrics.fuse_opens_cached), 2);
  EXPECT_EQ(Read(Path("1/empty")), "");
}

// Goal: a complete file is passed through: no read comes to us, the bytes are right by read and mmap.
TEST_F(FuseIoTest, SealedFileIsPassedThrough) {
  auto file = streamer.File("large");
  file->Seal();
  {
    Reader reader(Path("1/large"));
    EXPECT_EQ(reader.Pread(kLarge, 0), large);
    EXPECT_EQ(reader.Map(kLarge, MAP_SHARED), large);
    EXPECT_EQ(server->BackingIds().size(), 1u);
    Reader second(Path("1/large"));
    EXPECT_EQ(second.Pread(kLarge, 0), large);
    EXPECT_EQ(server->BackingIds().size(), 1u);
  }
  EXPECT_EQ(file->reads, 0);
  EXPECT_EQ(Get(metrics.fuse_opens_passthrough), 2);
  ASSERT_TRUE(AllClosed());
  EXPECT_TRUE(server->BackingIds().empty());
}

// Goal: the rule of one mode for an inode, on the kernel itself: a loader that opened a cold file may map it although the file became
// complete and somebody else opened it meanwhile; after the last close it is passed through.
TEST_F(FuseIoTest, OneModeWhileOpen) {
  auto file = streamer.File("large");
  {
    Reader loader(Path("1/large"));
    EXPECT_EQ(loader.Pread(10, 0), large.substr(0, 10));
    file->Seal();
    Reader second(Path("1/large"));
    EXPECT_EQ(Get(metrics.fuse_opens_direct), 2);
    EXPECT_EQ(loader.Map(kLarge, MAP_SHARED), large);
    EXPECT_EQ(second.Map(kLarge, MAP_PRIVATE), large);
    EXPECT_EQ(second.Pread(kLarge, 0), large);
  }
  ASSERT_TRUE(AllClosed());
  Reader third(Path("1/large"));
  EXPECT_EQ(Get(metrics.fuse_opens_passthrough), 1);
  EXPECT_EQ(third.Map(kLarge, MAP_SHARED), large);
}

// Goal: an open of a file that is complete and about to be sealed waits without holding up a FUSE thread, and is passed through; when
// patience ends it is a direct one; when nobody ever answers, the end of the server does.
TEST_F(FuseIoTest, AnOpenWaitsForTheSeal) {
  AddLayer("2", {File("huge", huge), File("huge2", huge), File("huge3", huge)});
  std::vector<std::thread> openers;
  std::atomic<int> opened{0};
  for (const char* name : {"huge", "huge2", "huge3"}) {
    streamer.File(name)->Complete();
    for (int i = 0; i < 3; ++i) {  // more than there are FUSE threads
      openers.emplace_back([&, path = Path(std::string("2/") + name)] {
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        ++opened;
        if (fd >= 0) ::close(fd);
      });
    }
  }
  ASSERT_TRUE(Eventually([&] {
    return streamer.File("huge")->opens_waiting == 3 && streamer.File("huge2")->opens_waiting == 3 && streamer.File("huge3")->opens_waiting == 3;
  }));
  EXPECT_EQ(Reader(Path("1/large")).Pread(10, 0), large.substr(0, 10));
  EXPECT_EQ(opened, 0);
  streamer.File("huge")->Seal();
  ASSERT_TRUE(Eventually([&] { return opened == 3; }));
  EXPECT_EQ(Get(metrics.fuse_opens_passthrough), 3);
  streamer.File("huge2")->EndWait();
  ASSERT_TRUE(Eventually([&] { return opened == 6; }));
  EXPECT_EQ(Get(metrics.fuse_opens_direct), 4);
  ASSERT_TRUE(AllClosed());
  server.reset();  // the connection ends, and with it the opens
  streamer.File("huge3")->EndWait();  // too late: nobody is there to answer
  for (std::thread& opener : openers) opener.join();
  EXPECT_EQ(Get(metrics.fuse_opens_waited), 9);
}

// Goal: the same, when the mapping outlives the descriptor: the inode stays in its mode until the mapping is gone.
TEST_F(FuseIoTest, MappingKeepsTheMode) {
  int fd = ::open(Path("1/large").c_str(), O_RDONLY | O_CLOEXEC);
  void* at = ::mmap(nullptr, kLarge, PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  ASSERT_NE(at, MAP_FAILED);
  streamer.File("large")->Seal();
  Reader second(Path("1/large"));
  EXPECT_EQ(Get(metrics.fuse_opens_direct), 2);
  EXPECT_EQ(second.Pread(kLarge, 0), large);
  EXPECT_EQ(std::string(static_cast<const char*>(at), kLarge), large);
  ::munmap(at, kLarge);
}

// Goal: reads that wait for the network hold up nobody else. Method: more stalled readers than FUSE threads, then work on other files.
TEST_F(FuseIoTest, StalledReadsBlockNobody) {
  auto stalled = streamer.File("large");
  stalled->Hold();
  std::vector<std::future<std::string>> readers;
  for (int i = 0; i < 8; ++i) {
    readers.push_back(std::async(std::launch::async, [&] { return Reader(Path("1/large")).Pread(1000, 50); }));
  }
  ASSERT_TRUE(Eventually([&] { return server->waiting_reads() == 8 && Get(metrics.reads_waiting) == 8; }));
  struct stat st;
  EXPECT_EQ(::stat(Path("1/large").c_str(), &st), 0);
  EXPECT_EQ(OpenErrno("1/large", O_RDONLY), 0);
  EXPECT_EQ(OpenErrno("1/absent", O_RDONLY), ENOENT);
  EXPECT_EQ(Reader(Path("1/other")).Pread(kLarge, 0), other);
  EXPECT_EQ(Read(Path("1/small")), small);
  stalled->Release();
  for (auto& reader : readers) EXPECT_EQ(reader.get(), large.substr(50, 1000));
  EXPECT_TRUE(Eventually([&] { return server->waiting_reads() == 0 && Get(metrics.reads_waiting) == 0; }));
}

// Goal: the watchdog's measure: a worker that hangs is seen, reads that wait for the network are not taken for one, and it ends with the request.
TEST_F(FuseIoTest, AWorkerThatHangsIsSeen) {
  auto file = streamer.File("large");
  file->Hold();
  auto waits = std::async(std::launch::async, [&] { return Reader(Path("1/large")).Pread(1000, 50); });
  ASSERT_TRUE(Eventually([&] { return server->waiting_reads() == 1; }));
  ASSERT_TRUE(Eventually([&] { return server->LongestRequest().count() == 0; }));
  auto other_file = streamer.File("other");
  other_file->HoldThread();
  auto hangs = std::async(std::launch::async, [&] { return Reader(Path("1/other")).Pread(1000, 50); });
  EXPECT_TRUE(Eventually([&] { return server->LongestRequest() > std::chrono::milliseconds(50); }));
  other_file->ReleaseThread();
  file->Release();
  EXPECT_EQ(hangs.get(), other.substr(50, 1000));
  EXPECT_EQ(waits.get(), large.substr(50, 1000));
  EXPECT_TRUE(Eventually([&] { return server->LongestRequest().count() == 0; }));
}

// Goal: a failure reaches the reader as the errno of its class, is counted, and is not remembered: the next read succeeds.
TEST_F(FuseIoTest, FailureIsAnErrnoForThisReadOnly) {
  auto file = streamer.File("large");
  Reader reader(Path("1/large"));
  file->Fail(DataLossError("chunk 0: digest differs"));
  EXPECT_EQ(reader.Pread(10, 0), "errno " + std::to_string(EIO));
  file->Fail(DeadlineExceededError("registry"));
  EXPECT_EQ(reader.Pread(10, 0), "errno " + std::to_string(ETIMEDOUT));
  EXPECT_EQ(Get(metrics.fuse_read_errors), 2);
  file->Fail(OkStatus());
  EXPECT_EQ(reader.Pread(10, 0), large.substr(0, 10));
}

// Goal: a reader that is killed while it waits goes at once, leaves nothing behind, and the bytes that come later go nowhere.
TEST_F(FuseIoTest, KilledReaderGoesAtOnce) {
  auto file = streamer.File("large");
  file->Hold();
  pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int fd = ::open((mountpoint + "/1/large").c_str(), O_RDONLY);
    char buffer[100];
    ssize_t n = ::read(fd, buffer, sizeof buffer);
    ::_exit(n == 100 ? 0 : 1);
  }
  ASSERT_TRUE(Eventually([&] { return server->waiting_reads() == 1; }));
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_TRUE(Eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; })) << "the reader hangs";
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(server->waiting_reads(), 0u);
  ASSERT_TRUE(AllClosed());
  file->Release();
  EXPECT_EQ(Get(metrics.fuse_read_errors), 0);
}

// Goal: a signal that the reader survives does not cut its read short: no program expects EINTR from a file. A later SIGKILL, of
// which the kernel tells us nothing more, still ends it.
TEST_F(FuseIoTest, OrdinarySignalDoesNotInterrupt) {
  auto file = streamer.File("large");
  file->Hold();
  for (bool kill_it : {false, true}) {
    pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      struct sigaction action {};
      action.sa_handler = [](int) {};
      ::sigaction(SIGUSR1, &action, nullptr);
      int fd = ::open((mountpoint + "/1/large").c_str(), O_RDONLY);
      char buffer[100];
      ssize_t n = ::read(fd, buffer, sizeof buffer);
      ::_exit(n == 100 ? 0 : 1);
    }
    ASSERT_TRUE(Eventually([&] { return server->waiting_reads() == 1; }));
    ASSERT_EQ(::kill(child, SIGUSR1), 0);
    int status = 0;
    // Long enough for the server to look at the reader twice: it must still be there.
    EXPECT_EQ(::waitpid(child, &status, WNOHANG), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    EXPECT_EQ(::waitpid(child, &status, WNOHANG), 0);
    EXPECT_EQ(server->waiting_reads(), 1u);
    if (kill_it) {
      ::kill(child, SIGKILL);
    } else {
      file->Release();
    }
    ASSERT_TRUE(Eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; })) << "the reader hangs";
    EXPECT_EQ(WIFEXITED(status) && WEXITSTATUS(status) == 0, !kill_it);
    file->Hold();
  }
}

// Goal: the end of the session while reads wait: Stop returns, readers get an error, late bytes do no harm.
TEST_F(FuseIoTest, StopWithReadsUnderWay) {
  auto file = streamer.File("large");
  file->Hold();
  auto reader = std::async(std::launch::async, [&] { return Reader(Path("1/large")).Pread(10, 0); });
  ASSERT_TRUE(Eventually([&] { return server->waiting_reads() == 1; }));
  server->Stop();
  server.reset();
  EXPECT_TRUE(reader.get().starts_with("errno "));
  file->Release();
}

class FuseWaitTest : public FuseIoTest {
 protected:
  FuseWaitTest() { options.on_read_failure = kernel::ReadFailure::kWait; }
};

// Goal: with kWait a read whose content gives up asks again until the bytes come; a reader that waits so can be killed.
TEST_F(FuseWaitTest, AReadPastItsDeadlineWaits) {
  auto file = streamer.File("large");
  file->Fail(DeadlineExceededError("registry"));
  auto reader = std::async(std::launch::async, [&] { return Reader(Path("1/large")).Pread(10, 0); });
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const int fd = ::open((mountpoint + "/1/large").c_str(), O_RDONLY);
    char buffer[100];
    ::_exit(::pread(fd, buffer, sizeof buffer, 1 << 20) > 0 ? 0 : 1);
  }
  ASSERT_TRUE(Eventually([&] { return Get(metrics.reads_past_deadline) >= 4; }));
  ASSERT_EQ(server->waiting_reads(), 2u);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_TRUE(Eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; })) << "the reader hangs";
  EXPECT_TRUE(WIFSIGNALED(status));
  file->Fail(OkStatus());
  EXPECT_EQ(reader.get(), large.substr(0, 10));
  EXPECT_EQ(Get(metrics.fuse_read_errors), 0);
}

// Goal: the session ends while such reads wait for their next round.
TEST_F(FuseWaitTest, StopBetweenTwoRounds) {
  auto file = streamer.File("large");
  file->Fail(DeadlineExceededError("registry"));
  auto reader = std::async(std::launch::async, [&] { return Reader(Path("1/large")).Pread(10, 0); });
  ASSERT_TRUE(Eventually([&] { return Get(metrics.reads_past_deadline) >= 1; }));
  server->Stop();
  server.reset();
  EXPECT_TRUE(reader.get().starts_with("errno "));
}

// Goal: many threads reading many pieces of many files, while files become complete, always see the right bytes.
TEST_F(FuseIoTest, ConcurrentRandomReads) {
  const unsigned long seed = TestSeed();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed + t);
      const std::vector<std::pair<std::string, const std::string*>> files = {
          {"1/large", &large}, {"1/other", &other}, {"1/small", &small}};
      for (int i = 0; i < 60; ++i) {
        const auto& [name, bytes] = files[random() % files.size()];
        Reader reader(Path(name));
        for (int j = 0; j < 5; ++j) {
          size_t offset = random() % bytes->size();
          size_t size = 1 + random() % (256 << 10);
          ASSERT_EQ(reader.Pread(size, static_cast<off_t>(offset)), bytes->substr(offset, size)) << name << " at " << offset;
        }
        if (random() % 4 == 0) {
          ASSERT_EQ(reader.Map(bytes->size(), MAP_SHARED), *bytes) << name;
        }
        if (t == 0 && i == 20) streamer.File("large")->Seal();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(AllClosed());
}

}  // namespace
}  // namespace headrace::test
