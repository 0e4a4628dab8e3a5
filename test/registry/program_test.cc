// Programs that are asked for credentials: what they get, and that none of them can hang, flood or outlive us.
#include "fusefs/registry/program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <thread>

#include "fusefs/registry/program_answers.h"
#include "test/registry/credential_test_util.h"
#include "test/support/temp_dir.h"

namespace headrace::registry {
namespace {

using testing::HasSubstr;
using testing::Not;
using std::chrono::milliseconds;

class ProgramTest : public ::testing::Test {
 protected:
  Result<ProgramResult> Run(const std::string& body, milliseconds timeout = milliseconds(20'000), const std::string& input = "") {
    test::WriteScript(dir_ / "p", body);
    return RunProgram({.path = dir_ / "p", .arguments = {"one", "two words"}, .environment = {"MINE=yes"}, .input = input, .timeout = timeout, .output_max = 1 << 20}, stop_);
  }
  test::TempDir dir_;
  StopSignal stop_;
};

TEST_F(ProgramTest, InputOutputArgumentsExitCode) {
  Result<ProgramResult> result = Run("read line; echo \"$line|$1|$2|$MINE\"; echo secret >&2; exit 3", milliseconds(20'000), "hello\n");
  ASSERT_OK(result);
  EXPECT_EQ(result->output, "hello|one|two words|yes\n");
  EXPECT_EQ(result->exit_code, 3);
  result = Run("kill -9 $$");
  ASSERT_OK(result);
  EXPECT_EQ(result->exit_code, 128 + SIGKILL);
}

// Goal: nothing of ours leaks into it: environment, descriptors, blocked signals.
TEST_F(ProgramTest, CleanSurroundings) {
  ::setenv("PLANTED_SECRET", "hunter2", 1);
  sigset_t block, before;
  sigemptyset(&block);
  sigaddset(&block, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &block, &before);
  Result<ProgramResult> result = Run("env; ls /proc/self/fd | tr '\\n' ' '; grep SigBlk /proc/self/status; pwd");
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::unsetenv("PLANTED_SECRET");
  ASSERT_OK(result);
  EXPECT_THAT(result->output, Not(HasSubstr("hunter2")));
  EXPECT_THAT(result->output, HasSubstr("PATH="));
  EXPECT_THAT(result->output, HasSubstr("0 1 2 3 "));  // 3 is ls's own
  EXPECT_THAT(result->output, Not(HasSubstr(" 4 ")));
  EXPECT_THAT(result->output, HasSubstr("0000000000000000"));
}

// Goal: a program that hangs is killed with its children, within its time.
TEST_F(ProgramTest, HangsAreKilled) {
  const auto start = std::chrono::steady_clock::now();
  Result<ProgramResult> result = Run("sleep 1000 & echo $! > " + (dir_ / "child") + "; echo hunter2; exec sleep 1000", milliseconds(1500));
  EXPECT_CODE(result, StatusCode::kDeadlineExceeded);
  EXPECT_THAT(result.status().message(), Not(HasSubstr("hunter2")));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  const int child = std::stoi(*ReadFile(dir_ / "child", 100));
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  auto alive = [&] {  // a zombie that nobody has taken yet is dead
    Result<std::string> stat = ReadFile("/proc/" + std::to_string(child) + "/stat", 4096);
    return stat.ok() && stat->find(") Z ") == std::string::npos;
  };
  while (alive() && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  EXPECT_FALSE(alive());
}

// Goal: a child left behind that holds the output does not keep us.
TEST_F(ProgramTest, EndOfTheProgramIsTheEnd) {
  Result<ProgramResult> result = Run("sleep 1000 & echo done", milliseconds(20'000));
  ASSERT_OK(result);
  EXPECT_EQ(result->output, "done\n");
}

TEST_F(ProgramTest, StopFloodAndUnreadInput) {
  std::thread stopper;
  {
    StopSignal stop;
    test::WriteScript(dir_ / "p", "echo started > " + (dir_ / "started") + "; exec sleep 1000");
    stopper = std::thread([&] {
      const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      while (test::CountLines(dir_ / "started") == 0 && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
      stop.Stop();
    });
    EXPECT_CODE(RunProgram({.path = dir_ / "p", .arguments = {}, .environment = {}, .input = ""}, stop), StatusCode::kCancelled);
    stopper.join();
    EXPECT_TRUE(stop.stopped());
  }
  EXPECT_CODE(Run("exec yes hunter2"), StatusCode::kResourceExhausted);
  Result<ProgramResult> result = Run("exit 0", milliseconds(20'000), std::string(4 << 20, 'x'));  // does not read it
  ASSERT_OK(result);
  EXPECT_EQ(result->exit_code, 0);
  result = Run("wc -c", milliseconds(20'000), std::string(4 << 20, 'x'));
  ASSERT_OK(result);
  EXPECT_THAT(result->output, HasSubstr("4194304"));
}

TEST_F(ProgramTest, CannotBeRun) {
  EXPECT_CODE(RunProgram({.path = dir_ / "missing", .arguments = {}, .environment = {}, .input = ""}, stop_), StatusCode::kNotFound);
  ASSERT_OK(WriteFileAtomic(dir_ / "plain", "x", 0644));
  EXPECT_CODE(RunProgram({.path = dir_ / "plain", .arguments = {}, .environment = {}, .input = ""}, stop_), StatusCode::kPermissionDenied);
  EXPECT_CODE(FindProgram("headrace-no-such-program"), StatusCode::kNotFound);
  EXPECT_OK(FindProgram("sh"));
}

// Goal: many askers, one start; a refused answer is asked anew, but not in a storm.
TEST(ProgramAnswersTest, SingleFlightPauseAndRefusal) {
  ProgramAnswers answers(milliseconds(3'600'000));
  std::atomic<int> starts{0};
  const Credentials good{"u", "p", ""};
  auto any = [](const ProgramAnswer& answer) -> std::optional<Credentials> {
    if (answer.credentials.empty()) return std::nullopt;
    return answer.credentials.front().second;
  };
  auto none = [](const ProgramAnswer&) -> std::optional<Credentials> { return std::nullopt; };
  auto ask = [&]() -> Result<ProgramAnswer> {
    ++starts;
    std::this_thread::yield();
    return ProgramAnswer{{{"", good}}, "wide", std::chrono::seconds(60)};
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      auto got = answers.Get({"narrow", "wide"}, any, ask);
      ASSERT_OK(got);
      EXPECT_EQ(*got, good);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(starts, 1);
  EXPECT_EQ(**answers.Get({"other", "wide"}, any, ask), good);  // kept under "wide"
  EXPECT_EQ(starts, 1);
  EXPECT_EQ(*answers.Get({"other", "wide"}, none, ask), std::nullopt);  // refused: asked anew
  EXPECT_EQ(starts, 2);
  EXPECT_EQ(*answers.Get({"other", "wide"}, none, ask), std::nullopt);  // within the pause
  EXPECT_EQ(starts, 2);

  auto fail = [&]() -> Result<ProgramAnswer> {
    ++starts;
    return UnavailableError("broken");
  };
  EXPECT_CODE(answers.Get({"bad"}, any, fail), StatusCode::kUnavailable);
  EXPECT_CODE(answers.Get({"bad"}, any, fail), StatusCode::kUnavailable);
  EXPECT_EQ(starts, 3);
  ProgramAnswers impatient(milliseconds(0));
  EXPECT_CODE(impatient.Get({"bad"}, any, fail), StatusCode::kUnavailable);
  EXPECT_CODE(impatient.Get({"bad"}, any, fail), StatusCode::kUnavailable);
  EXPECT_EQ(starts, 5);
  auto thrower = []() -> Result<ProgramAnswer> { throw std::runtime_error("hunter2"); };
  EXPECT_THAT(impatient.Get({"bad"}, any, thrower).status().message(), Not(HasSubstr("hunter2")));
}

}  // namespace
}  // namespace headrace::registry
