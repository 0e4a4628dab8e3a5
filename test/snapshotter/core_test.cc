// The state machine with ordinary layers: containerd's own conformance cases that need no mounts,
// re-expressed, then error classes, answers of Mounts, usage, clean-up, limits. What needs real
// mounts is in mount_test.cc, lazy layers in lazy_test.cc.
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "test/snapshotter/core_fixture.h"

namespace headrace::snapshotter {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

int64_t NowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

std::vector<std::string> Names(const Result<std::vector<Info>>& infos) {
  std::vector<std::string> names;
  if (infos.ok()) {
    for (const Info& info : *infos) names.push_back(info.name);
  }
  return names;
}

// Suite case Basic, without the contents of files: two layers, a view, the walk, the order of
// removal.
TEST_F(CoreTest, Basic) {
  ASSERT_OK(Prepare("preparing", ""));
  ASSERT_OK(core_->Commit("committed", "preparing", {}, ""));
  auto committed = core_->Stat("committed");
  ASSERT_OK(committed);
  EXPECT_EQ(committed->parent, "");
  EXPECT_EQ(committed->kind, Kind::kCommitted);
  EXPECT_CODE(core_->Stat("preparing"), StatusCode::kNotFound);
  ASSERT_OK(Prepare("next", "committed"));
  EXPECT_EQ(core_->Stat("next")->parent, "committed");
  EXPECT_EQ(core_->Stat("next")->kind, Kind::kActive);
  ASSERT_OK(core_->Commit("committed-next", "next", {}, ""));
  EXPECT_EQ(core_->Stat("committed-next")->parent, "committed");
  EXPECT_CODE(core_->Stat("next"), StatusCode::kNotFound);
  EXPECT_THAT(Names(core_->List({})), UnorderedElementsAre("committed", "committed-next"));
  ASSERT_OK(View("view", "committed-next"));
  ASSERT_OK(core_->Remove("view"));
  Status refused = core_->Remove("committed");
  EXPECT_CODE(refused, StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("remove"));
  ASSERT_OK(core_->Remove("committed-next"));
  ASSERT_OK(core_->Remove("committed"));
}

// Suite cases StatActive, StatComitted, TransitivityTest.
TEST_F(CoreTest, StatAndTransitivity) {
  ASSERT_OK(Prepare("a-key", ""));
  auto active = core_->Stat("a-key");
  ASSERT_OK(active);
  EXPECT_EQ(active->name, "a-key");
  EXPECT_EQ(active->kind, Kind::kActive);
  EXPECT_EQ(active->parent, "");
  ASSERT_OK(core_->Commit("a", "a-key", {}, ""));
  EXPECT_EQ(core_->Stat("a")->kind, Kind::kCommitted);
  EXPECT_EQ(core_->Stat("a")->name, "a");
  Commit("b", "a");
  EXPECT_EQ(core_->Stat("b")->parent, "a");
  EXPECT_EQ(core_->Stat(core_->Stat("b")->parent)->parent, "");
}

// Suite case PreareViewFailingtest.
TEST_F(CoreTest, UsedKeysAreRefused) {
  Commit("a", "");
  ASSERT_OK(Prepare("p", "a"));
  EXPECT_CODE(View("p", "a"), StatusCode::kAlreadyExists);
  EXPECT_CODE(Prepare("p", "a"), StatusCode::kAlreadyExists);
  ASSERT_OK(View("v", "a"));
  EXPECT_CODE(View("v", "a"), StatusCode::kAlreadyExists);
  EXPECT_CODE(Prepare("a", ""), StatusCode::kAlreadyExists);
  EXPECT_EQ(DirectoryCount(), 3u);  // refused calls left nothing
}

// Suite case Update, with its six snapshots.
TEST_F(CoreTest, Update) {
  const Labels start = {{"l1", "v1"}, {"l2", "v2"}, {"l3", "v3"}};
  int64_t t1 = NowNs();
  ASSERT_OK(Prepare("k1", "", start));
  ASSERT_OK(core_->Commit("c1", "k1", start, ""));
  ASSERT_OK(Prepare("a2", "c1", start));
  ASSERT_OK(core_->View({}, "v1", "", start));
  int64_t t2 = NowNs();
  for (const char* name : {"c1", "a2", "v1"}) {
    auto born = core_->Stat(name);
    ASSERT_OK(born);
    EXPECT_GE(born->created_ns, t1);
    EXPECT_LE(born->created_ns, t2);
    EXPECT_EQ(born->created_ns, born->updated_ns);
    EXPECT_EQ(born->labels, start);

    int64_t u1 = NowNs();
    auto replaced = core_->Update(name, {{"l1", "updated"}, {"l3", "v3"}}, {});
    int64_t u2 = NowNs();
    ASSERT_OK(replaced);
    EXPECT_EQ(replaced->labels, (Labels{{"l1", "updated"}, {"l3", "v3"}}));
    EXPECT_EQ(replaced->created_ns, born->created_ns);
    EXPECT_EQ(replaced->kind, born->kind);
    EXPECT_EQ(replaced->parent, born->parent);
    EXPECT_GE(replaced->updated_ns, u1);
    EXPECT_LE(replaced->updated_ns, u2);

    auto masked =
        core_->Update(name, {{"l1", "v1"}, {"l4", "not in the mask"}}, {"labels.l1", "labels.l3"});
    ASSERT_OK(masked);
    EXPECT_EQ(masked->labels, (Labels{{"l1", "v1"}}));
    EXPECT_EQ(core_->Update(name, start, {"labels"})->labels, start);
    EXPECT_CODE(core_->Update(name, start, {"parent"}), StatusCode::kInvalidArgument);
    EXPECT_EQ(core_->Stat(name)->labels, start);
  }
}

// Suite case Remove: keys and names can be used again.
TEST_F(CoreTest, RemoveAndReuse) {
  ASSERT_OK(Prepare("key", ""));
  ASSERT_OK(core_->Remove("key"));
  ASSERT_OK(View("key", ""));
  ASSERT_OK(core_->Remove("key"));
  ASSERT_OK(Prepare("key", ""));
  ASSERT_OK(core_->Commit("name", "key", {}, ""));
  ASSERT_OK(core_->Remove("name"));
  ASSERT_OK(Prepare("key", ""));
  ASSERT_OK(core_->Commit("name", "key", {}, ""));
}

// Suite case RemoveIntermediateSnapshot.
TEST_F(CoreTest, RemoveIntermediate) {
  Commit("base", "");
  Commit("middle", "base");
  ASSERT_OK(Prepare("top", "middle"));
  EXPECT_CODE(core_->Remove("middle"), StatusCode::kFailedPrecondition);
  EXPECT_CODE(core_->Remove("base"), StatusCode::kFailedPrecondition);
  ASSERT_OK(core_->Remove("top"));
  ASSERT_OK(core_->Remove("middle"));
  ASSERT_OK(core_->Remove("base"));
}

// Suite case Walk with its filter sets.
TEST_F(CoreTest, WalkWithFilters) {
  const Labels one = {{"containerd.io/snapshot/kind", "one"}, {"l", "1"}};
  const Labels two = {{"containerd.io/snapshot/kind", "two"}, {"l", "2"}};
  Commit("c1", "", one);
  Commit("c2", "c1", two);
  ASSERT_OK(Prepare("a1", "c1", one));
  ASSERT_OK(Prepare("a2", "c2", two));
  ASSERT_OK(core_->View({}, "v1", "c2", one));
  ASSERT_OK(core_->View({}, "v2", "", {}));
  auto list = [&](const std::vector<std::string>& filters) { return Names(core_->List(filters)); };
  EXPECT_THAT(list({"labels.\"containerd.io/snapshot/kind\"==one"}),
              UnorderedElementsAre("c1", "a1", "v1"));
  EXPECT_THAT(list({"labels.\"containerd.io/snapshot/kind\"==one,kind==active"}),
              ElementsAre("a1"));
  EXPECT_THAT(list({"kind==view"}), UnorderedElementsAre("v1", "v2"));
  EXPECT_THAT(list({"kind==committed,labels.l==2"}), ElementsAre("c2"));
  EXPECT_THAT(list({"kind==committed", "labels.l==1"}),
              UnorderedElementsAre("c1", "c2", "a1", "v1"));
  EXPECT_THAT(list({"name==v2,labels.l"}), ElementsAre());
  EXPECT_THAT(list({"name==c1,labels.l"}), ElementsAre("c1"));
  EXPECT_THAT(list({"parent==c2"}), UnorderedElementsAre("a2", "v1"));
  EXPECT_THAT(list({"parent!=\"\""}), UnorderedElementsAre("c2", "a1", "a2", "v1"));
  EXPECT_THAT(list({"parent==\"\""}), UnorderedElementsAre("c1", "v2"));
  EXPECT_THAT(list({"labels.l"}), UnorderedElementsAre("c1", "c2", "a1", "a2", "v1"));
  EXPECT_CODE(core_->List({"name="}), StatusCode::kInvalidArgument);
}

// Suite case StatInWalk, and what it does not ask: other calls that write while a list is being
// looked at.
TEST_F(CoreTest, CallsDuringWalk) {
  for (int i = 0; i < 20; ++i) Commit("c" + std::to_string(i), "");
  auto infos = core_->List({});
  ASSERT_OK(infos);
  for (const Info& info : *infos) {
    auto stat = core_->Stat(info.name);
    ASSERT_OK(stat);
    EXPECT_EQ(stat->created_ns, info.created_ns);
    EXPECT_EQ(stat->labels, info.labels);
    ASSERT_OK(core_->Update(info.name, {{"seen", "yes"}}, {}));
    ASSERT_OK(core_->Remove(info.name));
  }
  EXPECT_THAT(Names(core_->List({})), ElementsAre());
}

// Suite case RootPermission; the process's umask must not matter.
TEST_F(CoreTest, RootPermission) {
  mode_t old = ::umask(0077);
  auto mounts = Prepare("a", "");
  ::umask(old);
  ASSERT_OK(mounts);
  struct stat st;
  ASSERT_EQ(::stat(mounts->front().source.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755u);
}

// Goal: the root of a new layer belongs to the owner of the root below.
TEST_F(CoreTest, OwnerOfRootIsInherited) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  auto base = Prepare("base-key", "");
  ASSERT_OK(base);
  ASSERT_EQ(::chown(base->front().source.c_str(), 1234, 567), 0);
  ASSERT_OK(core_->Commit("base", "base-key", {}, ""));
  ASSERT_OK(Prepare("child", "base"));
  struct stat st;
  ASSERT_EQ(::stat((Dir(2) + "/fs").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 1234u);
  EXPECT_EQ(st.st_gid, 567u);
}

// Goal: each failure has the class that containerd acts on.
TEST_F(CoreTest, ErrorClasses) {
  Commit("c", "");
  ASSERT_OK(Prepare("a", "c"));
  ASSERT_OK(View("v", "c"));
  EXPECT_CODE(Prepare("new", "nobody"), StatusCode::kNotFound);
  EXPECT_CODE(Prepare("new", "a"), StatusCode::kInvalidArgument);
  EXPECT_CODE(View("new", "v"), StatusCode::kInvalidArgument);
  EXPECT_CODE(Prepare("", "c"), StatusCode::kInvalidArgument);
  EXPECT_CODE(core_->Mounts("nobody"), StatusCode::kNotFound);
  EXPECT_CODE(core_->Mounts("c"), StatusCode::kFailedPrecondition);
  EXPECT_CODE(core_->Commit("new", "nobody", {}, ""), StatusCode::kNotFound);
  EXPECT_CODE(core_->Commit("c", "a", {}, ""), StatusCode::kAlreadyExists);
  EXPECT_CODE(core_->Commit("new", "v", {}, ""), StatusCode::kFailedPrecondition);
  EXPECT_CODE(core_->Commit("new", "c", {}, ""), StatusCode::kFailedPrecondition);
  EXPECT_CODE(core_->Commit("new", "a", {}, "other"), StatusCode::kInvalidArgument);
  EXPECT_CODE(core_->Remove("nobody"), StatusCode::kNotFound);
  EXPECT_CODE(core_->Remove("c"), StatusCode::kFailedPrecondition);
  EXPECT_CODE(core_->Stat("nobody"), StatusCode::kNotFound);
  EXPECT_CODE(core_->GetUsage("nobody"), StatusCode::kNotFound);
  EXPECT_CODE(core_->Update("nobody", {}, {}), StatusCode::kNotFound);
  Labels huge = {{"k", std::string(kLabelBytesMax, 'v')}};
  EXPECT_CODE(Prepare("new", "c", huge), StatusCode::kInvalidArgument);
  EXPECT_CODE(core_->View({}, "new", "c", huge), StatusCode::kInvalidArgument);
  EXPECT_CODE(core_->Commit("new", "a", huge, ""), StatusCode::kInvalidArgument);
  EXPECT_EQ(DirectoryCount(), 3u);
}

// Goal: Mounts gives again what Prepare gave; the answer of each kind.
TEST_F(CoreTest, MountAnswers) {
  std::vector<std::string> prefix;
  if (::access("/sys/module/overlay/parameters/index", F_OK) == 0) prefix.push_back("index=off");
  auto overlay = [&](std::vector<std::string> options) {
    std::vector<std::string> all = prefix;
    all.insert(all.end(), options.begin(), options.end());
    return std::vector<Mount>{{"overlay", "overlay", all}};
  };
  auto lowest = Prepare("k1", "");
  ASSERT_OK(lowest);
  EXPECT_THAT(*lowest, ElementsAre(Mount{"bind", Dir(1) + "/fs", {"rw", "rbind"}}));
  EXPECT_EQ(*core_->Mounts("k1"), *lowest);
  ASSERT_OK(core_->Commit("c1", "k1", {}, ""));
  auto second = Prepare("k2", "c1");
  ASSERT_OK(second);
  EXPECT_EQ(*second, overlay({"workdir=" + Dir(2) + "/work", "upperdir=" + Dir(2) + "/fs",
                              "lowerdir=" + Dir(1) + "/fs"}));
  EXPECT_EQ(*core_->Mounts("k2"), *second);
  ASSERT_OK(core_->Commit("c2", "k2", {}, ""));
  auto third = Prepare("k3", "c2");
  ASSERT_OK(third);
  EXPECT_EQ(third->front().options.back(), "lowerdir=" + Dir(2) + "/fs:" + Dir(1) + "/fs");
  EXPECT_THAT(*View("v0", ""), ElementsAre(Mount{"bind", Dir(4) + "/fs", {"ro", "rbind"}}));
  EXPECT_THAT(*View("v1", "c1"), ElementsAre(Mount{"bind", Dir(1) + "/fs", {"ro", "rbind"}}));
  EXPECT_EQ(*View("v2", "c2"), overlay({"lowerdir=" + Dir(2) + "/fs:" + Dir(1) + "/fs"}));
  EXPECT_EQ(*core_->Mounts("v2"), *core_->Mounts("v2"));
  // An image volume of ordinary layers is written to by nobody, but is no single directory either.
  EXPECT_EQ(Prepare("k8s.io/9//run/x/image-volumes/s/m", "c2")->front().type, "overlay");
  struct stat st;
  EXPECT_EQ(::stat((Dir(2) + "/work").c_str(), &st), 0);
  EXPECT_NE(::stat((Dir(4) + "/work").c_str(), &st), 0);
}

// Goal: with 128 layers the answer keeps the common prefix that containerd shortens, and names
// every layer once.
TEST_F(CoreTest, ManyLayers) {
  std::string parent;
  for (int i = 0; i < 128; ++i) {
    std::string name = "c" + std::to_string(i);
    Commit(name, parent);
    parent = name;
  }
  auto mounts = Prepare("top", parent);
  ASSERT_OK(mounts);
  const std::string& lower = mounts->front().options.back();
  EXPECT_EQ(std::count(lower.begin(), lower.end(), ':'), 127);
  EXPECT_THAT(lower, testing::StartsWith("lowerdir=" + Dir(128) + "/fs:" + Dir(127) + "/fs:"));
  EXPECT_THAT(lower, testing::EndsWith(":" + Dir(1) + "/fs"));
}

// Goal: usage of an active is measured when asked for, of a committed once; hard links count once;
// sparse files count blocks.
TEST_F(CoreTest, Usage) {
  auto mounts = Prepare("a", "");
  ASSERT_OK(mounts);
  std::string fs = mounts->front().source;
  EXPECT_EQ(core_->GetUsage("a")->inodes, 1);
  ASSERT_OK(WriteFileAtomic(fs + "/f", std::string(100'000, 'x')));
  ASSERT_EQ(::link((fs + "/f").c_str(), (fs + "/g").c_str()), 0);
  ASSERT_OK(MakeDirs(fs + "/d/e"));
  auto usage = core_->GetUsage("a");
  ASSERT_OK(usage);
  EXPECT_EQ(usage->inodes, 4);
  EXPECT_GE(usage->size, 100'000);
  EXPECT_LT(usage->size, 200'000);
  ASSERT_OK(core_->Commit("c", "a", {}, ""));
  EXPECT_EQ(core_->GetUsage("c")->inodes, 4);
  Reopen();
  EXPECT_EQ(*core_->GetUsage("c"), *usage);
  ASSERT_OK(View("v", "c"));
  EXPECT_EQ(*core_->GetUsage("v"), snapshotter::Usage{});
}

// Goal: a commit whose measurement was lost with the process is measured after the restart.
TEST_F(CoreTest, UsageOfCommittedAfterRestart) {
  auto mounts = Prepare("a", "");
  ASSERT_OK(mounts);
  ASSERT_OK(WriteFileAtomic(mounts->front().source + "/f", "x"));
  core_.reset();
  {
    auto store = MetaStore::Open({.path = root_ + "/metadata.db"});
    ASSERT_OK(store);
    ASSERT_OK((*store)->Commit("c", "a", {}, ""));
  }
  Reopen();
  EXPECT_EQ(core_->GetUsage("c")->inodes, 2);
}

// Goal: removing frees the name at once and the disk in Cleanup; directories of others, and of
// snapshots in use, stay.
TEST_F(CoreTest, Cleanup) {
  Commit("c", "");
  auto active = Prepare("a", "c");
  ASSERT_OK(active);
  ASSERT_OK(WriteFileAtomic(Dir(2) + "/fs/file", "x"));
  ASSERT_OK(core_->Remove("a"));
  EXPECT_EQ(DirectoryCount(), 2u);
  ASSERT_OK(core_->Cleanup());
  EXPECT_EQ(DirectoryCount(), 1u);
  ASSERT_OK(MakeDirs(Dir(777) + "/fs"));  // a directory that no row has: from a crash
  ASSERT_OK(MakeDirs(root_ + "/snapshots/lost+found"));
  ASSERT_OK(core_->Cleanup());
  EXPECT_EQ(DirectoryCount(), 1u);
  struct stat st;
  EXPECT_EQ(::stat((root_ + "/snapshots/lost+found").c_str(), &st), 0);
  EXPECT_EQ(::stat((Dir(1) + "/fs").c_str(), &st), 0);
  ASSERT_OK(core_->Cleanup());
}

// Goal: a clean-up that runs while a snapshot is being made does not take its directory away.
TEST_F(CoreTest, CleanupLeavesWhatIsBeingMade) {
  options_.sync_point = [this](std::string_view point) {
    if (point == "create:directories") ASSERT_OK(core_->Cleanup());
  };
  Reopen();
  auto mounts = Prepare("a", "");
  ASSERT_OK(mounts);
  struct stat st;
  EXPECT_EQ(::stat(mounts->front().source.c_str(), &st), 0);
}

// Goal: labels: kept on Prepare, replaced on Commit, empty values never stored, absent and empty
// maps are the same.
TEST_F(CoreTest, LabelRules) {
  ASSERT_OK(Prepare("a", "", {{"containerd.io/snapshot/x", "1"}, {"empty", ""}}));
  EXPECT_EQ(core_->Stat("a")->labels, (Labels{{"containerd.io/snapshot/x", "1"}}));
  ASSERT_OK(core_->Commit("c", "a", {{"containerd.io/snapshot/y", "2"}}, ""));
  EXPECT_EQ(core_->Stat("c")->labels, (Labels{{"containerd.io/snapshot/y", "2"}}));
  ASSERT_OK(Prepare("b", "c"));
  EXPECT_EQ(core_->Stat("b")->labels, Labels{});  // nothing is inherited from the parent
}

// Goal: keys are never parts of paths, whatever they look like.
TEST_F(CoreTest, OddKeys) {
  for (const std::string& key : {std::string("../../etc"), std::string("/"),
                                 std::string("k8s.io/1/a b sha256:x"), std::string("a\0b", 3)}) {
    auto mounts = Prepare(key, "");
    ASSERT_OK(mounts);
    EXPECT_THAT(mounts->front().source, testing::StartsWith(root_ + "/snapshots/"));
    EXPECT_OK(core_->Mounts(key));
  }
}

// Goal: a root that would break overlay's option syntax is refused at start.
TEST_F(CoreTest, RootsThatOverlayCannotNameAreRefused) {
  for (const char* name : {"a:b", "a,b", "a\\b"}) {
    EXPECT_CODE(Snapshotter::Create({.root = dir_ / name}, &layers_), StatusCode::kInvalidArgument);
    EXPECT_NE(::access((dir_ / name).c_str(), F_OK), 0) << "a refused root was made";
  }
  const std::string relative = "relative-" + std::to_string(::getpid());
  EXPECT_FALSE(Snapshotter::Create({.root = relative}, &layers_).ok());
  EXPECT_NE(::access(relative.c_str(), F_OK), 0) << "a refused root was made";
}

}  // namespace
}  // namespace headrace::snapshotter
