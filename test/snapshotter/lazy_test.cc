// Lazy snapshots: what Prepare does with a layer in our format, when it falls back, and how chains
// of both sorts are mounted.
#include <sys/stat.h>

#include <atomic>
#include <latch>
#include <thread>

#include "snapshotter/core/labels.h"
#include "test/snapshotter/core_fixture.h"

namespace headrace::snapshotter {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class LazyTest : public CoreTest {
 protected:
  uint64_t LastMounted() const { return layers_.mounted().rbegin()->first; }
  static std::string LowerOf(const std::vector<Mount>& mounts) {
    return mounts.front().options.back().substr(std::string("lowerdir=").size());
  }
};

// Goal: the layer is mounted, a committed snapshot with the label and the parent is there, and the
// answer is AlreadyExists.
TEST_F(LazyTest, Served) {
  auto answer = Prepare("ns/1/extract-1 chain1", "", LazyLabels("chain1"));
  EXPECT_CODE(answer, StatusCode::kAlreadyExists);
  EXPECT_CODE(core_->Stat("ns/1/extract-1 chain1"), StatusCode::kNotFound);
  // The question that containerd's metadata layer asks now.
  auto found = core_->List({"labels.\"containerd.io/snapshot.ref\"==chain1,parent==\"\""});
  ASSERT_OK(found);
  ASSERT_THAT(*found, SizeIs(1));
  const Info& info = found->front();
  EXPECT_EQ(info.kind, Kind::kCommitted);
  EXPECT_EQ(info.labels, LazyLabels("chain1"));
  EXPECT_EQ(info.created_ns, info.updated_ns);
  EXPECT_THAT(info.name, testing::StartsWith("headrace/lazy/"));
  ASSERT_THAT(layers_.calls(), SizeIs(1));
  MountSpec spec = layers_.calls().front();
  EXPECT_FALSE(spec.parent_id.has_value());
  EXPECT_EQ(spec.layer, (LazyLayer{"registry/image:tag", "sha256:manifest", "sha256:blob-chain1",
                                   "v1,sha256:0,1,2,3,4", false}));
  EXPECT_EQ(DirectoryCount(), 0u);
  EXPECT_EQ(*core_->GetUsage(info.name), snapshotter::Usage{});
}

// Goal: a layer without a table of contents is asked for as well, as often as it takes; labels that do not name the manifest are no reason to ask.
TEST_F(LazyTest, LayersThatAreReadWhole) {
  Labels labels = LazyLabels("chain1");
  labels.erase(kLabelToc);
  layers_.AnswerPending(3);
  EXPECT_CODE(Prepare("ns/1/extract-1 chain1", "", labels), StatusCode::kAlreadyExists);
  ASSERT_THAT(layers_.calls(), SizeIs(4));
  EXPECT_EQ(layers_.calls().back().layer.toc, "");
  EXPECT_EQ(layers_.calls().back().id, layers_.calls().front().id);
  labels = LazyLabels("chain2");
  labels.erase(kLabelToc);
  labels.erase(kLabelManifestDigest);
  EXPECT_OK(Prepare("ns/1/extract-1 chain2", "", labels));
  EXPECT_THAT(layers_.calls(), SizeIs(4));
}

// Goal: a caller that goes away while a layer is being read is not waited for, and leaves nothing behind.
TEST_F(LazyTest, CallerLeavesWhileALayerIsRead) {
  layers_.AnswerPending(1'000'000);
  std::atomic<int> asked{0};
  layers_.OnMount([&] { ++asked; });
  CallContext call;
  call.cancelled = [&] { return asked.load() >= 3; };
  EXPECT_CODE(core_->Prepare(call, "ns/1/extract-1 chain1", "", LazyLabels("chain1")), StatusCode::kCancelled);
  EXPECT_EQ(asked.load(), 3);
  EXPECT_THAT(core_->List({}).value(), IsEmpty());
  EXPECT_OK(core_->Cleanup());
}

// Goal: the label of an image that wants no background fill reaches the daemon, also when it has to be told again.
TEST_F(LazyTest, NoFill) {
  Labels labels = LazyLabels("chain1");
  labels[kLabelFill] = kFillOff;
  EXPECT_CODE(Prepare("ns/1/extract-1 chain1", "", labels), StatusCode::kAlreadyExists);
  EXPECT_TRUE(layers_.calls().back().no_fill);
  layers_.ForgetAll();
  EXPECT_OK(core_->RestoreLazy());
  ASSERT_THAT(layers_.calls(), SizeIs(2));
  EXPECT_TRUE(layers_.calls().back().no_fill);
  EXPECT_CODE(Prepare("ns/1/extract-1 chain2", "", LazyLabels("chain2")), StatusCode::kAlreadyExists);
  EXPECT_FALSE(layers_.calls().back().no_fill);
}

// Goal: containerd may ask again, in this namespace or another: no second mount, no second
// snapshot.
TEST_F(LazyTest, Idempotent) {
  std::string name = Lazy("chain1", "");
  EXPECT_CODE(Prepare("other/2/extract-9 chain1", "", LazyLabels("chain1")),
              StatusCode::kAlreadyExists);
  EXPECT_THAT(layers_.calls(), SizeIs(1));
  Reopen();
  EXPECT_CODE(Prepare("ns/3/extract-9 chain1", "", LazyLabels("chain1")),
              StatusCode::kAlreadyExists);
  EXPECT_THAT(layers_.calls(), SizeIs(1));
  EXPECT_THAT(core_->List({}).value(), SizeIs(1));
  // The same chain id on another parent is another snapshot.
  Commit("base", "");
  EXPECT_NE(Lazy("chain1", "base"), name);
}

// Goal: layers of one chain know each other; a segment on ordinary layers is told so, also further
// up.
TEST_F(LazyTest, ParentsAndForeignSegments) {
  std::string l1 = Lazy("l1", "");
  uint64_t id1 = LastMounted();
  std::string l2 = Lazy("l2", l1);
  MountSpec second = layers_.calls().back();
  EXPECT_EQ(second.parent_id, id1);
  EXPECT_FALSE(second.layer.above_foreign);
  Commit("o3", l2);
  std::string l4 = Lazy("l4", "o3");
  MountSpec fourth = layers_.calls().back();
  EXPECT_FALSE(fourth.parent_id.has_value());
  EXPECT_TRUE(fourth.layer.above_foreign);
  Lazy("l5", l4);
  MountSpec fifth = layers_.calls().back();
  EXPECT_EQ(fifth.parent_id, fourth.id);
  EXPECT_TRUE(fifth.layer.above_foreign);
}

// Goal: runs of lazy layers are one directory each, ordinary ones between them are their own.
TEST_F(LazyTest, MountsOfMixedChains) {
  std::string l1 = Lazy("l1", "");
  std::string l2 = Lazy("l2", l1);
  uint64_t id2 = LastMounted();
  auto on_lazy = Prepare("container1", l2);
  ASSERT_OK(on_lazy);
  EXPECT_EQ(on_lazy->front().type, "overlay");
  EXPECT_EQ(LowerOf(*on_lazy), layers_.PathOf(id2));
  EXPECT_EQ(*core_->Mounts("container1"), *on_lazy);
  EXPECT_THAT(*View("view1", l2), ElementsAre(Mount{"bind", layers_.PathOf(id2), {"ro", "rbind"}}));

  ASSERT_OK(Prepare("o3-key", l2));
  ASSERT_OK(core_->Commit("o3", "o3-key", {}, ""));
  std::string o3 = LowerOf(*Prepare("container2", "o3"));
  EXPECT_THAT(o3, testing::EndsWith("/fs:" + layers_.PathOf(id2)));
  std::string l4 = Lazy("l4", "o3");
  std::string l5 = Lazy("l5", l4);
  uint64_t id5 = LastMounted();
  EXPECT_EQ(LowerOf(*Prepare("container3", l5)), layers_.PathOf(id5) + ":" + o3);
  EXPECT_EQ(View("view5", l5)->front().type, "overlay");
}

// Goal: an image volume over lazy layers alone is one read-only bind mount, now and when asked
// again; with others an overlay.
TEST_F(LazyTest, ImageVolumes) {
  std::string l1 = Lazy("l1", "");
  std::string key =
      "k8s.io/17//run/containerd/io.containerd.grpc.v1.cri/image-volumes/sandbox/manifest";
  auto mounts = Prepare(key, l1);
  ASSERT_OK(mounts);
  EXPECT_THAT(*mounts, ElementsAre(Mount{"bind", layers_.PathOf(LastMounted()), {"rbind", "ro"}}));
  EXPECT_EQ(*core_->Mounts(key), *mounts);
  EXPECT_EQ(core_->Stat(key)->kind, Kind::kActive);
  Commit("o2", l1);
  EXPECT_EQ(Prepare(key + "2", "o2")->front().type, "overlay");
  EXPECT_EQ(Prepare(key + "3", "")->front().type, "bind");
  ASSERT_OK(core_->Remove(key));
}

// Goal: whatever is wrong with the layer or its registry, containerd gets an ordinary snapshot to
// unpack into.
TEST_F(LazyTest, FallsBack) {
  for (StatusCode code :
       {StatusCode::kUnimplemented, StatusCode::kDataLoss, StatusCode::kUnavailable,
        StatusCode::kNotFound, StatusCode::kPermissionDenied, StatusCode::kUnauthenticated,
        StatusCode::kInvalidArgument, StatusCode::kDeadlineExceeded, StatusCode::kInternal,
        StatusCode::kResourceExhausted}) {
    layers_.FailMounts(Status(code, "fake trouble"));
    std::string ref = "chain" + std::to_string(static_cast<int>(code));
    std::string key = "ns/1/extract-1 " + ref;
    auto mounts = Prepare(key, "", LazyLabels(ref));
    ASSERT_OK(mounts);
    EXPECT_EQ(mounts->front().type, "bind");
    EXPECT_EQ(core_->Stat(key)->kind, Kind::kActive);
    ASSERT_OK(core_->Commit(ref, key, LazyLabels(ref), ""));
    EXPECT_THAT(layers_.mounted(), IsEmpty());
  }
  // The registry is well again: layers on top of the unpacked ones are served.
  layers_.FailMounts(OkStatus());
  Lazy("above", "chain12");
  EXPECT_TRUE(layers_.calls().back().layer.above_foreign);
  // The ids of the failed mounts are given back to headrace-fused, in case it finished after all.
  ASSERT_OK(core_->Cleanup());
  EXPECT_THAT(layers_.mounted(), SizeIs(1));
}

// Goal: without the labels that say where the layer is, or which target is meant, Prepare is the
// ordinary one.
TEST_F(LazyTest, MissingLabels) {
  int n = 0;
  for (const char* missing :
       {"containerd.io/snapshot.ref", "containerd.io/snapshot/cri.image-ref",
        "containerd.io/snapshot/cri.layer-digest"}) {
    Labels labels = LazyLabels("chain1");
    labels.erase(missing);
    EXPECT_OK(Prepare("key" + std::to_string(++n), "", labels));
  }
  // With a table of contents in the labels the manifest is not needed.
  Labels labels = LazyLabels("chain1");
  labels.erase("containerd.io/snapshot/cri.manifest-digest");
  EXPECT_CODE(Prepare("key", "", labels), StatusCode::kAlreadyExists);
  // A view of the same labels mounts nothing.
  EXPECT_OK(core_->View({}, "view", "", LazyLabels("chain2")));
  EXPECT_THAT(layers_.calls(), SizeIs(1));
}

// Goal: no headrace-fused is an error that is tried again, and no download of a model.
TEST_F(LazyTest, DaemonDown) {
  layers_.SetDown(true);
  auto answer = Prepare("key", "", LazyLabels("chain1"));
  EXPECT_CODE(answer, StatusCode::kUnavailable);
  EXPECT_THAT(answer.status().message(), HasSubstr("sha256:blob-chain1"));
  EXPECT_THAT(core_->List({}).value(), IsEmpty());
  EXPECT_OK(Prepare("ordinary", ""));  // does not need it
  layers_.SetDown(false);
  // It dies while it mounts.
  layers_.OnMount([this] { layers_.SetDown(true); });
  EXPECT_CODE(Prepare("key", "", LazyLabels("chain1")), StatusCode::kUnavailable);
  layers_.OnMount(nullptr);
  layers_.SetDown(false);
  Lazy("chain1", "");
}

// Goal: a lazy parent that is not served is shown again, from the bottom up; if that fails the
// answer is Unavailable.
TEST_F(LazyTest, BrokenParent) {
  std::string l1 = Lazy("l1", "");
  std::string l2 = Lazy("l2", l1);
  ASSERT_OK(Prepare("container", l2));
  layers_.ForgetAll();
  auto mounts = core_->Mounts("container");
  ASSERT_OK(mounts);
  EXPECT_THAT(layers_.mounted(), SizeIs(2));
  layers_.ForgetAll();
  layers_.FailMounts(UnavailableError("registry gone"));
  EXPECT_CODE(core_->Mounts("container"), StatusCode::kUnavailable);
  EXPECT_CODE(Prepare("container2", l2), StatusCode::kUnavailable);
  EXPECT_CODE(View("view2", l2), StatusCode::kUnavailable);
  auto above = Prepare("key", l2, LazyLabels("l3"));
  EXPECT_CODE(above, StatusCode::kUnavailable);
  EXPECT_THAT(above.status().message(), HasSubstr("sha256:blob-l2"));
  layers_.SetDown(true);
  EXPECT_CODE(core_->Mounts("container"), StatusCode::kUnavailable);
  // What touches metadata only goes on.
  EXPECT_OK(core_->Stat(l2));
  EXPECT_OK(core_->Update(l2, LazyLabels("l2"), {}));
  EXPECT_OK(core_->Remove("container"));
  EXPECT_OK(core_->Remove(l2));
}

// Goal: parents are asked about before anything is mounted.
TEST_F(LazyTest, BadParentsAreRefusedFirst) {
  ASSERT_OK(Prepare("active", ""));
  EXPECT_CODE(Prepare("key", "nobody", LazyLabels("chain1")), StatusCode::kNotFound);
  EXPECT_CODE(Prepare("key", "active", LazyLabels("chain1")), StatusCode::kInvalidArgument);
  EXPECT_THAT(layers_.calls(), IsEmpty());
}

// Goal: a caller that went away gets no snapshot and no fallback; what was mounted goes in Cleanup.
TEST_F(LazyTest, Cancelled) {
  std::atomic<bool> gone{false};
  layers_.OnMount([&] { gone = true; });
  CallContext call;
  call.cancelled = [&] { return gone.load(); };
  EXPECT_CODE(core_->Prepare(call, "key", "", LazyLabels("chain1")), StatusCode::kCancelled);
  EXPECT_THAT(core_->List({}).value(), IsEmpty());
  EXPECT_THAT(layers_.mounted(), SizeIs(1));
  ASSERT_OK(core_->Cleanup());
  EXPECT_THAT(layers_.mounted(), IsEmpty());
}

// Goal: many calls for one target make one mount, and all of them learn that it is there.
TEST_F(LazyTest, ConcurrentSameTarget) {
  constexpr int kThreads = 8;
  std::latch start(kThreads);
  std::vector<std::thread> threads;
  std::atomic<int> served{0};
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      auto answer = Prepare("ns/" + std::to_string(i) + "/extract", "", LazyLabels("chain1"));
      if (answer.status().code() == StatusCode::kAlreadyExists) ++served;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(served, kThreads);
  EXPECT_THAT(layers_.calls(), SizeIs(1));
  EXPECT_THAT(core_->List({}).value(), SizeIs(1));
}

// Goal: different targets do not wait for each other.
TEST_F(LazyTest, ConcurrentOtherTargets) {
  std::latch both(2);
  layers_.OnMount([&] { both.arrive_and_wait(); });  // hangs unless both are in Mount at once
  std::thread other(
      [&] { EXPECT_CODE(Prepare("k2", "", LazyLabels("chain2")), StatusCode::kAlreadyExists); });
  EXPECT_CODE(Prepare("k1", "", LazyLabels("chain1")), StatusCode::kAlreadyExists);
  other.join();
}

// Goal: the other methods work while a mount waits for its registry, and a clean-up leaves it
// alone.
TEST_F(LazyTest, NothingIsLockedWhileMounting) {
  Commit("c", "");
  layers_.OnMount([&] {
    EXPECT_OK(Prepare("a", "c"));
    EXPECT_OK(core_->Commit("c2", "a", {}, ""));
    EXPECT_OK(core_->Update("c2", {{"l", "1"}}, {}));
    EXPECT_OK(core_->List({}));
    EXPECT_OK(core_->Remove("c2"));
    EXPECT_OK(core_->Cleanup());
  });
  Lazy("chain1", "c");
  layers_.OnMount(nullptr);
  ASSERT_OK(core_->Cleanup());
  EXPECT_THAT(layers_.mounted(), SizeIs(1));
}

// Goal: removal unmounts in Cleanup, children before parents; a daemon that is down delays it, not
// more.
TEST_F(LazyTest, RemoveAndCleanup) {
  std::string l1 = Lazy("l1", "");
  std::string l2 = Lazy("l2", l1);
  EXPECT_CODE(core_->Remove(l1), StatusCode::kFailedPrecondition);
  ASSERT_OK(core_->Remove(l2));
  ASSERT_OK(core_->Remove(l1));
  EXPECT_THAT(layers_.mounted(), SizeIs(2));
  layers_.SetDown(true);
  EXPECT_CODE(core_->Cleanup(), StatusCode::kUnavailable);
  layers_.SetDown(false);
  Reopen();
  ASSERT_OK(core_->Cleanup());
  EXPECT_THAT(layers_.mounted(), IsEmpty());
  // The same image again: new ids.
  Lazy("l1", "");
  EXPECT_GT(LastMounted(), 2u);
}

// Goal: after a restart of both, everything that should be served is, with its relations.
TEST_F(LazyTest, Restore) {
  std::string l1 = Lazy("l1", "");
  std::string l2 = Lazy("l2", l1);
  Commit("o3", l2);
  Lazy("l4", "o3");
  auto before = layers_.mounted();
  layers_.ForgetAll();
  Reopen();
  ASSERT_OK(core_->RestoreLazy());
  auto after = layers_.mounted();
  ASSERT_EQ(after.size(), before.size());
  for (const auto& [id, spec] : before) {
    EXPECT_EQ(after.at(id).parent_id, spec.parent_id);
    EXPECT_EQ(after.at(id).layer, spec.layer);
  }
  size_t calls = layers_.calls().size();
  ASSERT_OK(core_->RestoreLazy());  // nothing to do
  EXPECT_EQ(layers_.calls().size(), calls);
  layers_.SetDown(true);
  EXPECT_CODE(core_->RestoreLazy(), StatusCode::kUnavailable);
}

// Goal: if our metadata was lost and headrace-fused still shows the snapshots of then, their ids
// are passed over.
TEST_F(LazyTest, IdsOfALostRootArePassedOver) {
  std::string l1 = Lazy("l1", "");
  Lazy("l2", l1);
  auto before = layers_.mounted();
  core_.reset();
  ASSERT_OK(RemoveAll(root_));
  Reopen();
  Lazy("other", "");
  EXPECT_FALSE(before.contains(LastMounted()));
  EXPECT_THAT(layers_.mounted(), SizeIs(3));
}

// Goal: the root of a container belongs to the owner of the image's root, for lazy images, too.
TEST_F(LazyTest, OwnerOfRootIsInherited) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  std::string l1 = Lazy("l1", "");
  ASSERT_EQ(::chown(layers_.PathOf(LastMounted()).c_str(), 1234, 567), 0);
  auto mounts = Prepare("container", l1);
  ASSERT_OK(mounts);
  for (const std::string& option : mounts->front().options) {
    if (!option.starts_with("upperdir=")) continue;
    struct stat st;
    ASSERT_EQ(::stat(option.substr(9).c_str(), &st), 0);
    EXPECT_EQ(st.st_uid, 1234u);
  }
}

}  // namespace
}  // namespace headrace::snapshotter
