// A file system that outlives the process that serves it. Each server is a child that is killed; this process keeps its descriptors, as the service manager and the
// snapshotter do. Readers are children too: nobody maps our files in a process that serves, and this process stays single-threaded, so that it may fork.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <random>
#include <thread>

#include "fusefs/base/descriptors.h"
#include "fusefs/kernel/channel.h"
#include "fusefs/kernel/session_table.h"
#include "test/kernel/fuse_fixture.h"

namespace headrace::test {
namespace {

constexpr size_t kLarge = (1 << 20) + 4321;

std::string RandomBytes(size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

// What children and this process tell each other.
struct Shared {
  std::atomic<int> ready;          // servers that serve
  std::atomic<int> waiting_reads;  // of the server that lives
  std::atomic<int> opens_waiting;
  std::atomic<int> open_inodes;
  std::atomic<int> open_files;
  std::atomic<int> backing_ids;
  std::atomic<int> took_over;
  std::atomic<int64_t> resent;
  std::atomic<int64_t> reads;   // of the readers, all right
  std::atomic<int> stage;       // of a reader
  std::atomic<int> stop;        // readers shall end
  std::atomic<int> release;     // the server's files shall answer
  std::atomic<int64_t> longest_us;
};

struct Plan {
  bool hold = false;      // reads of "large" wait
  bool seal = false;      // "sealed" is sealed
  bool complete = false;  // "huge" is complete and never sealed: its opens wait
};

bool PreadIs(int fd, const std::string& bytes, size_t offset, size_t size) {
  std::string got(size, '\0');
  const ssize_t n = ::pread(fd, got.data(), size, static_cast<off_t>(offset));
  if (n < 0) return false;
  return std::string_view(got.data(), static_cast<size_t>(n)) == std::string_view(bytes).substr(std::min(offset, bytes.size()), size);
}

bool MapIs(int fd, const std::string& bytes) {
  void* at = ::mmap(nullptr, bytes.size(), PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return false;
  const bool same = std::string_view(static_cast<const char*>(at), bytes.size()) == bytes;
  ::munmap(at, bytes.size());
  return same;
}

class TakeoverTest : public FuseFixture {
 protected:
  void SetUp() override {
    FuseFixture::SetUp();
    if (IsSkipped()) return;
    shared = static_cast<Shared*>(::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(shared, MAP_FAILED);
    AddLayer("1", {File("large", large), File("sealed", sealed), File("small", small), File("huge", huge)});
  }
  void TearDown() override {
    if (IsSkipped()) return;
    shared->stop = 1;
    for (pid_t reader : readers) ::kill(reader, SIGKILL);
    KillServer();
    kept = {};  // the last descriptor: the connection ends, and whoever hangs on it
    for (pid_t reader : readers) ::waitpid(reader, nullptr, 0);
    ::munmap(shared, sizeof(Shared));
    ::umount2(mountpoint.c_str(), MNT_DETACH);
    FuseFixture::TearDown();
  }

  // A server in a child. The first gives its descriptors to this process; later ones are given what it keeps.
  void Start(const Plan& plan = {}) {
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    UniqueFd ours(pair[0]), theirs(pair[1]);
    const int before = shared->ready;
    server_pid = ::fork();
    ASSERT_GE(server_pid, 0);
    if (server_pid == 0) RunServer(plan, theirs.get());
    theirs.Reset();
    auto message = ReceiveMessage(ours.get());
    ASSERT_OK(message);
    ASSERT_EQ(message->bytes, "") << "the server did not start";
    ASSERT_EQ(message->descriptors.size(), 2u) << "the server did not start";
    kept.device = std::move(message->descriptors[0]);
    kept.table = std::move(message->descriptors[1]);
    ASSERT_TRUE(Eventually([&] { return shared->ready > before; }));
  }

  std::vector<kernel::Predecessor> Kept() const {
    std::vector<kernel::Predecessor> out;
    if (kept.device.valid()) out.push_back({UniqueFd(::dup(kept.device.get())), UniqueFd(::dup(kept.table.get())), "test"});
    return out;
  }

  [[noreturn]] void RunServer(const Plan& plan, int socket) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    if (plan.hold) streamer.File("large")->Hold();
    if (plan.seal) streamer.File("sealed")->Seal();
    if (plan.complete) streamer.File("huge")->Complete();
    options.threads = 3;
    auto started = kernel::FuseServer::Start(options, *vfs, metrics, [] {}, Kept());
    if (!started.ok()) {
      std::fprintf(stderr, "%s\n", started.status().ToString().c_str());
      ::_exit(1);
    }
    const kernel::SessionDescriptors session = (*started)->Descriptors();
    const int fds[] = {session.device, session.table};
    if (!SendMessage(socket, "", fds).ok()) ::_exit(1);
    shared->took_over = (*started)->took_over() ? 1 : 0;
    shared->resent = Metrics::Get(metrics.requests_resent);
    ++shared->ready;
    const timespec pause{0, 1'000'000};
    while (::sigtimedwait(&set, nullptr, &pause) != SIGTERM) {
      shared->waiting_reads = static_cast<int>((*started)->waiting_reads());
      shared->opens_waiting = streamer.File("huge")->opens_waiting.load();
      shared->open_inodes = static_cast<int>((*started)->open_inodes());
      shared->open_files = static_cast<int>(Metrics::Get(metrics.open_files));
      shared->backing_ids = static_cast<int>((*started)->BackingIds().size());
      if (shared->release != 0) streamer.ReleaseAll();
    }
    (*started)->StopForSuccessor();
    ::_exit(0);
  }

  int WaitFor(pid_t pid) {
    int status = -1;
    EXPECT_TRUE(Eventually([&] { return ::waitpid(pid, &status, WNOHANG) == pid; })) << "a child hangs";
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  void KillServer() {
    if (server_pid <= 0) return;
    ::kill(server_pid, SIGKILL);
    ::waitpid(server_pid, nullptr, 0);
    server_pid = -1;
  }
  // A reader in a child: exit code 0 if `work` says that all was right.
  template <typename Work>
  pid_t Reader(Work work) {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(work() ? 0 : 1);
    readers.push_back(pid);
    return pid;
  }
  // A reader whose first thousand bytes of "large" the server holds back.
  pid_t HeldReader() {
    const pid_t reader = Reader([this] {
      const int fd = ::open(Path("1/large").c_str(), O_RDONLY);
      return PreadIs(fd, large, 0, 1000);
    });
    EXPECT_TRUE(Eventually([&] { return shared->waiting_reads == 1; }));
    return reader;
  }
  bool AllClosed() {
    return Eventually([&] { return shared->open_inodes == 0 && shared->open_files == 0 && shared->backing_ids == 0; });
  }
  std::string WhatIsOpen() const {
    return std::to_string(shared->open_inodes) + " inodes, " + std::to_string(shared->open_files) + " files, " + std::to_string(shared->backing_ids) + " backing ids";
  }
  bool Stage(int n) {
    return Eventually([&] { return shared->stage >= n; });
  }
  // For readers: waits for this process.
  void Until(const std::atomic<int>& what, int n) const {
    while (what < n) ::usleep(500);
  }

  const std::string large = RandomBytes(kLarge, 1);
  const std::string sealed = RandomBytes(kLarge, 2);
  const std::string small = RandomBytes(10'000, 3);
  const std::string huge = RandomBytes(16 << 20, 4);
  Shared* shared = nullptr;
  kernel::Predecessor kept;
  pid_t server_pid = -1;
  std::vector<pid_t> readers;
};

// Goal: reads that the dead process had taken are answered by its successor; the readers notice nothing.
TEST_F(TakeoverTest, ReadsUnderWayAreAnswered) {
  Start({.hold = true});
  std::vector<pid_t> waiting;
  for (int i = 0; i < 5; ++i) {
    waiting.push_back(Reader([&, i] {
      const int fd = ::open(Path("1/large").c_str(), O_RDONLY);
      return fd >= 0 && PreadIs(fd, large, static_cast<size_t>(i) * 1000, 100'000);
    }));
  }
  ASSERT_TRUE(Eventually([&] { return shared->waiting_reads == 5; }));
  KillServer();
  Start({.hold = true});  // and again
  EXPECT_EQ(shared->took_over, 1);
  EXPECT_GE(shared->resent, 5);
  ASSERT_TRUE(Eventually([&] { return shared->waiting_reads == 5; }));
  KillServer();
  Start();
  for (pid_t reader : waiting) EXPECT_EQ(WaitFor(reader), 0);
  readers.clear();
  EXPECT_TRUE(AllClosed());
}

// Goal: what was open goes on, by read and by mmap, in every mode; a passed-through file even while nobody serves; nothing stays open at the end.
TEST_F(TakeoverTest, OpenFilesGoOn) {
  Start({.seal = true});
  const pid_t reader = Reader([&] {
    const int cold = ::open(Path("1/large").c_str(), O_RDONLY), passed = ::open(Path("1/sealed").c_str(), O_RDONLY), page = ::open(Path("1/small").c_str(), O_RDONLY);
    auto* map = static_cast<const char*>(::mmap(nullptr, kLarge, PROT_READ, MAP_SHARED, cold, 0));
    if (cold < 0 || passed < 0 || page < 0 || map == MAP_FAILED || map[0] != large[0]) return false;
    shared->stage = 1;
    Until(shared->stage, 2);  // nobody serves now
    if (!PreadIs(passed, sealed, 0, kLarge) || !MapIs(passed, sealed)) return false;
    shared->stage = 3;
    Until(shared->stage, 4);
    return PreadIs(cold, large, 5, kLarge) && PreadIs(page, small, 0, small.size()) && std::string_view(map, kLarge) == large && MapIs(passed, sealed);
  });
  ASSERT_TRUE(Stage(1));
  KillServer();
  shared->stage = 2;
  ASSERT_TRUE(Stage(3));
  Start();  // to it nothing is sealed: what the table says counts
  EXPECT_EQ(shared->took_over, 1);
  ASSERT_TRUE(Eventually([&] { return shared->open_inodes == 3 && shared->open_files == 3 && shared->backing_ids == 1; }))
      << WhatIsOpen();
  // A new open of the inode that is passed through gets the saved backing id; another one would be EIO.
  const pid_t second = Reader([&] {
    const int fd = ::open(Path("1/sealed").c_str(), O_RDONLY);
    return fd >= 0 && PreadIs(fd, sealed, 77, 1000) && MapIs(fd, sealed);
  });
  EXPECT_EQ(WaitFor(second), 0);
  shared->stage = 4;
  EXPECT_EQ(WaitFor(reader), 0);
  readers.clear();
  EXPECT_TRUE(AllClosed());
}

// Goal: opens that waited for a seal are answered by the successor and count once.
TEST_F(TakeoverTest, OpensUnderWayCountOnce) {
  Start({.complete = true});
  std::vector<pid_t> openers;
  for (int i = 0; i < 4; ++i) {
    openers.push_back(Reader([&] {
      const int fd = ::open(Path("1/huge").c_str(), O_RDONLY);
      return fd >= 0 && PreadIs(fd, huge, 12'345, 100'000);
    }));
  }
  ASSERT_TRUE(Eventually([&] { return shared->opens_waiting == 4; }));
  KillServer();
  Start();
  for (pid_t opener : openers) EXPECT_EQ(WaitFor(opener), 0);
  readers.clear();
  EXPECT_TRUE(AllClosed());
}

// Goal: a reader that is killed while nobody serves is let go by the successor, although its read still has no bytes.
TEST_F(TakeoverTest, KilledReaderIsLetGo) {
  Start({.hold = true});
  const pid_t reader = HeldReader();
  ASSERT_FALSE(HasFailure());
  KillServer();
  ::kill(reader, SIGKILL);
  Start({.hold = true});
  EXPECT_EQ(WaitFor(reader), -SIGKILL);
  readers.clear();
  EXPECT_TRUE(AllClosed());
}

// Goal: a planned change of the process drops nothing: neither what waits nor what is open.
TEST_F(TakeoverTest, PlannedHandover) {
  Start({.hold = true, .seal = true});
  const pid_t reader = Reader([&] {
    const int fd = ::open(Path("1/large").c_str(), O_RDONLY), passed = ::open(Path("1/sealed").c_str(), O_RDONLY);
    return fd >= 0 && passed >= 0 && PreadIs(fd, large, 0, kLarge) && PreadIs(passed, sealed, 0, kLarge);
  });
  ASSERT_TRUE(Eventually([&] { return shared->waiting_reads >= 1 && shared->backing_ids == 1; }));
  ::kill(server_pid, SIGTERM);
  EXPECT_EQ(WaitFor(server_pid), 0);
  server_pid = -1;
  Start();
  EXPECT_EQ(shared->took_over, 1);
  EXPECT_EQ(WaitFor(reader), 0);
  readers.clear();
  EXPECT_TRUE(AllClosed());
}

// Goal: state of another version is refused and not destroyed: once the right program is back, the readers go on.
TEST_F(TakeoverTest, UnknownVersionIsRefused) {
  Start({.hold = true});
  const pid_t reader = HeldReader();
  ASSERT_FALSE(HasFailure());
  KillServer();
  const uint32_t other = kernel::SessionTable::kVersion + 1, ours = kernel::SessionTable::kVersion;
  ASSERT_EQ(::pwrite(kept.table.get(), &other, sizeof other, 8), 4);
  const pid_t refused = Reader([&] {
    auto started = kernel::FuseServer::Start(options, *vfs, metrics, [] {}, Kept());
    return !started.ok() && started.status().code() == StatusCode::kFailedPrecondition && started.status().message().find("version 2") != std::string::npos;
  });
  EXPECT_EQ(WaitFor(refused), 0);
  ASSERT_EQ(::pwrite(kept.table.get(), &ours, sizeof ours, 8), 4);
  Start();
  EXPECT_EQ(WaitFor(reader), 0);
  readers.clear();
}

// Goal: a session whose file system is no longer mounted there, or that was aborted, is no obstacle: the next process mounts anew.
TEST_F(TakeoverTest, AnEndedSessionIsNoObstacle) {
  Start();
  KillServer();
  ASSERT_OK(kernel::CleanStaleMount(mountpoint));
  Start();
  EXPECT_EQ(shared->took_over, 0);
  const pid_t reader = Reader([&] {
    const int fd = ::open(Path("1/large").c_str(), O_RDONLY);
    return fd >= 0 && PreadIs(fd, large, 0, kLarge);
  });
  EXPECT_EQ(WaitFor(reader), 0);
  readers.clear();
}

// Reads at random, in every way, until it is told to stop. False at the first wrong byte or error.
bool ReadAtRandom(const std::vector<std::pair<std::string, const std::string*>>& files, Shared& shared, unsigned long seed) {
  std::mt19937_64 random(seed);
  while (shared.stop == 0) {
    const auto& [path, bytes] = files[random() % files.size()];
    const auto begin = std::chrono::steady_clock::now();
    const int fd = ::open(path.c_str(), O_RDONLY);
    if (fd < 0) return false;
    bool right = true;
    for (int i = 0; i < 4 && right; ++i) right = PreadIs(fd, *bytes, random() % bytes->size(), 1 + random() % (128 << 10));
    if (random() % 3 == 0) right = right && MapIs(fd, *bytes);
    ::close(fd);
    if (!right) return false;
    shared.reads += 5;
    const int64_t took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin).count();
    if (took > shared.longest_us) shared.longest_us = took;
  }
  return true;
}

// Goal: kills at random moments under load: no wrong byte, no error, no lasting open. HEADRACE_KILLS sets how many.
TEST_F(TakeoverTest, KilledUnderLoad) {
  const unsigned long seed = TestSeed();
  const char* set = std::getenv("HEADRACE_KILLS");
  const int kills = set != nullptr ? std::atoi(set) : 40;
  Start({.seal = true});
  const std::vector<std::pair<std::string, const std::string*>> files = {
      {Path("1/large"), &large}, {Path("1/sealed"), &sealed}, {Path("1/small"), &small}, {Path("1/huge"), &huge}};
  std::vector<pid_t> load;
  for (unsigned i = 0; i < 4; ++i) load.push_back(Reader([&, i] { return ReadAtRandom(files, *shared, seed + i); }));
  std::mt19937_64 random(seed);
  int64_t resent = 0;
  for (int i = 0; i < kills; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));  // not a wait: where the kill hits is the test
    const int64_t before = shared->reads;
    KillServer();
    Start({.seal = random() % 2 == 0});
    ASSERT_EQ(shared->took_over, 1);
    resent += shared->resent;
    ASSERT_TRUE(Eventually([&] { return shared->reads > before; })) << "nobody reads any more after kill " << i;
  }
  shared->stop = 1;
  for (pid_t reader : load) EXPECT_EQ(WaitFor(reader), 0);
  readers.clear();
  EXPECT_TRUE(AllClosed()) << WhatIsOpen();
  std::printf("%d kills, %lld reads, %lld requests resent, longest open-read-close %lld ms\n", kills, static_cast<long long>(shared->reads.load()),
              static_cast<long long>(resent), static_cast<long long>(shared->longest_us.load() / 1000));
}

}  // namespace
}  // namespace headrace::test
