// The program headrace-fused as a process: readiness, signals, exit codes, what a kill leaves behind. Needs root and /dev/fuse.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <iterator>
#include <thread>
#include <vector>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/file.h"
#include "snapshotter/keeper/session_keeper.h"
#include "test/support/matchers.h"
#include "test/support/overlay_dirs.h"
#include "test/support/temp_dir.h"

namespace headrace::test {
namespace {

constexpr std::chrono::seconds kDeadline{20};

class FusedProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0 || ::access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "NOT TESTED: needs root and /dev/fuse";
    const Status mounted = MountPrivateTmpfs(dir.path());
    if (!mounted.ok()) GTEST_SKIP() << "NOT TESTED: no private mounts here: " << mounted.ToString();
    notify_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = dir / "notify";
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(::bind(notify_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    timeval timeout{kDeadline.count(), 0};
    ::setsockopt(notify_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  }
  void TearDown() override {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
    ::umount2(Mountpoint().c_str(), MNT_DETACH);
    ::umount2(dir.path().c_str(), MNT_DETACH);
  }

  void Launch(std::vector<std::string> more = {}) {
    std::vector<std::string> args = {HEADRACE_FUSED, "--root", dir / "root", "--mountpoint", Mountpoint(), "--control-socket",
                                     dir / "control.sock"};
    args.insert(args.end(), more.begin(), more.end());
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    const std::string log = dir / "log", socket = dir / "notify";
    child_ = ::fork();
    ASSERT_GE(child_, 0);
    if (child_ == 0) {
      int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      ::dup2(fd, 1);
      ::dup2(fd, 2);
      if (supervised) {
        ::setenv("NOTIFY_SOCKET", socket.c_str(), 1);
        GiveStored();
        if (!watchdog_usec.empty()) ::setenv("WATCHDOG_USEC", watchdog_usec.c_str(), 1);
      }
      ::execv(HEADRACE_FUSED, argv.data());
      ::_exit(127);
    }
  }
  // The next one that is not about the descriptor store; those are done as the service manager does them.
  std::string NextNotification() {
    for (;;) {
      auto message = ReceiveMessage(notify_.get());
      if (!message.ok()) return "";
      const std::string& text = message->bytes;
      const size_t at = text.find("FDNAME=");
      if (at == std::string::npos) return text;
      const std::string name = text.substr(at + 7);
      if (text.find("FDSTOREREMOVE=1") != std::string::npos) {
        stored_.erase(name);
      } else if (message->descriptors.size() == 1) {
        stored_[name] = std::move(message->descriptors[0]);
      }
    }
  }
  // In the child, before exec: what sd_listen_fds(3) expects.
  void GiveStored() {
    if (stored_.empty()) return;
    std::string names;
    std::vector<int> high;
    for (const auto& [name, fd] : stored_) {
      names += (names.empty() ? "" : ":") + name;
      high.push_back(::fcntl(fd.get(), F_DUPFD, 200));
    }
    for (size_t i = 0; i < high.size(); ++i) ::dup2(high[i], 3 + static_cast<int>(i));
    for (int fd : high) ::close(fd);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDS", std::to_string(high.size()).c_str(), 1);
    ::setenv("LISTEN_FDNAMES", names.c_str(), 1);
  }
  bool WaitUntil(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + kDeadline;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }
  // Without a notification: until it answers at its control socket.
  bool WaitReady(const std::string& log_line, size_t times) {
    return WaitUntil([&] {
      const std::string log = Log();
      size_t found = 0;
      for (size_t at = log.find(log_line); at != std::string::npos; at = log.find(log_line, at + 1)) ++found;
      return found >= times;
    });
  }
  // Exit code, or -signal.
  int Wait() {
    auto deadline = std::chrono::steady_clock::now() + kDeadline;
    int status = 0;
    while (::waitpid(child_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > deadline) return -1000;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string Log() {
    std::ifstream in(dir / "log");
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::string Mountpoint() const { return dir / "fs"; }
  // errno of looking for a name that is not there (attributes of the root itself are answered from the kernel's memory): ENOENT if served.
  int Look() {
    struct stat st;
    return ::stat((Mountpoint() + "/absent").c_str(), &st) == 0 ? 0 : errno;
  }
  bool IsMounted() {
    std::ifstream in("/proc/thread-self/mountinfo");
    std::string text{std::istreambuf_iterator<char>(in), {}};
    return text.find(Mountpoint() + " ") != std::string::npos;
  }

  TempDir dir;
  pid_t child_ = -1;
  UniqueFd notify_;
  std::map<std::string, UniqueFd> stored_;
  bool supervised = true;
  std::string watchdog_usec;
};

// Goal: it says when it is ready, and only then; SIGTERM and SIGINT end it cleanly and take the mount away.
TEST_F(FusedProcessTest, ReadyAndStopped) {
  for (int signal : {SIGTERM, SIGINT}) {
    Launch();
    ASSERT_EQ(NextNotification(), "READY=1") << Log();
    EXPECT_TRUE(IsMounted());
    EXPECT_EQ(Look(), ENOENT);
    struct stat st;
    EXPECT_EQ(::stat((dir / "control.sock").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0600u);
    ::kill(child_, signal);
    EXPECT_EQ(Wait(), 0) << Log();
    EXPECT_EQ(NextNotification(), "STOPPING=1");
    EXPECT_FALSE(IsMounted());
  }
  EXPECT_NE(Log().find("ready"), std::string::npos);
  EXPECT_EQ(Log().find("error headrace"), std::string::npos) << Log();
}

// Goal: SIGHUP takes over what can change, says what cannot, and a file with a mistake changes nothing; the mount is served all along.
TEST_F(FusedProcessTest, ReloadedOnSighup) {
  const std::string file = dir / "headrace.toml";
  ASSERT_OK(WriteFileAtomic(file, "[cache]\nbudget = '1GiB'\n"));
  Launch({"--config", file});
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  for (const char* text : {"[cache]\nbudget = '2GiB'\n[stream]\nrange_max = '4MiB'\n", "[cache]\nbudgt = '3GiB'\n"}) {
    ASSERT_OK(WriteFileAtomic(file, text));
    ::kill(child_, SIGHUP);
    EXPECT_EQ(NextNotification(), "RELOADING=1");
    EXPECT_EQ(NextNotification(), "READY=1");
    EXPECT_EQ(Look(), ENOENT);
  }
  EXPECT_NE(Log().find("reloaded setting=cache.budget"), std::string::npos) << Log();
  EXPECT_NE(Log().find("a changed setting needs a restart setting=stream.range_max"), std::string::npos) << Log();
  EXPECT_NE(Log().find("not reloaded, everything stays as it is"), std::string::npos) << Log();
  ::kill(child_, SIGTERM);
  EXPECT_EQ(Wait(), 0) << Log();
}

// Goal: after a SIGKILL of a process whose session nobody keeps the mount is dead, and the next start replaces it.
TEST_F(FusedProcessTest, StartAfterKill) {
  Launch();
  // Kept by nobody: what the store was given is let go below.
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  ::kill(child_, SIGKILL);
  EXPECT_EQ(Wait(), -SIGKILL);
  stored_.clear();
  EXPECT_EQ(Look(), ENOTCONN);
  Launch();
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  EXPECT_EQ(Look(), ENOENT);
}

// Goal: it ends when somebody unmounts the file system, instead of pretending to serve.
TEST_F(FusedProcessTest, EndsWhenUnmounted) {
  Launch();
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  ASSERT_EQ(::umount2(Mountpoint().c_str(), 0), 0) << std::strerror(errno);
  EXPECT_EQ(Wait(), 0) << Log();
}

// Goal: with the service manager's descriptor store alone a killed process is succeeded: same mount, and the store is emptied when the session ends.
TEST_F(FusedProcessTest, SucceededThroughTheServiceManager) {
  Launch();
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  ASSERT_EQ(stored_.size(), 2u);
  UniqueFd open(::open(Mountpoint().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int round = 0; round < 3; ++round) {
    ::kill(child_, SIGKILL);
    EXPECT_EQ(Wait(), -SIGKILL);
    Launch();
    ASSERT_EQ(NextNotification(), "READY=1") << Log();
    EXPECT_EQ(Look(), ENOENT);
    struct stat st;
    EXPECT_EQ(::fstatat(open.get(), "absent", &st, 0), -1);
    EXPECT_EQ(errno, ENOENT) << "another mount";
  }
  EXPECT_NE(Log().find("went on with a predecessor's session holder=service manager"), std::string::npos) << Log();
  open.Reset();
  ::kill(child_, SIGTERM);  // nothing is mounted or open: it ends for good
  EXPECT_EQ(Wait(), 0);
  EXPECT_EQ(NextNotification(), "STOPPING=1");
  timeval soon{1, 0};
  ::setsockopt(notify_.get(), SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
  EXPECT_EQ(NextNotification(), "");
  EXPECT_TRUE(stored_.empty());
  EXPECT_FALSE(IsMounted());
}

// Goal: the service manager's watchdog is fed, a process that does not move feeds it no more, and who killed it for that finds the session in the store.
TEST_F(FusedProcessTest, Watchdog) {
  watchdog_usec = "200000";
  Launch();
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  for (int i = 0; i < 3; ++i) ASSERT_EQ(NextNotification(), "WATCHDOG=1") << Log();
  ::kill(child_, SIGSTOP);
  timeval soon{0, 600'000};
  ::setsockopt(notify_.get(), SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
  ASSERT_TRUE(WaitUntil([&] { return NextNotification().empty(); }));
  ::kill(child_, SIGKILL);
  EXPECT_EQ(Wait(), -SIGKILL);
  timeval timeout{kDeadline.count(), 0};
  ::setsockopt(notify_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  Launch();
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  EXPECT_EQ(Look(), ENOENT);
  EXPECT_EQ(NextNotification(), "WATCHDOG=1");
}

// Goal: with the snapshotter's keeper alone too; a keeper that comes later, or is restarted, is given the session again.
TEST_F(FusedProcessTest, SucceededThroughTheSnapshotter) {
  supervised = false;
  Launch();
  ASSERT_TRUE(WaitReady("ready version", 1)) << Log();
  auto keep = [&] {
    auto started = snapshotter::SessionKeeper::Start({.socket = dir / "keeper.sock"});
    EXPECT_OK(started);
    return started.ok() ? std::move(*started) : nullptr;
  };
  auto keeper = keep();
  ASSERT_TRUE(WaitUntil([&] { return keeper->sessions() == 1; }));
  keeper.reset();
  keeper = keep();
  ASSERT_TRUE(WaitUntil([&] { return keeper->sessions() == 1; }));
  UniqueFd open(::open(Mountpoint().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ::kill(child_, SIGKILL);
  EXPECT_EQ(Wait(), -SIGKILL);
  Launch();
  ASSERT_TRUE(WaitReady("ready version", 2)) << Log();
  struct stat st;
  EXPECT_EQ(::fstatat(open.get(), "absent", &st, 0), -1);
  EXPECT_EQ(errno, ENOENT) << "another mount";
  EXPECT_NE(Log().find("holder=snapshotter"), std::string::npos) << Log();
  open.Reset();
  ::kill(child_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_FALSE(IsMounted());
  EXPECT_TRUE(WaitUntil([&] { return keeper->sessions() == 0; })) << "the session is over";
}

// Goal: --unmount-on-exit: false leaves the mount to a successor; --unmount takes away what is left.
TEST_F(FusedProcessTest, LeavesAndTakesDown) {
  Launch({"--unmount-on-exit", "false"});
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  ::kill(child_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_TRUE(IsMounted());
  EXPECT_EQ(NextNotification(), "STOPPING=1");
  Launch({"--unmount-on-exit", "false"});
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  EXPECT_EQ(Look(), ENOENT);
  EXPECT_NE(Log().find("went on with"), std::string::npos) << Log();
  ::kill(child_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  Launch({"--unmount"});
  EXPECT_EQ(Wait(), 0) << Log();
  EXPECT_FALSE(IsMounted());
}

// Goal: mistakes on the command line and of the machine end with a sentence and a code.
TEST_F(FusedProcessTest, Mistakes) {
  Launch({"--no-such-flag"});
  EXPECT_NE(Wait(), 0);
  Launch({"--read-deadline", "soon"});
  EXPECT_EQ(Wait(), 2);
  EXPECT_NE(Log().find("--read-deadline"), std::string::npos) << Log();
  Launch({"--mountpoint", "relative"});
  EXPECT_NE(Wait(), 0);
  ASSERT_OK(WriteFileAtomic(dir / "bad.toml", "[fused]\nrooot = \"/x\"\n"));
  Launch({"--config", dir / "bad.toml"});
  EXPECT_EQ(Wait(), 2);
  EXPECT_NE(Log().find("rooot"), std::string::npos) << Log();
  Launch({"--log-level", "loud"});
  EXPECT_NE(Wait(), 0);
  EXPECT_FALSE(IsMounted());
}

}  // namespace
}  // namespace headrace::test
