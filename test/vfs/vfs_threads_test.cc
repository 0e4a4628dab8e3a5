// Vfs from many threads at once: lookups, listings and forgets while mounts come and go. Meant for tsan and
// asan; the counts must come out even at the end.
#include <atomic>
#include <cerrno>
#include <random>
#include <thread>

#include "test/support/temp_dir.h"
#include "test/vfs/vfs_fixture.h"

namespace headrace::test {
namespace {

using vfs::kRootNode;
using vfs::NodeId;

class VfsThreadsTest : public VfsFixture {};

// Plays the kernel: walks down from the root, remembers what it looked up, forgets all of it at the end of the walk.
class Walker {
 public:
  Walker(vfs::Vfs& vfs, uint64_t seed) : vfs_(vfs), random_(seed) {}
  void Walk() {
    NodeId at = kRootNode;
    for (int depth = 0; depth < 8; ++depth) {
      const bool plus = random_() % 2 == 0;
      std::vector<std::pair<std::string, NodeId>> found;
      const Status status = vfs_.ReadDir(at, 2, plus, [&](const std::string& name, const struct stat& st, uint64_t) {
        found.emplace_back(name, st.st_ino);
        return found.size() < 20;
      });
      if (!status.ok()) break;
      if (plus && found.size() == 20) found.pop_back();  // not taken
      if (plus) {
        for (const auto& [name, node] : found) held_.push_back(node);
      }
      if (found.empty()) break;
      const std::string name = found[random_() % found.size()].first;
      Result<struct stat> st = vfs_.Lookup(at, name);
      if (!st.ok()) break;  // its mount went
      held_.push_back(st->st_ino);
      if (at != kRootNode || S_ISDIR(st->st_mode)) Use(*st);
      if (!S_ISDIR(st->st_mode)) break;
      at = st->st_ino;
    }
    for (const NodeId node : held_) vfs_.Forget(node, 1);
    held_.clear();
  }

 private:
  // A node that is held answers, whatever happened to its mount.
  void Use(const struct stat& st) {
    EXPECT_OK(vfs_.GetAttr(st.st_ino));
    EXPECT_OK(vfs_.ListXattr(st.st_ino));
    if (S_ISLNK(st.st_mode)) EXPECT_OK(vfs_.ReadLink(st.st_ino));
  }
  vfs::Vfs& vfs_;
  std::mt19937_64 random_;
  std::vector<NodeId> held_;
};

// Goal: no race, no stale node while it is held, nothing left over. Method: two walkers against two threads
// that add and remove chains which share layers.
TEST_F(VfsThreadsTest, WalksWhileMountsComeAndGo) {
  const uint64_t seed = TestSeed();
  const auto layers = RandomLayers(seed, {.layers = 3, .entries_per_layer = 40});
  std::vector<vfs::MountSpec> specs[2];
  for (uint32_t changer = 0; changer < 2; ++changer) {
    std::string parent;
    for (uint32_t i = 0; i < layers.size(); ++i) {
      const std::string id = std::to_string(10 * changer + i + 1);
      vfs::MountSpec spec = Spec(i + 1, id, parent, layers[i]);  // the same layers for both
      spec.view_slot = 100 + 10 * changer + i;
      specs[changer].push_back(spec);
      parent = id;
    }
  }
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (uint64_t w = 0; w < 2; ++w) {
    threads.emplace_back([&, w] {
      Walker walker(*vfs, seed + w);
      while (!stop) walker.Walk();
    });
  }
  std::vector<std::thread> changers;
  for (const auto& chain : specs) {
    changers.emplace_back([&chain, this] {
      for (int round = 0; round < 150; ++round) {
        for (const auto& spec : chain) EXPECT_OK(vfs->AddMount(spec));
        EXPECT_OK(vfs->GetMount(chain.back().id));
        for (auto spec = chain.rbegin(); spec != chain.rend(); ++spec) EXPECT_OK(vfs->RemoveMount(spec->id));
      }
    });
  }
  for (std::thread& thread : changers) thread.join();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(vfs->ListMounts().empty());
  EXPECT_EQ(metrics.mounts, 0);
  EXPECT_EQ(metrics.layers, 0);
}

// Goal: many first lookups of one mount make one merge, and all see it.
TEST_F(VfsThreadsTest, FirstLookupsAtOnce) {
  const auto layers = RandomLayers(TestSeed(), {.layers = 3});
  const std::string top = MountChain(layers);
  const NodeId root = Node(top);
  std::vector<std::thread> threads;
  std::atomic<size_t> names{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      EXPECT_OK(vfs->ReadDir(root, 0, false, [&](const std::string&, const struct stat&, uint64_t) {
        ++names;
        return true;
      }));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(names, 4 * (Names(root).size() + 2));
}

}  // namespace
}  // namespace headrace::test
