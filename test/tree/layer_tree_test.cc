// LayerTree: what the extraction of one tar makes, and what it refuses.
#include "fusefs/tree/layer_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "fusefs/tree/limits.h"
#include "test/support/matchers.h"
#include "test/support/random_tree.h"

namespace headrace::tree {
namespace {

using ::testing::HasSubstr;
using test::Device;
using test::Dir;
using test::File;
using test::Hardlink;
using test::Symlink;
using test::TreeLayer;

Result<std::shared_ptr<const LayerTree>> Build(const TreeLayer& layer) {
  return LayerTree::Build(std::make_shared<const format::LayerIndex>(test::ToIndex(layer)));
}

std::shared_ptr<const LayerTree> Must(const TreeLayer& layer) {
  Result<std::shared_ptr<const LayerTree>> tree = Build(layer);
  EXPECT_OK(tree);
  return tree.ok() ? *tree : nullptr;
}

// The child at that path, or null.
const Child* At(const LayerTree& tree, std::string_view path) {
  DirId dir = kRootDir;
  while (true) {
    const size_t slash = path.find('/');
    const Child* child = tree.Find(dir, path.substr(0, slash));
    if (child == nullptr || slash == std::string_view::npos) return child;
    if (child->kind != ChildKind::kDir) return nullptr;
    dir = child->target;
    path = path.substr(slash + 1);
  }
}

std::string Listing(const LayerTree& tree, DirId dir) {
  std::string names;
  for (const Child& child : tree.children(dir)) names += std::string(child.name()) + " ";
  return names;
}

void ExpectRefused(const TreeLayer& layer, const std::string& name, const std::string& why) {
  const Status status = Build(layer).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.ToString();
  EXPECT_THAT(status.message(), HasSubstr(name));
  EXPECT_THAT(status.message(), HasSubstr(why));
}

// Goal: an empty layer is an empty directory that nobody described.
TEST(LayerTreeTest, EmptyLayer) {
  auto tree = Must({});
  EXPECT_EQ(tree->directory_count(), 1u);
  EXPECT_EQ(tree->directory(kRootDir).entry, kNoEntry);
  EXPECT_TRUE(tree->children(kRootDir).empty());
  EXPECT_EQ(tree->Find(kRootDir, "a"), nullptr);
}

// Goal: names are sorted by bytes and found, whatever the order in the tar.
TEST(LayerTreeTest, SortsAndFindsNames) {
  auto tree = Must({File("b"), File("\xff"), Dir("a"), File("B"), Symlink("a/l", "x"), File("a b"), File("ab")});
  EXPECT_EQ(Listing(*tree, kRootDir), "B a a b ab b \xff ");
  EXPECT_EQ(At(*tree, "\xff")->target, 1u);
  EXPECT_EQ(At(*tree, "a/l")->target, 4u);
  EXPECT_EQ(At(*tree, "A"), nullptr);
  EXPECT_EQ(At(*tree, ""), nullptr);
}

// Goal: directories that the tar does not list are made; listed later, they get their metadata.
TEST(LayerTreeTest, MakesImpliedDirectories) {
  auto tree = Must({File("a/b/c"), Dir("a")});
  EXPECT_EQ(tree->directory(At(*tree, "a")->target).entry, 1u);
  EXPECT_EQ(tree->directory(At(*tree, "a/b")->target).entry, kNoEntry);
  EXPECT_EQ(At(*tree, "a/b/c")->target, 0u);
}

// Goal: the last of equal names wins; a directory listed again keeps what is in it.
TEST(LayerTreeTest, LastOfEqualNamesWins) {
  auto tree = Must({File("f", "1"), Dir("d", 0700), File("d/x"), File("f", "22"), Dir("d", 0711), Dir(""),
                    Dir("", 0700)});
  EXPECT_EQ(At(*tree, "f")->target, 3u);
  EXPECT_FALSE(tree->IsInode(0));
  EXPECT_EQ(tree->directory(At(*tree, "d")->target).entry, 4u);
  EXPECT_EQ(At(*tree, "d/x")->target, 2u);
  EXPECT_EQ(tree->directory(kRootDir).entry, 6u);
  EXPECT_EQ(tree->file_count(), 2u);
  EXPECT_EQ(tree->file_bytes(), 2u);
}

// Goal: as in an extraction, a file in the place of a directory removes what was in it, and a directory
// replaces a file.
TEST(LayerTreeTest, FileReplacesDirectoryAndBack) {
  auto tree = Must({File("d/x/y"), File("d", "now a file")});
  EXPECT_EQ(At(*tree, "d")->kind, ChildKind::kInode);
  EXPECT_EQ(tree->directory_count(), 1u);
  EXPECT_FALSE(tree->IsInode(0));
  tree = Must({File("d/x/y"), File("d"), Dir("d"), File("d/z")});
  EXPECT_EQ(Listing(*tree, At(*tree, "d")->target), "z ");
}

// Goal: nothing can be below a file.
TEST(LayerTreeTest, RefusesChildrenOfNonDirectories) {
  ExpectRefused({File("f"), File("f/x")}, "\"f/x\"", "\"f\" is in the way");
  ExpectRefused({Symlink("l", "/etc"), Dir("l/x/y")}, "\"l/x/y\"", "\"l\" is in the way");
  ExpectRefused({File("a/f"), Hardlink("a/h", "a/f"), File("a/h/x")}, "\"a/h/x\"", "\"a/h\" is in the way");
  ExpectRefused({File("")}, "\"\"", "root");
}

// Goal: hard links lead to the inode through chains and forward; the count is right.
TEST(LayerTreeTest, ResolvesHardLinks) {
  auto tree = Must({Hardlink("early", "d/chain"), File("f", "abc"), Hardlink("d/chain", "d/link"),
                    Hardlink("d/link", "f")});
  for (const char* name : {"early", "f", "d/chain", "d/link"}) {
    EXPECT_EQ(At(*tree, name)->kind, ChildKind::kInode) << name;
    EXPECT_EQ(At(*tree, name)->target, 1u) << name;
  }
  EXPECT_EQ(tree->nlink(1), 4u);
  EXPECT_FALSE(tree->IsInode(0));
  EXPECT_EQ(tree->file_count(), 1u);
  EXPECT_EQ(tree->file_bytes(), 3u);
}

// Goal: a link keeps the file that it was made to, when the name is written again; symbolic links and devices
// can be linked.
TEST(LayerTreeTest, HardLinkKeepsReplacedFile) {
  auto tree = Must({File("f", "old"), Hardlink("h", "f"), File("f", "new!"), Symlink("s", "t"), Hardlink("s2", "s")});
  EXPECT_EQ(At(*tree, "h")->target, 0u);
  EXPECT_EQ(At(*tree, "f")->target, 2u);
  EXPECT_EQ(tree->nlink(0), 1u);
  EXPECT_EQ(tree->nlink(2), 1u);
  EXPECT_EQ(tree->nlink(3), 2u);
  EXPECT_EQ(tree->file_bytes(), 7u);
}

// Goal: a link to a name that this layer has not is left to the layers below, links to it as well.
TEST(LayerTreeTest, LinkToALowerLayer) {
  auto tree = Must({Hardlink("h2", "h"), Hardlink("h", "usr/lib/below"), Hardlink("h3", "h2")});
  for (const char* name : {"h", "h2", "h3"}) {
    ASSERT_EQ(At(*tree, name)->kind, ChildKind::kLowerLink) << name;
    EXPECT_EQ(At(*tree, name)->target, 1u) << name;
  }
  EXPECT_EQ(tree->lower_links(), 3u);
}

// Goal: links that lead nowhere by their own fault are refused, by name.
TEST(LayerTreeTest, RefusesBadHardLinks) {
  ExpectRefused({Hardlink("a", "b"), Hardlink("b", "c"), Hardlink("c", "a")}, "entry 0 \"a\"", "cycle of hard links");
  ExpectRefused({Hardlink("self", "self")}, "\"self\"", "cycle");
  ExpectRefused({Dir("d"), Hardlink("h", "d")}, "\"h\"", "hard link to the directory \"d\"");
  ExpectRefused({Hardlink("h", "d"), Dir("d")}, "\"h\"", "hard link to the directory \"d\"");
  ExpectRefused({Hardlink("h", "")}, "\"h\"", "directory");
  ExpectRefused({Hardlink("g", "h"), Hardlink("h", "d"), Dir("d")}, "\"h\"", "directory");
  ExpectRefused({File(".wh.x"), Hardlink("h", ".wh.x")}, "\"h\"", "whiteout");
}

// Goal: whiteouts are kept for the layers below; markers and bookkeeping of aufs are no names.
TEST(LayerTreeTest, KeepsWhiteouts) {
  auto tree = Must({File("d/.wh.gone"), File("d/.wh..wh..opq"), File(".wh..wh.plnk"), File("wh.x"),
                    File("d/.wh.gone")});
  EXPECT_EQ(Listing(*tree, kRootDir), "d wh.x ");
  const Child* gone = At(*tree, "d/gone");
  ASSERT_NE(gone, nullptr);
  EXPECT_EQ(gone->kind, ChildKind::kWhiteout);
  EXPECT_TRUE(tree->directory(At(*tree, "d")->target).opaque);
  EXPECT_FALSE(tree->directory(At(*tree, "d")->target).anew);
  EXPECT_EQ(At(*tree, "d/.wh.gone"), nullptr);
}

// Goal: a whiteout hides what is below, never what its own layer brings, wherever it stands in the tar.
TEST(LayerTreeTest, WhiteoutBesideItsName) {
  for (const bool first : {true, false}) {
    TreeLayer layer{File("f"), File("d/x")};
    layer.insert(first ? layer.begin() : layer.end(), {File(".wh.f"), File(".wh.d")});
    auto tree = Must(layer);
    EXPECT_EQ(At(*tree, "f")->kind, ChildKind::kInode);
    ASSERT_EQ(At(*tree, "d")->kind, ChildKind::kDir);
    EXPECT_TRUE(tree->directory(At(*tree, "d")->target).opaque);
    EXPECT_TRUE(tree->directory(At(*tree, "d")->target).anew);
    EXPECT_NE(At(*tree, "d/x"), nullptr);
  }
}

// Goal: a character device 0/0 is a whiteout, as overlayfs takes it; other devices are themselves.
TEST(LayerTreeTest, DeviceZeroIsAWhiteout) {
  using enum format::EntryType;
  auto tree = Must({Device("null", kCharDevice, 1, 3), Device("w", kCharDevice, 0, 0), Hardlink("w2", "w"),
                    Device("b", kBlockDevice, 0, 0)});
  EXPECT_EQ(At(*tree, "null")->kind, ChildKind::kInode);
  EXPECT_EQ(At(*tree, "b")->kind, ChildKind::kInode);
  EXPECT_EQ(At(*tree, "w")->kind, ChildKind::kWhiteout);
  EXPECT_EQ(At(*tree, "w2")->kind, ChildKind::kWhiteout);
  EXPECT_FALSE(tree->IsInode(1));
}

// Goal: names that are no file names are refused, also where the reader of the table of contents should have done so.
TEST(LayerTreeTest, RefusesBadNames) {
  for (const char* name : {"a//b", "a/../b", "./a", "a/", "..", "a/.", "/a"}) {
    EXPECT_CODE(Build({File(name)}), StatusCode::kInvalidArgument);
  }
  ExpectRefused({File(std::string(256, 'n'))}, "nnn", "not a file name");
  ExpectRefused({File(std::string("a\0b", 3))}, "\"a\\x00b\"", "not a file name");
  ExpectRefused({File(std::string(5000, 'a'))}, "aaa...", "4096");
  ExpectRefused({File("d/.wh.")}, "\"d/.wh.\"", "whiteout of no file name");
  ExpectRefused({File(".wh...")}, "\".wh...\"", "whiteout of no file name");
  ExpectRefused({File(".wh.d/x")}, "\".wh.d/x\"", "reserved prefix");
}

// Goal: the deepest path that Linux can name is fine, and costs no stack.
TEST(LayerTreeTest, DeepPath) {
  std::string path = "a";
  while (path.size() + 2 <= limits::kPathBytesMax) path += "/a";
  auto tree = Must({File(path)});
  EXPECT_EQ(tree->directory_count(), 2048u);
  EXPECT_NE(At(*tree, path), nullptr);
}

// Goal: a small table of contents cannot make an endless tree. Method: deep paths that share nothing.
TEST(LayerTreeTest, ImpliedDirectoriesAreBounded) {
  TreeLayer layer;
  for (size_t i = 0; i < limits::kLayerNodesMax / 2000; ++i) {
    std::string path = std::to_string(i);
    while (path.size() + 2 <= limits::kPathBytesMax) path += "/a";
    layer.push_back(File(path));
  }
  const Status status = Build(layer).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
}

// Goal: long chains of links, each to one that comes later, are resolved in linear time and without recursion.
TEST(LayerTreeTest, LongChainOfForwardLinks) {
  constexpr int kLinks = 100'000;
  TreeLayer layer;
  for (int i = 0; i < kLinks; ++i) layer.push_back(Hardlink(std::to_string(i), std::to_string(i + 1)));
  layer.push_back(File(std::to_string(kLinks)));
  auto tree = Must(layer);
  EXPECT_EQ(tree->nlink(kLinks), static_cast<uint32_t>(kLinks + 1));
}

// Goal: replacing one big directory again and again stays linear.
TEST(LayerTreeTest, ReplacedDirectoriesCostOnce) {
  TreeLayer layer;
  for (int i = 0; i < 50'000; ++i) {
    layer.push_back(File("d/" + std::to_string(i)));
    layer.push_back(File("d"));
    layer.push_back(Dir("d"));
  }
  auto tree = Must(layer);
  EXPECT_EQ(tree->directory_count(), 2u);
  EXPECT_EQ(tree->file_count(), 0u);
}

// Goal: error messages can be logged whatever the name is.
TEST(LayerTreeTest, PrintableNames) {
  EXPECT_EQ(Printable("a b"), "\"a b\"");
  EXPECT_EQ(Printable("\n\xff\"\\"), "\"\\x0a\\xff\\x22\\x5c\"");
  EXPECT_EQ(Printable(std::string(1000, 'x')).size(), 305u);
}

}  // namespace
}  // namespace headrace::tree
