// The merged view of random layers beside what overlayfs shows for the same layers, and the form that the view
// takes above directories of others. Needs root: mounts happen in a mount namespace of the test's own.
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "test/support/temp_dir.h"
#include "test/vfs/vfs_fixture.h"

namespace headrace::test {
namespace {

constexpr int kRounds = 12;

class OverlayOracleTest : public VfsFixture {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "NOT TESTED: comparing with overlayfs needs root";
    const Status mounted = MountPrivateTmpfs(dir_.path());
    if (!mounted.ok()) GTEST_SKIP() << "NOT TESTED: no private mounts here: " << mounted.ToString();
    seed_ = TestSeed();
  }
  void TearDown() override { ::umount2(dir_.path().c_str(), MNT_DETACH); }

  // What overlayfs shows for directories of layers.
  TreeDump Overlay(const std::vector<std::string>& lower, const std::string& name) {
    const std::string target = dir_ / name;
    EXPECT_OK(MountOverlay(lower, dir_ / (name + ".empty"), target));
    Result<TreeDump> dump = DumpDirectory(target);
    EXPECT_OK(dump);
    ::umount2(target.c_str(), MNT_DETACH);
    return dump.ok() ? *dump : TreeDump();
  }

  // The nodes that the Vfs shows, whiteouts and opaque marks included, as a layer that can be written to disk.
  TreeLayer Materialize(const std::string& id);

  TempDir dir_;
  uint64_t seed_ = 0;
};

TreeLayer OverlayOracleTest::Materialize(const std::string& id) {
  TreeLayer layer;
  const TreeDump dump = Dump(id);
  for (const auto& [path, node] : dump) {
    TreeEntry entry = Dir(path, node.mode & 07777);
    entry.content = node.content;
    entry.meta.uid = node.uid;
    entry.meta.gid = node.gid;
    entry.meta.mtime_s = node.mtime_s;
    entry.meta.mtime_ns = static_cast<uint32_t>(node.mtime_ns);
    for (const auto& xattr : node.xattrs) entry.meta.xattrs.push_back(xattr);
    const size_t base = path.rfind('/') + 1;  // npos + 1 == 0
    if (S_ISCHR(node.mode) && node.rdev == 0) {
      entry = File(path.substr(0, base) + ".wh." + path.substr(base));
    } else if (!S_ISDIR(node.mode) && node.group != path) {
      entry = Hardlink(path, node.group);
    } else if (S_ISLNK(node.mode)) {
      entry.meta.type = format::EntryType::kSymlink;
      entry.meta.link_target = node.content;
    } else if (S_ISREG(node.mode)) {
      entry.meta.type = format::EntryType::kRegular;
    } else if (!S_ISDIR(node.mode)) {
      entry.meta.type = S_ISFIFO(node.mode)  ? format::EntryType::kFifo
                        : S_ISCHR(node.mode) ? format::EntryType::kCharDevice
                                             : format::EntryType::kBlockDevice;
      entry.meta.dev_major = static_cast<uint32_t>(major(node.rdev));
      entry.meta.dev_minor = static_cast<uint32_t>(minor(node.rdev));
    }
    if (node.xattrs.contains("trusted.overlay.opaque")) {
      layer.push_back(entry);
      entry = File((path.empty() ? "" : path + "/") + ".wh..wh..opq");
    }
    layer.push_back(std::move(entry));
  }
  return layer;
}

// Goal: users see exactly what overlayfs would show. Method: both are walked and compared in everything.
TEST_F(OverlayOracleTest, MergedViewShowsWhatOverlayfsShows) {
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t seed = seed_ + static_cast<uint64_t>(round);
    SCOPED_TRACE("HEADRACE_TEST_SEED=" + std::to_string(seed));
    const auto layers = RandomLayers(seed, {.layers = 2 + seed % 5, .entries_per_layer = 40 + seed % 60});
    const std::string name = "o" + std::to_string(round);
    Result<std::vector<std::string>> lower = WriteOverlayDirs(layers, dir_ / (name + ".layers"));
    ASSERT_OK(lower);
    vfs = vfs::Vfs::Create(streamer, metrics);
    const std::string top = MountChain(layers);
    ASSERT_EQ(CompareDumps(Dump(top), Overlay(*lower, name)), "");
  }
}

// Goal: a segment above ordinary directories leaves to overlayfs what only overlayfs can do. Method: the lower
// layers are ordinary directories, the upper ones are written out as the view shows them, and the stack is
// compared with the stack of all.
TEST_F(OverlayOracleTest, SegmentAboveOrdinaryDirectoriesStacks) {
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t seed = seed_ + static_cast<uint64_t>(round);
    SCOPED_TRACE("HEADRACE_TEST_SEED=" + std::to_string(seed));
    const auto layers =
        RandomLayers(seed, {.layers = 3 + seed % 4, .entries_per_layer = 50, .implied_directories = false});
    const std::string name = "s" + std::to_string(round);
    Result<std::vector<std::string>> all = WriteOverlayDirs(layers, dir_ / (name + ".layers"));
    ASSERT_OK(all);
    const size_t split = 1 + seed % (layers.size() - 1);
    const std::vector<TreeLayer> upper(layers.begin() + static_cast<long>(split), layers.end());
    vfs = vfs::Vfs::Create(streamer, metrics);
    const std::string top = MountChain(upper, 1, true);
    Result<std::vector<std::string>> segment = WriteOverlayDirs({Materialize(top)}, dir_ / (name + ".segment"));
    ASSERT_OK(segment);
    std::vector<std::string> mixed(all->begin(), all->begin() + static_cast<long>(split));
    mixed.push_back(segment->front());
    // Links that an upper name hides no longer count in a copy; users of the FUSE mount see the layer's own number.
    ASSERT_EQ(CompareDumps(Overlay(mixed, name + ".mixed"), Overlay(*all, name), false), "");
  }
}

}  // namespace
}  // namespace headrace::test
