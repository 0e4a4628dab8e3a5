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
#include <iterator>
#include <thread>
#include <vector>

#include "fusefs/base/file.h"
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
      ::setenv("NOTIFY_SOCKET", socket.c_str(), 1);
      ::execv(HEADRACE_FUSED, argv.data());
      ::_exit(127);
    }
  }
  std::string NextNotification() {
    char buffer[256];
    ssize_t n = ::recv(notify_.get(), buffer, sizeof buffer, 0);
    return n < 0 ? "" : std::string(buffer, static_cast<size_t>(n));
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

// Goal: after a SIGKILL the mount is dead, and the next start replaces it.
TEST_F(FusedProcessTest, StartAfterKill) {
  Launch();
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  ::kill(child_, SIGKILL);
  EXPECT_EQ(Wait(), -SIGKILL);
  EXPECT_EQ(Look(), ENOTCONN);
  Launch();
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  EXPECT_EQ(Look(), ENOENT);
}

// Goal: the mount stays when that is asked for.
TEST_F(FusedProcessTest, KeepsTheMountIfAsked) {
  Launch({"--unmount-on-exit", "false"});
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  ::kill(child_, SIGTERM);
  EXPECT_EQ(Wait(), 0);
  EXPECT_TRUE(IsMounted());
}

// Goal: it ends when somebody unmounts the file system, instead of pretending to serve.
TEST_F(FusedProcessTest, EndsWhenUnmounted) {
  Launch();
  ASSERT_EQ(NextNotification(), "READY=1") << Log();
  ASSERT_EQ(::umount2(Mountpoint().c_str(), 0), 0) << std::strerror(errno);
  EXPECT_EQ(Wait(), 0) << Log();
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
