// Goal: the same commands against a registry: push, pull, what is there is not pushed again, blobs are mounted, errors name it.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

#include "snapshotter/cli/command_line.h"
#include "snapshotter/cli/convert.h"
#include "snapshotter/cli/verify.h"
#include "test/cli/cli_fixture.h"
#include "test/support/fake_registry.h"
#include "test/support/matchers.h"

namespace headrace::cli {
namespace {

using test::FakeRegistry;
using test::Fault;

class CliRegistryTest : public CliTest {
 protected:
  void SetUp() override {
    Write("m/config.json", "{}");
    Write("m/w1", Weights(300'000, 1));
    Write("m/w2", Weights(300'000, 2));
    Write("docker.json", "{}");
  }

  std::vector<std::string> BuildTo(const std::string& target) {
    return {"build", "-q", Path("m"), target, "--large-file", "100KiB", "--docker-config", Path("docker.json"),
            "--tmp-dir", Path("")};
  }

  FakeRegistry registry_;
};

// Pushed as built into a layout, pulled and verified; the second push uploads no layer.
TEST_F(CliRegistryTest, BuildPushVerify) {
  const std::string target = registry_.host() + "/models/m:v1";
  ASSERT_EQ(Run(BuildTo(target)), kExitOk) << err();
  const std::string digest = out();
  ASSERT_EQ(Run(BuildTo("oci:" + Path("layout") + ":v1")), kExitOk) << err();
  EXPECT_EQ(out(), digest);
  EXPECT_EQ(registry_.Manifest("models/m", "v1"), Root("layout", "v1").body);
  ASSERT_EQ(Run({"verify", "--json", target, "--docker-config", Path("docker.json")}), kExitOk) << out() << err();
  const uint64_t uploads = registry_.counts().uploads;
  EXPECT_EQ(uploads, 4u);  // three layers and the config
  ASSERT_EQ(Run(BuildTo(registry_.host() + "/models/m:v2")), kExitOk) << err();
  EXPECT_LE(registry_.counts().uploads, uploads + 1);
  EXPECT_EQ(Shell("ls -A | grep headrace- || echo none"), "none\n");
}

// Between two repositories of one registry layers are mounted, not moved.
TEST_F(CliRegistryTest, ConvertMounts) {
  const std::string source = registry_.host() + "/models/m:v1";
  ASSERT_EQ(Run(BuildTo(source)), kExitOk) << err();
  const uint64_t uploads = registry_.counts().uploads;
  ASSERT_EQ(Run({"convert", "-q", source, registry_.host() + "/copy/m:v1", "--tmp-dir", Path("")}), kExitOk) << err();
  EXPECT_LE(registry_.counts().uploads, uploads + 1);  // the config
  EXPECT_EQ(registry_.Manifest("copy/m", "v1"), registry_.Manifest("models/m", "v1"));
  registry_.AllowMount(false);
  ASSERT_EQ(Run({"convert", "-q", source, registry_.host() + "/copy2/m:v1", "--tmp-dir", Path("")}), kExitOk) << err();
  EXPECT_EQ(registry_.Manifest("copy2/m", "v1"), registry_.Manifest("models/m", "v1"));
}

// Registry to layout and back.
TEST_F(CliRegistryTest, ThroughALayout) {
  ASSERT_EQ(Run(BuildTo(registry_.host() + "/models/m:v1")), kExitOk) << err();
  ASSERT_EQ(Run({"convert", "-q", registry_.host() + "/models/m:v1", "oci:" + Path("l") + ":v1"}), kExitOk) << err();
  EXPECT_EQ(registry_.Manifest("models/m", "v1"), Root("l", "v1").body);
  ASSERT_EQ(Run({"convert", "-q", "oci:" + Path("l"), registry_.host() + "/back/m:v1", "--tmp-dir", Path("")}), kExitOk) << err();
  EXPECT_EQ(registry_.Manifest("back/m", "v1"), registry_.Manifest("models/m", "v1"));
}

// A bit that the registry flips in a layer is found.
TEST_F(CliRegistryTest, VerifyFindsWrongBytes) {
  const std::string target = registry_.host() + "/models/m:v1";
  ASSERT_EQ(Run(BuildTo(target)), kExitOk) << err();
  const Digest layer = ParseManifest(*registry_.Manifest("models/m", "v1"))->layers[1].digest;
  registry_.AddFault({.kind = Fault::Kind::kFlipBit, .path_contains = layer.Hex(), .times = -1, .blob_offset = 4000});
  EXPECT_EQ(Run({"verify", "-q", target}), kExitFailed);
  EXPECT_NE(out().find(layer.ToString()), std::string::npos) << out() << err();
}

// What a user sees when credentials are missing or the image is not there.
TEST_F(CliRegistryTest, ErrorsNameTheRegistry) {
  EXPECT_EQ(Run({"inspect", registry_.host() + "/models/none:v1"}), kExitFailed);
  EXPECT_NE(err().find("models/none"), std::string::npos) << err();
  registry_.RequireBasic("user", "secret");
  EXPECT_EQ(Run(BuildTo(registry_.host() + "/models/m:v1")), kExitFailed);
  EXPECT_NE(err().find(registry_.host()), std::string::npos) << err();
  EXPECT_NE(err().find("docker login"), std::string::npos) << err();
  EXPECT_EQ(Run(BuildTo(registry_.host() + "/models/m@" + Digest::Of("x").ToString())), kExitFailed);
  EXPECT_NE(err().find("the outcome"), std::string::npos) << err();
}

// Goal: Ctrl-C in the middle of a push ends the program at once with 130 and leaves nothing temporary. The registry holds the upload,
// so that the program is known to be in the middle.
TEST_F(CliRegistryTest, InterruptLeavesNothing) {
  registry_.AddFault({.kind = Fault::Kind::kHold, .method = "POST", .times = -1});
  std::vector<std::string> words = BuildTo(registry_.host() + "/models/m:v1");
  words.insert(words.begin(), HEADRACE_PROGRAM);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  // An interrupted program ends by _exit(2) with its threads where they are; to tsan those that had ended unjoined are a leak.
  const char* const tsan = std::getenv("TSAN_OPTIONS");
  const std::string before = tsan != nullptr ? tsan : "";
  ASSERT_EQ(::setenv("TSAN_OPTIONS", (before + " report_thread_leaks=0").c_str(), 1), 0);
  pid_t pid = 0;
  ASSERT_EQ(::posix_spawn(&pid, HEADRACE_PROGRAM, nullptr, nullptr, argv.data(), environ), 0);
  ASSERT_EQ(tsan != nullptr ? ::setenv("TSAN_OPTIONS", before.c_str(), 1) : ::unsetenv("TSAN_OPTIONS"), 0);
  EXPECT_TRUE(registry_.WaitForHeld(1));
  EXPECT_NE(Shell("ls -A | grep headrace- || echo none"), "none\n");
  ASSERT_EQ(::kill(pid, SIGINT), 0);
  int status = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (::waitpid(pid, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, &status, 0);
      FAIL() << "the program did not end";
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), kExitInterrupted);
  EXPECT_EQ(Shell("ls -A | grep headrace- || echo none"), "none\n");
  registry_.Release();
}

}  // namespace
}  // namespace headrace::cli
