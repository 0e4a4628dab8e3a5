// Vfs: attributes, directories, extended attributes, opens, and the life of mounts and slots.
#include "fusefs/vfs/vfs.h"

#include <gmock/gmock.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <string>

#include "test/vfs/vfs_fixture.h"

namespace headrace::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using vfs::kRootNode;
using vfs::MountSpec;
using vfs::NodeId;

class VfsTest : public VfsFixture {};

constexpr NodeId Slot(NodeId node) { return node >> 32; }

// Goal: every field of stat says what the table of contents says.
TEST_F(VfsTest, AttributesOfAFile) {
  TreeEntry file = File("f", std::string(1025, 'x'), 06751);
  file.meta.uid = 4'000'000'000;
  file.meta.gid = 7;
  file.meta.mtime_s = -5;
  file.meta.mtime_ns = 123;
  MountChain({{file, Hardlink("g", "f")}});
  const struct stat st = *Stat("1/g");
  EXPECT_EQ(st.st_ino, (NodeId{2} << 32) | 0);
  EXPECT_EQ(st.st_mode, S_IFREG | 06751u);
  EXPECT_EQ(st.st_nlink, 2u);
  EXPECT_EQ(st.st_uid, 4'000'000'000u);
  EXPECT_EQ(st.st_gid, 7u);
  EXPECT_EQ(st.st_size, 1025);
  EXPECT_EQ(st.st_blocks, 3);
  EXPECT_EQ(st.st_blksize, 4096);
  for (const struct timespec& time : {st.st_mtim, st.st_atim, st.st_ctim}) {
    EXPECT_EQ(time.tv_sec, -5);
    EXPECT_EQ(time.tv_nsec, 123);
  }
}

// Goal: the other types; a symbolic link has the mode that Linux gives it; sizes that no disk has do not overflow.
TEST_F(VfsTest, AttributesOfOtherTypes) {
  TreeLayer layer{Symlink("s", "target"), Device("c", format::EntryType::kCharDevice, 300, 70000),
                  Device("p", format::EntryType::kFifo, 0, 0), File("huge")};
  MountSpec spec = Spec(1, "1", "", layer);
  format::LayerIndex index = *spec.layer->index;
  index.entries[3].size = (uint64_t{1} << 60) + 1;
  auto source = std::make_shared<stream::LayerSource>(*spec.layer);
  source->index = std::make_shared<const format::LayerIndex>(index);
  spec.layer = source;
  ASSERT_OK(vfs->AddMount(spec));
  EXPECT_EQ(Stat("1/s")->st_mode, S_IFLNK | 0777u);
  EXPECT_EQ(Stat("1/s")->st_size, 6);
  EXPECT_EQ(Stat("1/c")->st_mode, S_IFCHR | 0644u);
  EXPECT_EQ(Stat("1/c")->st_rdev, makedev(300, 70000));
  EXPECT_EQ(Stat("1/p")->st_mode, S_IFIFO | 0644u);
  EXPECT_EQ(Stat("1/huge")->st_blocks, (int64_t{1} << 51) + 1);
}

// Goal: directories count their subdirectories; one that no tar lists has the documented metadata.
TEST_F(VfsTest, AttributesOfDirectories) {
  MountChain({{Dir("d", 01777), Dir("d/a"), Dir("d/b"), File("d/f"), File("i/x")}});
  EXPECT_EQ(Stat("")->st_nlink, 3u);
  EXPECT_EQ(Stat("")->st_ino, kRootNode);
  EXPECT_EQ(Stat("1/d")->st_mode, S_IFDIR | 01777u);
  EXPECT_EQ(Stat("1/d")->st_nlink, 4u);
  EXPECT_EQ(Stat("1/i")->st_mode, S_IFDIR | 0755u);
  EXPECT_EQ(Stat("1/i")->st_mtim.tv_sec, 0);
  EXPECT_EQ(Slot(Stat("1/i")->st_ino), 3u);
  EXPECT_EQ(Stat("1")->st_ino, NodeId{3} << 32);
}

// Goal: "." and ".." lead where they should, from a mount to the root of everything.
TEST_F(VfsTest, DotsAreFound) {
  MountChain({{Dir("d/e")}});
  const NodeId d = Node("1/d");
  EXPECT_EQ(vfs->Lookup(d, ".")->st_ino, d);
  EXPECT_EQ(vfs->Lookup(d, "..")->st_ino, Node("1"));
  EXPECT_EQ(vfs->Lookup(Node("1"), "..")->st_ino, kRootNode);
  EXPECT_EQ(vfs->Lookup(kRootNode, "..")->st_ino, kRootNode);
}

// Goal: a node is found by its number alone, as the kernel asks for that of a file handle; it counts as a reference.
TEST_F(VfsTest, LookupOfANodeByItself) {
  MountChain({{Dir("d"), File("f"), Symlink("s", "x")}});
  for (const char* path : {"1", "1/d", "1/f", "1/s"}) {
    const auto st = vfs->Lookup(Node(path), ".");
    ASSERT_TRUE(st.ok()) << path << ": " << st.status().ToString();
    EXPECT_EQ(st->st_ino, Node(path));
    EXPECT_EQ(st->st_mode, Stat(path)->st_mode);
  }
  EXPECT_EQ(Errno(vfs->Lookup(Node("1/f"), "..")), ENOTDIR);
  EXPECT_EQ(Errno(vfs->Lookup(NodeId{9} << 32, ".")), ESTALE);
}

// Goal: wrong uses are answered with the errno that other file systems give.
TEST_F(VfsTest, Errnos) {
  MountChain({{Dir("d"), File("f"), Symlink("s", "x")}});
  EXPECT_EQ(Errno(Stat("2")), ENOENT);
  EXPECT_EQ(Errno(Stat("1/none")), ENOENT);
  EXPECT_EQ(Errno(Stat("1/f/x")), ENOTDIR);
  EXPECT_EQ(Errno(vfs->Lookup(Node("1"), std::string(256, 'x'))), ENAMETOOLONG);
  EXPECT_EQ(Errno(vfs->Open(Node("1/d"))), EISDIR);
  EXPECT_EQ(Errno(vfs->Open(kRootNode)), EISDIR);
  EXPECT_EQ(Errno(vfs->Open(Node("1/s"))), EINVAL);
  EXPECT_EQ(Errno(vfs->ReadLink(Node("1/f"))), EINVAL);
  EXPECT_EQ(Errno(vfs->ReadLink(Node("1/d"))), EINVAL);
  EXPECT_EQ(StatusToErrno(vfs->ReadDir(Node("1/f"), 0, false, [](auto&, auto&, auto) { return true; })), ENOTDIR);
  EXPECT_EQ(Errno(vfs->GetXattr(Node("1/f"), "user.none")), ENODATA);
  EXPECT_EQ(Errno(vfs->GetXattr(kRootNode, "user.none")), ENODATA);
}

// Goal: node ids that no lookup can have given are stale, never a crash.
TEST_F(VfsTest, UnknownNodesAreStale) {
  MountChain({{Dir("d"), File("f"), Hardlink("h", "f")}});
  for (const NodeId node : {NodeId{0}, NodeId{2}, NodeId{9} << 32, (NodeId{2} << 32) | 0, (NodeId{2} << 32) | 2,
                            (NodeId{2} << 32) | 3, (NodeId{3} << 32) | 2, (NodeId{3} << 32) | UINT32_MAX, ~NodeId{0}}) {
    EXPECT_EQ(Errno(vfs->GetAttr(node)), ESTALE) << node;
    EXPECT_EQ(Errno(vfs->ReadLink(node)), ESTALE) << node;
    EXPECT_EQ(Errno(vfs->Open(node)), ESTALE) << node;
    vfs->Forget(node, 3);
  }
  EXPECT_EQ(Errno(vfs->Lookup(NodeId{9} << 32, "x")), ESTALE);
  EXPECT_EQ(Errno(vfs->GetXattr(NodeId{9} << 32, "x")), ESTALE);
  EXPECT_EQ(Errno(vfs->ListXattr(NodeId{9} << 32)), ESTALE);
}

// Goal: extended attributes come as they are; what overlayfs would obey does not come from an image.
TEST_F(VfsTest, ExtendedAttributes) {
  TreeEntry file = File("f");
  file.meta.xattrs = {{"user.a", std::string("\0\xff", 2)}, {"trusted.overlay.opaque", "y"}, {"user.b", ""}};
  TreeEntry dir = Dir("d");
  dir.meta.xattrs = {{"trusted.overlay.redirect", "/etc"}, {"security.x", "1"}, {"trusted.overlays", "2"}};
  MountChain({{file, dir}});
  EXPECT_EQ(*vfs->ListXattr(Node("1/f")), std::string("user.a\0user.b\0", 14));
  EXPECT_EQ(*vfs->GetXattr(Node("1/f"), "user.a"), std::string("\0\xff", 2));
  EXPECT_EQ(*vfs->GetXattr(Node("1/f"), "user.b"), "");
  EXPECT_EQ(Errno(vfs->GetXattr(Node("1/f"), "trusted.overlay.opaque")), ENODATA);
  EXPECT_EQ(*vfs->ListXattr(Node("1/d")), std::string("security.x\0trusted.overlays\0", 28));
  EXPECT_EQ(Errno(vfs->GetXattr(Node("1/d"), "trusted.overlay.redirect")), ENODATA);
  EXPECT_EQ(*vfs->ListXattr(Node("1")), "");
}

// Goal: an extended attribute that is not there is told as on ext4, depending on its prefix.
TEST_F(VfsTest, ExtendedAttributesOfNoKind) {
  MountChain({{File("f"), Dir("d")}});
  for (const NodeId node : {Node("1/f"), Node("1/d"), Node("1"), kRootNode}) {
    for (const char* name : {"user.none", "trusted.none", "security.none", "system.posix_acl_access"}) {
      EXPECT_EQ(Errno(vfs->GetXattr(node, name)), ENODATA) << name;
    }
    for (const char* name : {"odd.none", "none", "system.none", "user", "os2.x"}) {
      EXPECT_EQ(Errno(vfs->GetXattr(node, name)), EOPNOTSUPP) << name;
    }
    for (const char* name : {"user.", "trusted.", "security."}) {
      EXPECT_EQ(Errno(vfs->GetXattr(node, name)), EINVAL) << name;
    }
  }
}

// Goal: above directories of others, whiteouts and opaque directories look as overlayfs wants them.
TEST_F(VfsTest, FormAboveForeignDirectories) {
  MountChain({{File(".wh.gone"), File("d/.wh..wh..opq")}}, 1, true);
  const struct stat st = *Stat("1/gone");
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFCHR));
  EXPECT_EQ(st.st_rdev, 0u);
  EXPECT_EQ(Slot(st.st_ino), 3u);
  EXPECT_EQ(vfs->GetAttr(st.st_ino)->st_mode, static_cast<mode_t>(S_IFCHR));
  EXPECT_EQ(*vfs->ListXattr(st.st_ino), "");
  EXPECT_EQ(Errno(vfs->Open(st.st_ino)), EINVAL);
  EXPECT_EQ(Errno(vfs->Lookup(st.st_ino, "x")), ENOTDIR);
  EXPECT_EQ(*vfs->GetXattr(Node("1/d"), "trusted.overlay.opaque"), "y");
  EXPECT_EQ(*vfs->ListXattr(Node("1/d")), std::string("trusted.overlay.opaque\0", 23));
}

// Goal: a directory is read page by page, each name once, whatever the page; plain and plus say the same.
TEST_F(VfsTest, ReadDirInPages) {
  TreeLayer layer;
  for (int i = 0; i < 1000; ++i) layer.push_back(File("d/" + std::to_string(i)));
  MountChain({layer});
  const NodeId d = Node("1/d");
  const std::vector<std::string> all = Names(d);
  EXPECT_EQ(all.size(), 1000u);
  for (const size_t page : {1u, 7u, 1001u, 1002u, 5000u}) {
    std::vector<std::string> names;
    uint64_t cookie = 0;
    for (bool more = true; more;) {
      size_t taken = 0;
      ASSERT_OK(vfs->ReadDir(d, cookie, page % 2 == 0, [&](const std::string& name, const struct stat&, uint64_t next) {
        if (taken == page) return false;
        ++taken;
        cookie = next;
        names.push_back(name);
        return true;
      }));
      more = taken > 0;
    }
    ASSERT_EQ(names.size(), 1002u);
    EXPECT_EQ(names[0], ".");
    EXPECT_EQ(names[1], "..");
    EXPECT_EQ(std::vector<std::string>(names.begin() + 2, names.end()), all);
  }
  EXPECT_OK(vfs->ReadDir(d, UINT64_MAX, false, [](auto&, auto&, auto) -> bool { HEADRACE_CHECK(false); }));
}

// Goal: the listing of the root neither repeats nor skips mounts when others come and go between two pages.
TEST_F(VfsTest, RootListingWhileMountsChange) {
  for (uint32_t i = 10; i < 15; ++i) ASSERT_OK(vfs->AddMount(Spec(i, std::to_string(i), "", {File("f")})));
  EXPECT_THAT(Names(kRootNode), ElementsAre("10", "11", "12", "13", "14"));
  std::vector<std::string> names;
  uint64_t cookie = 0;
  for (int page = 0; page < 10; ++page) {
    int taken = 0;
    ASSERT_OK(vfs->ReadDir(kRootNode, cookie, false, [&](const std::string& name, const auto& st, uint64_t next) {
      if (++taken > 4) return false;
      EXPECT_TRUE(S_ISDIR(st.st_mode));
      names.push_back(name);
      cookie = next;
      return true;
    }));
    if (page == 0) {
      ASSERT_OK(vfs->RemoveMount("10"));
      ASSERT_OK(vfs->RemoveMount("13"));
      ASSERT_OK(vfs->AddMount(Spec(20, "20", "", {})));
    }
  }
  EXPECT_THAT(names, ElementsAre(".", "..", "10", "11", "12", "14", "20"));
}

// Goal: mounts report what they are; the metrics follow.
TEST_F(VfsTest, MountsAreListed) {
  MountChain({{File("a", "123"), Hardlink("b", "a"), Dir("d")}, {File("c", "45")}});
  const std::vector<vfs::MountInfo> mounts = vfs->ListMounts();
  ASSERT_EQ(mounts.size(), 2u);
  EXPECT_EQ(mounts[0].id, "1");
  EXPECT_EQ(mounts[0].size, 3u);
  EXPECT_EQ(mounts[0].files, 1u);
  EXPECT_EQ(mounts[0].blob_digest, Digest::Of("layer 1").ToString());
  EXPECT_EQ(vfs->GetMount("2")->size, 2u);
  EXPECT_EQ(vfs->GetMount("2")->image_ref, "registry.test/model:2");
  EXPECT_CODE(vfs->GetMount("3"), StatusCode::kNotFound);
  EXPECT_EQ(metrics.mounts, 2);
  EXPECT_EQ(metrics.layers, 2);
}

// Goal: AddMount is idempotent and refuses contradictions, naming the layer.
TEST_F(VfsTest, AddMountChecks) {
  const TreeLayer layer{File("f")};
  ASSERT_OK(vfs->AddMount(Spec(1, "1", "", layer)));
  ASSERT_OK(vfs->AddMount(Spec(1, "1", "", layer)));
  EXPECT_EQ(metrics.mounts, 1);
  EXPECT_CODE(vfs->AddMount(Spec(2, "1", "", layer)), StatusCode::kAlreadyExists);
  EXPECT_CODE(vfs->AddMount(Spec(2, "2", "none", layer)), StatusCode::kNotFound);
  for (const char* id : {"", ".", "..", "a/b"}) {
    EXPECT_CODE(vfs->AddMount(Spec(2, id, "", layer)), StatusCode::kInvalidArgument);
  }
  MountSpec spec = Spec(2, "2", "1", layer);
  spec.above_foreign = true;
  EXPECT_CODE(vfs->AddMount(spec), StatusCode::kInvalidArgument);
  spec = Spec(2, "2", "", layer);
  spec.layer_slot = 2;  // of another blob
  EXPECT_CODE(vfs->AddMount(spec), StatusCode::kInvalidArgument);
  spec = Spec(2, "2", "", layer);
  spec.view_slot = 3;  // of mount 1
  EXPECT_CODE(vfs->AddMount(spec), StatusCode::kInvalidArgument);
  spec.view_slot = 0;
  EXPECT_CODE(vfs->AddMount(spec), StatusCode::kInvalidArgument);
  spec.layer = nullptr;
  EXPECT_CODE(vfs->AddMount(spec), StatusCode::kInvalidArgument);
  const Status bad = vfs->AddMount(Spec(2, "2", "", {File("f"), File("f/x")})).status();
  EXPECT_EQ(bad.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(bad.message(), HasSubstr(Digest::Of("layer 2").ToString()));
  EXPECT_EQ(metrics.mounts, 1);
  EXPECT_EQ(metrics.layers, 1);
}

// Goal: a hard link into a layer below works when that is lazy, too, and is refused loudly when nobody has its target.
TEST_F(VfsTest, HardLinkIntoALowerLayer) {
  MountChain({{File("a", "abc")}, {Hardlink("h", "a")}});
  EXPECT_EQ(Node("2/h"), Node("2/a"));
  const Status status = vfs->AddMount(Spec(3, "3", "", {Hardlink("h", "a")})).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("\"h\""));
  EXPECT_THAT(Names(kRootNode), ElementsAre("1", "2"));
}

// Goal: a chain too long is refused before it costs anything.
TEST_F(VfsTest, ChainLengthIsBounded) {
  MountChain(std::vector<TreeLayer>(512, TreeLayer{File("f")}));
  EXPECT_CODE(vfs->AddMount(Spec(513, "513", "512", {})), StatusCode::kInvalidArgument);
}

// Goal: a parent stays while it has children; then mounts go one by one.
TEST_F(VfsTest, RemoveMountInOrder) {
  MountChain({{File("a")}, {File("b")}});
  EXPECT_CODE(vfs->RemoveMount("1"), StatusCode::kFailedPrecondition);
  EXPECT_CODE(vfs->RemoveMount("3"), StatusCode::kNotFound);
  EXPECT_OK(vfs->RemoveMount("2"));
  EXPECT_OK(vfs->RemoveMount("1"));
  EXPECT_CODE(vfs->RemoveMount("1"), StatusCode::kNotFound);
  EXPECT_THAT(Names(kRootNode), IsEmpty());
  EXPECT_EQ(metrics.mounts, 0);
  EXPECT_EQ(metrics.layers, 0);
}

// Goal: nodes of a removed mount answer, new lookups below them too, until the kernel has forgotten all; then
// everything is gone.
TEST_F(VfsTest, RemovedMountLivesUntilForgotten) {
  MountChain({{File("d/f", "abc")}, {File("d/g")}});
  const NodeId mount = Node("2");
  const NodeId d = vfs->Lookup(mount, "d")->st_ino;
  const NodeId f = vfs->Lookup(d, "f")->st_ino;
  ASSERT_OK(vfs->RemoveMount("2"));
  ASSERT_OK(vfs->RemoveMount("1"));
  EXPECT_EQ(Errno(Stat("2")), ENOENT);
  EXPECT_EQ(vfs->GetAttr(f)->st_size, 3);
  EXPECT_OK(vfs->Open(f));
  vfs->Forget(f, 1);
  EXPECT_OK(vfs->Lookup(d, "f"));
  vfs->Forget(mount, 1);
  EXPECT_OK(vfs->GetAttr(d));
  vfs->Forget(d, 1);
  EXPECT_EQ(Errno(vfs->GetAttr(d)), ESTALE);
  EXPECT_OK(vfs->GetAttr(f));
  EXPECT_EQ(metrics.layers, 1);
  vfs->Forget(f, 1);
  EXPECT_EQ(Errno(vfs->GetAttr(f)), ESTALE);
  EXPECT_EQ(metrics.layers, 0);
}

// Goal: every entry of a plus listing counts as looked up, an entry that was not taken does not.
TEST_F(VfsTest, ReadDirPlusCounts) {
  MountChain({{File("a"), File("b"), File("c")}});
  const NodeId mount = Node("1");
  int taken = 0;
  NodeId a = 0;
  ASSERT_OK(vfs->ReadDir(mount, 2, true, [&](const std::string&, const struct stat& st, uint64_t) {
    if (taken == 2) return false;
    if (taken++ == 0) a = st.st_ino;
    return true;
  }));
  ASSERT_OK(vfs->RemoveMount("1"));
  vfs->Forget(mount, 1);
  EXPECT_OK(vfs->GetAttr(a));
  vfs->Forget(a, 1);
  EXPECT_OK(vfs->GetAttr(a));
  vfs->Forget(a + 1, 1);
  EXPECT_EQ(Errno(vfs->GetAttr(a)), ESTALE);
}

// Goal: after a takeover the kernel forgets what another process counted; the mount must not suffer.
TEST_F(VfsTest, ForgetOfWhatWasNeverCounted) {
  MountChain({{File("f")}});
  const NodeId f = Node("1/f");
  vfs->Forget(f, 1'000'000);
  vfs->Forget(kRootNode, UINT64_MAX);
  EXPECT_EQ(Node("1/f"), f);
}

// Goal: a mount that is removed and comes again, before the kernel forgot it, is the same again.
TEST_F(VfsTest, MountComesAgain) {
  MountChain({{File("f")}});
  const NodeId f = Node("1/f");
  const MountSpec spec = Spec(1, "1", "", {File("f")});
  ASSERT_OK(vfs->RemoveMount("1"));
  ASSERT_OK(vfs->AddMount(spec));
  EXPECT_EQ(Node("1/f"), f);
  EXPECT_EQ(metrics.layers, 1);
  ASSERT_OK(vfs->RemoveMount("1"));
  vfs->Forget(f, 2);
  vfs->Forget(NodeId{3} << 32, 2);
  EXPECT_EQ(metrics.layers, 0);
}

// Goal: a view slot that the kernel still refers to does not come back with other layers below.
TEST_F(VfsTest, MountDoesNotComeAgainOverOtherLayers) {
  MountChain({{File("a")}, {File("f")}});
  const NodeId f = Node("2/f");
  ASSERT_OK(vfs->RemoveMount("2"));
  ASSERT_OK(vfs->RemoveMount("1"));
  ASSERT_OK(vfs->AddMount(Spec(9, "1", "", {File("b")})));
  EXPECT_CODE(vfs->AddMount(Spec(2, "2", "1", {File("f")})), StatusCode::kInvalidArgument);
  EXPECT_OK(vfs->GetAttr(f));
  EXPECT_THAT(Names(kRootNode), ElementsAre("1"));
}

// Goal: one layer under two images is one set of nodes; its bytes come from an image that is still there.
TEST_F(VfsTest, LayerSharedByTwoImages) {
  const TreeLayer layer{File("f", "abc")};
  ASSERT_OK(vfs->AddMount(Spec(1, "1", "", layer)));
  MountSpec second = Spec(1, "2", "", layer);
  second.view_slot = 9;
  ASSERT_OK(vfs->AddMount(second));
  EXPECT_EQ(Node("1/f"), Node("2/f"));
  EXPECT_EQ(metrics.layers, 1);
  ASSERT_OK(vfs->RemoveMount("2"));
  ASSERT_OK(vfs->Open(Node("1/f")));
  EXPECT_EQ(streamer.last_image_ref, "registry.test/model:1");
  ASSERT_OK(vfs->AddMount(second));
  ASSERT_OK(vfs->RemoveMount("1"));
  ASSERT_OK(vfs->Open(Node("2/f")));
  EXPECT_EQ(streamer.last_image_ref, "registry.test/model:2");
}

// Goal: node ids do not depend on what happened before. Method: the same mounts in another order, in another Vfs.
TEST_F(VfsTest, NodeIdsSurviveARestart) {
  const auto layers = RandomLayers(4711, {.layers = 3});
  const std::string top = MountChain(layers);
  const TreeDump before = Dump(top);
  std::vector<NodeId> nodes;
  for (const auto& [path, node] : before) nodes.push_back(Node(path.empty() ? top : top + "/" + path));
  vfs = vfs::Vfs::Create(streamer, metrics);
  ASSERT_OK(vfs->AddMount(Spec(77, "77", "", {File("other")})));
  MountChain(layers);
  size_t i = 0;
  for (const auto& [path, node] : before) {
    EXPECT_OK(vfs->GetAttr(nodes[i]));  // asked by number before any lookup
    EXPECT_EQ(Node(path.empty() ? top : top + "/" + path), nodes[i++]);
  }
  EXPECT_EQ(CompareDumps(Dump(top), before), "");
}

}  // namespace
}  // namespace headrace::test
