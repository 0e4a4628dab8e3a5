// kill -9 at every step: a child process works on the root and dies at a named point; the parent
// opens the root again and finds either the state before the operation or the one after it, no
// leftovers after a clean-up, and no id used twice.
#include <sys/wait.h>
#include <unistd.h>

#include <set>

#include "test/snapshotter/core_fixture.h"

namespace headrace::snapshotter {
namespace {

class CrashTest : public CoreTest {
 protected:
  // Runs `work` in a child that dies at `point`. The child's fake headrace-fused dies with it: it
  // forgets everything.
  void DieAt(const std::string& point, const std::function<void(Snapshotter&)>& work) {
    core_.reset();
    pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      Snapshotter::Options options = options_;
      options.sync_point = [&point](std::string_view here) {
        if (here == point) ::_exit(9);
      };
      auto core = Snapshotter::Create(options, &layers_);
      if (core.ok()) work(**core);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 9)
        << "the child did not come to " << point;
    Reopen();
  }

  std::set<std::string> Names() {
    std::set<std::string> names;
    auto infos = core_->List({});
    EXPECT_OK(infos);
    if (infos.ok()) {
      for (const Info& info : *infos) names.insert(info.name);
    }
    return names;
  }
};

TEST_F(CrashTest, Prepare) {
  const std::vector<std::pair<std::string, bool>> points = {
      {"create:allotted", false}, {"create:directories", false}, {"create:row", true}};
  int n = 0;
  for (const auto& [point, done] : points) {
    std::string key = "key" + std::to_string(++n);
    DieAt(point, [&](Snapshotter& core) { (void)core.Prepare({}, key, "", {}).ok(); });
    EXPECT_EQ(Names().contains(key), done) << point;
    ASSERT_OK(core_->Cleanup());
    EXPECT_EQ(DirectoryCount(), Names().size()) << point;
    if (done) {
      EXPECT_OK(core_->Mounts(key));
    } else {
      EXPECT_OK(Prepare(key, ""));
    }
  }
}

TEST_F(CrashTest, Commit) {
  ASSERT_OK(Prepare("key", ""));
  DieAt("commit:row", [](Snapshotter& core) {
    (void)core.Commit("name", "key", {{"l", "1"}}, "").ok();
  });
  EXPECT_EQ(Names(), std::set<std::string>{"name"});
  EXPECT_EQ(core_->Stat("name")->labels, (Labels{{"l", "1"}}));
  EXPECT_EQ(core_->GetUsage("name")->inodes, 1);  // its measurement died, too, and was begun again
}

TEST_F(CrashTest, LazyPrepare) {
  const std::vector<std::pair<std::string, bool>> points = {
      {"lazy:leftover", false}, {"lazy:mounted", false}, {"lazy:row", true}};
  int n = 0;
  for (const auto& [point, done] : points) {
    std::string ref = "chain" + std::to_string(++n);
    size_t before = Names().size();
    DieAt(point,
          [&](Snapshotter& core) { (void)core.Prepare({}, "key", "", LazyLabels(ref)).ok(); });
    EXPECT_EQ(Names().size(), before + (done ? 1 : 0)) << point;
    ASSERT_OK(core_->RestoreLazy());
    ASSERT_OK(core_->Cleanup());
    EXPECT_EQ(layers_.mounted().size(), Names().size()) << point;
    Lazy(ref, "");  // found or made, once
    EXPECT_EQ(layers_.mounted().size(), Names().size()) << point;
  }
}

// Goal: the id of a mount that was begun and lost is not given to another layer: headrace-fused may
// have it.
TEST_F(CrashTest, IdsOfLostMountsAreNotReused) {
  uint64_t lost = 0;
  int channel[2];
  ASSERT_EQ(::pipe(channel), 0);
  DieAt("lazy:mounted", [&](Snapshotter& core) {
    layers_.OnMount([&] {
      uint64_t id = layers_.calls().back().id;
      if (::write(channel[1], &id, sizeof id) != sizeof id) ::_exit(1);
    });
    (void)core.Prepare({}, "key", "", LazyLabels("chain1")).ok();
  });
  ASSERT_EQ(::read(channel[0], &lost, sizeof lost), static_cast<ssize_t>(sizeof lost));
  ::close(channel[0]);
  ::close(channel[1]);
  Lazy("chain1", "");
  EXPECT_GT(layers_.calls().back().id, lost);
}

TEST_F(CrashTest, Cleanup) {
  ASSERT_OK(Prepare("a", ""));
  ASSERT_OK(core_->Remove("a"));
  DieAt("cleanup:gone", [](Snapshotter& core) { (void)core.Cleanup().ok(); });
  ASSERT_OK(core_->Cleanup());
  EXPECT_EQ(DirectoryCount(), 0u);
}

}  // namespace
}  // namespace headrace::snapshotter
