// The keeper of the daemon's session, spoken to as the daemon does.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/keeper_protocol.h"
#include "snapshotter/keeper/session_keeper.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::snapshotter {
namespace {

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class KeeperTest : public ::testing::Test {
 protected:
  void Start(std::chrono::milliseconds orphan_time = std::chrono::minutes(10)) {
    auto started = SessionKeeper::Start({.socket = socket, .orphan_time = orphan_time});
    ASSERT_OK(started);
    keeper = std::move(*started);
  }
  UniqueFd Connect() {
    auto fd = ConnectPacketSocket(socket, 5);
    EXPECT_OK(fd);
    return fd.ok() ? std::move(*fd) : UniqueFd();
  }
  Message Ask(int fd, const std::string& question, std::span<const int> descriptors = {}) {
    EXPECT_OK(SendMessage(fd, question, descriptors));
    auto answer = ReceiveMessage(fd);
    EXPECT_OK(answer);
    return answer.ok() ? std::move(*answer) : Message{};
  }
  // A file that can be told from others by its inode.
  UniqueFd Thing() { return UniqueFd(::memfd_create("thing", MFD_CLOEXEC)); }
  static ino_t Inode(int fd) {
    struct stat st;
    return ::fstat(fd, &st) == 0 ? st.st_ino : 0;
  }

  test::TempDir dir;
  const std::string socket = dir / "keeper.sock";
  std::unique_ptr<SessionKeeper> keeper;
};

// Goal: what one process leaves another gets, for its mount point only, as often as it asks; after a drop it is gone.
TEST_F(KeeperTest, KeepsAndGives) {
  Start();
  UniqueFd a = Thing(), b = Thing();
  const int fds[] = {a.get(), b.get()};
  {
    UniqueFd daemon = Connect();
    EXPECT_EQ(Ask(daemon.get(), "PUT /run/x/fs", fds).bytes, "OK");
  }
  const ino_t first = Inode(a.get()), second = Inode(b.get());
  a.Reset();
  b.Reset();
  for (int i = 0; i < 2; ++i) {
    UniqueFd successor = Connect();
    Message held = Ask(successor.get(), "GET /run/x/fs");
    EXPECT_EQ(held.bytes, "HELD");
    ASSERT_EQ(held.descriptors.size(), 2u);
    EXPECT_EQ(Inode(held.descriptors[0].get()), first);
    EXPECT_EQ(Inode(held.descriptors[1].get()), second);
    EXPECT_EQ(Ask(successor.get(), "GET /run/other").bytes, "NONE");
  }
  UniqueFd last = Connect();
  EXPECT_EQ(Ask(last.get(), "DROP /run/x/fs").bytes, "OK");
  EXPECT_EQ(Ask(last.get(), "GET /run/x/fs").bytes, "NONE");
  EXPECT_TRUE(Eventually([&] { return keeper->sessions() == 0; }));
}

// Goal: a session whose daemon is gone and has no successor is let go after its time, so that nobody hangs for ever; one whose daemon lives is not.
TEST_F(KeeperTest, LetsOrphansGo) {
  Start(std::chrono::milliseconds(100));
  UniqueFd thing = Thing();
  const int fds[] = {thing.get(), thing.get()};
  UniqueFd daemon = Connect(), other = Connect();
  EXPECT_EQ(Ask(daemon.get(), "PUT /a", fds).bytes, "OK");
  EXPECT_EQ(Ask(other.get(), "PUT /b", fds).bytes, "OK");
  ASSERT_TRUE(Eventually([&] { return keeper->sessions() == 2; }));
  other.Reset();
  EXPECT_TRUE(Eventually([&] { return keeper->sessions() == 1; }));
  EXPECT_EQ(Ask(daemon.get(), "GET /a").bytes, "HELD");
}

// Goal: nonsense, too many and too much are answered or cut off; the keeper goes on.
TEST_F(KeeperTest, BoundsWhatComes) {
  Start();
  UniqueFd thing = Thing();
  const int one[] = {thing.get()};
  const int two[] = {thing.get(), thing.get()};
  UniqueFd client = Connect();
  EXPECT_TRUE(Ask(client.get(), "HELLO").bytes.starts_with("ERROR "));
  EXPECT_TRUE(Ask(client.get(), "PUT /a", one).bytes.starts_with("ERROR "));
  EXPECT_TRUE(Ask(client.get(), "PUT /a").bytes.starts_with("ERROR "));
  for (size_t i = 0; i < SessionKeeper::kSessionsMax; ++i) EXPECT_EQ(Ask(client.get(), "PUT /" + std::to_string(i), two).bytes, "OK");
  EXPECT_TRUE(Ask(client.get(), "PUT /one-more", two).bytes.starts_with("ERROR "));
  EXPECT_EQ(Ask(client.get(), "PUT /1", two).bytes, "OK");
  std::vector<UniqueFd> many;
  for (size_t i = 0; i < SessionKeeper::kClientsMax + 5; ++i) {
    if (auto fd = ConnectPacketSocket(socket, 1); fd.ok()) many.push_back(std::move(*fd));
  }
  many.clear();
  EXPECT_TRUE(Eventually([&] {
    auto fd = ConnectPacketSocket(socket, 1);
    if (!fd.ok() || !SendMessage(fd->get(), "GET /1").ok()) return false;
    auto answer = ReceiveMessage(fd->get());
    return answer.ok() && answer->bytes == "HELD";
  }));
}

// Goal: two keepers do not take each other's socket; a dead one's is replaced; only the owner may open it.
TEST_F(KeeperTest, OneListens) {
  Start();
  EXPECT_EQ(SessionKeeper::Start({.socket = socket}).status().code(), StatusCode::kFailedPrecondition);
  struct stat st;
  ASSERT_EQ(::stat(socket.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  keeper.reset();
  EXPECT_NE(::access(socket.c_str(), F_OK), 0);
  { auto dead = ListenPacketSocket(socket); ASSERT_OK(dead); }
  Start();
}

}  // namespace
}  // namespace headrace::snapshotter
