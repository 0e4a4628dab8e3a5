// The state that outlives a process: what a successor reads is what the predecessor did, wherever it was killed.
#include "fusefs/kernel/session_table.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <random>
#include <set>
#include <thread>

#include "fusefs/kernel/inode_modes.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::kernel {
namespace {

const SessionIdentity kIdentity{"/run/x/fs", std::string("init\0bytes", 10), 0x8000000001, 77};

UniqueFd Duplicate(const SessionTable& table) { return UniqueFd(::dup(table.memory())); }

SessionTable New() {
  auto table = SessionTable::Create(kIdentity);
  HEADRACE_CHECK(table.ok());
  return std::move(*table);
}

// Goal: identity and open inodes come back; what was freed does not; a freed place is used again.
TEST(SessionTableTest, ComesBack) {
  SessionTable table = New();
  const uint32_t a = table.TakePlace(), b = table.TakePlace();
  const uint32_t first = table.Change(a, {11, IoMode::kPassthrough, 5, 2}, 100);
  const uint32_t second = table.Change(b, {12, IoMode::kCached, 0, 1}, 102);
  table.Answered(first);
  auto next = SessionTable::Adopt(Duplicate(table));
  ASSERT_OK(next);
  EXPECT_EQ(next->identity().mountpoint, kIdentity.mountpoint);
  EXPECT_EQ(next->identity().init_bytes, kIdentity.init_bytes);
  EXPECT_EQ(next->identity().flags, kIdentity.flags);
  EXPECT_EQ(next->identity().device, kIdentity.device);
  auto open = next->OpenInodes();
  ASSERT_EQ(open.size(), 2u);
  EXPECT_EQ(open[a].node, 11u);
  EXPECT_EQ(open[a].backing_id, 5);
  EXPECT_EQ(open[a].opens, 2u);
  EXPECT_EQ(open[b].mode, IoMode::kCached);
  EXPECT_EQ(next->Unanswered(), (std::map<uint64_t, uint32_t>{{102, second}}));
  next->Answered(next->Change(a, {11, IoMode::kPassthrough, 5, 0}, 104));
  EXPECT_EQ(next->TakePlace(), a);
  auto last = SessionTable::Adopt(Duplicate(*next));
  ASSERT_OK(last);
  EXPECT_EQ(last->OpenInodes().size(), 1u);
}

// Goal: what is not a table of this version is refused with the reason; nothing that it says is used.
TEST(SessionTableTest, RefusesWhatItCannotRead) {
  SessionTable table = New();
  const uint32_t newer = SessionTable::kVersion + 1;
  ASSERT_EQ(::pwrite(table.memory(), &newer, sizeof newer, 8), 4);
  auto refused = SessionTable::Adopt(Duplicate(table));
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("version " + std::to_string(newer)), std::string::npos) << refused.status().ToString();
  UniqueFd other(::memfd_create("other", MFD_CLOEXEC));
  EXPECT_EQ(SessionTable::Adopt(UniqueFd(::dup(other.get()))).status().code(), StatusCode::kDataLoss);
  ASSERT_EQ(::ftruncate(other.get(), 1 << 20), 0);
  EXPECT_EQ(SessionTable::Adopt(std::move(other)).status().code(), StatusCode::kDataLoss);
}

// Goal: whoever keeps the memory cannot make its user fault. Method: truncating it must fail.
TEST(SessionTableTest, CannotBeTruncated) {
  SessionTable table = New();
  EXPECT_NE(::ftruncate(table.memory(), 0), 0);
}

// Goal: any bytes behind the version are either refused or harmless. Method: random damage of the head, then every query.
TEST(SessionTableTest, DamageIsBounded) {
  std::mt19937_64 random(test::TestSeed());
  for (int round = 0; round < 300; ++round) {
    SessionTable table = New();
    table.Answered(table.Change(table.TakePlace(), {11, IoMode::kDirect, 0, 1}, 100));
    for (int i = 0; i < 4; ++i) {
      const auto value = static_cast<uint32_t>(random() >> (random() % 48));
      ASSERT_EQ(::pwrite(table.memory(), &value, sizeof value, static_cast<off_t>(12 + 4 * (random() % 40))), 4);
    }
    auto adopted = SessionTable::Adopt(Duplicate(table));
    if (!adopted.ok()) continue;
    EXPECT_LE(adopted->OpenInodes().size(), SessionTable::kOpenInodesMax);
    adopted->Suspects();
    adopted->Unanswered();
  }
}

// Goal: too many answers under way are said, not overwritten.
TEST(SessionTableTest, AnswersAreBounded) {
  SessionTable table = New();
  const uint32_t place = table.TakePlace();
  for (uint32_t i = 0; i < SessionTable::kAnswersMax; ++i) ASSERT_NE(table.Change(place, {1, IoMode::kDirect, 0, i + 1}, 2 * i + 2), SessionTable::kNone);
  EXPECT_EQ(table.Change(place, {1, IoMode::kDirect, 0, 9999}, 99'999), SessionTable::kNone);
  EXPECT_EQ(table.OpenInodes()[place].opens, SessionTable::kAnswersMax);
}

// -- Kills. A kernel of the test's own, in shared memory: it hands out requests in order, takes answers, and hands the unanswered one out again.

constexpr uint64_t kNodes = 6;
constexpr uint64_t kRequests = 20'000;  // of one process; then it waits to be killed, if that takes so long

struct FakeKernel {
  std::atomic<uint64_t> answered;         // requests 0 ... answered - 1 are answered
  std::array<std::atomic<uint8_t>, 1 << 23> registered;  // backing ids that are open
  std::atomic<uint32_t> last_id;
};

class KernelRegistrar : public BackingRegistrar {
 public:
  explicit KernelRegistrar(FakeKernel& kernel) : kernel_(kernel) {}
  Result<int> Register(int) override {
    // In turn, as idr_alloc_cyclic does; one store makes it so.
    const uint32_t id = kernel_.last_id.load() + 1;
    HEADRACE_CHECK(id < kernel_.registered.size() && kernel_.registered[id] == 0);
    kernel_.last_id = id;
    kernel_.registered[id] = 1;
    return static_cast<int>(id);
  }
  void Unregister(int id) override { kernel_.registered[static_cast<size_t>(id)] = 0; }

 private:
  FakeKernel& kernel_;
};

class SealedContent : public stream::FileContent {
 public:
  uint64_t size() const override { return 1 << 20; }
  bool sealed() const override { return true; }
  int backing_fd() const override { return 7; }
  void Read(uint64_t, uint64_t, ReadDone) override {}
  void FetchAll() override {}
};

// Request i, from its number alone: which node, and whether it is an open; never a release of what is not open.
struct Script {
  std::array<uint32_t, kNodes> opens{};
  struct Step {
    vfs::NodeId node;
    bool open;
  };
  Step Next(uint64_t i) {
    uint64_t hash = (i + 1) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9u;
    hash ^= hash >> 27;
    const uint64_t node = hash % kNodes;
    const bool open = opens[node] == 0 || (opens[node] < 5 && (hash >> 40) % 2 == 0);
    opens[node] += open ? 1 : -1;
    return {node + 1, open};
  }
};

// One process: goes on where the last one was killed. Answers by one store, as the kernel takes an answer in one system call.
[[noreturn]] void ServeUntilKilled(FakeKernel& kernel, int memory) {
  auto table = SessionTable::Adopt(UniqueFd(::dup(memory)));
  if (!table.ok()) ::_exit(2);
  KernelRegistrar registrar(kernel);
  InodeModes modes(registrar, *table, 1000, true);
  Script script;
  const uint64_t begin = kernel.answered;
  for (uint64_t i = 0; i < begin; ++i) script.Next(i);
  auto content = std::make_shared<SealedContent>();
  for (uint64_t i = begin; i < begin + kRequests; ++i) {
    const Script::Step step = script.Next(i);
    const uint64_t unique = 2 * i + 2;
    uint32_t answer;
    if (step.open) {
      auto opened = modes.Open(step.node, content, unique);
      if (!opened.ok() || opened->mode != IoMode::kPassthrough || kernel.registered[static_cast<size_t>(opened->backing_id)] == 0) ::_exit(3);
      answer = opened->answer;
    } else {
      auto released = modes.Release(step.node, unique);
      if (!released.known) ::_exit(4);
      answer = released.answer;
    }
    kernel.answered = i + 1;
    modes.Answered(answer);
    if (i == begin) modes.SettleUnanswered();
  }
  for (;;) ::pause();
}

// Goal: each open and release counts exactly once, and no backing id leaks or is closed early, however often and wherever the process is killed.
TEST(SessionTableKillTest, CountsSurviveKillsAtRandom) {
  std::mt19937_64 random(test::TestSeed());
  auto* kernel = static_cast<FakeKernel*>(::mmap(nullptr, sizeof(FakeKernel), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(kernel, MAP_FAILED);
  SessionTable table = New();
  constexpr int kKills = 300;
  for (int kill = 0; kill < kKills; ++kill) {
    const uint64_t before = kernel->answered;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) ServeUntilKilled(*kernel, table.memory());
    // It must get somewhere, else the kills would all hit the start.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (kernel->answered < before + 1 + random() % 50 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    for (uint64_t spin = random() % 20'000; spin > 0; --spin) asm volatile("");
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit code " << WEXITSTATUS(status) << " after " << kill << " kills";
    ASSERT_GT(kernel->answered, before);
  }
  // One more process, that settles; then the truth.
  auto last = SessionTable::Adopt(Duplicate(table));
  ASSERT_OK(last);
  KernelRegistrar registrar(*kernel);
  InodeModes modes(registrar, *last, 1000, true);
  Script script;
  for (uint64_t i = 0; i < kernel->answered; ++i) script.Next(i);
  const bool redo = !last->Unanswered().empty() && last->Unanswered().begin()->first == 2 * kernel->answered + 2;
  if (redo) script.Next(kernel->answered);  // done, not answered
  uint64_t expected = 0;
  std::set<int> expected_ids;
  for (const auto& [place, inode] : last->OpenInodes()) {
    EXPECT_EQ(inode.opens, script.opens[inode.node - 1]) << "node " << inode.node;
    expected_ids.insert(inode.backing_id);
  }
  for (uint32_t opens : script.opens) expected += opens;
  EXPECT_EQ(modes.opens(), expected);
  for (int id = 0; id <= static_cast<int>(kernel->last_id) + 1; ++id) ASSERT_EQ(kernel->registered[static_cast<size_t>(id)] != 0, expected_ids.contains(id)) << "backing id " << id;
  std::printf("%d kills, %llu requests\n", kKills, static_cast<unsigned long long>(kernel->answered.load()));
  modes.Leave();
  ::munmap(kernel, sizeof(FakeKernel));
}

}  // namespace
}  // namespace headrace::kernel
