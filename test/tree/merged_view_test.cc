// MergedView: the rules for stacking layers, one by one. (test/vfs/overlay_oracle_test.cc compares random
// stacks with overlayfs.)
#include "fusefs/tree/merged_view.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "fusefs/tree/limits.h"
#include "test/support/matchers.h"
#include "test/support/random_tree.h"

namespace headrace::tree {
namespace {

using test::Device;
using test::Dir;
using test::File;
using test::Hardlink;
using test::TreeLayer;

Chain MakeChain(const std::vector<TreeLayer>& layers) {
  Chain chain;
  for (const TreeLayer& layer : layers) {
    Result<std::shared_ptr<const LayerTree>> tree =
        LayerTree::Build(std::make_shared<const format::LayerIndex>(test::ToIndex(layer)));
    EXPECT_OK(tree);
    chain.push_back(*tree);
  }
  return chain;
}

std::shared_ptr<const MergedView> Merge(const std::vector<TreeLayer>& layers, MergeMode mode = MergeMode::kBottom) {
  Result<std::shared_ptr<const MergedView>> view = MergedView::Build(MakeChain(layers), mode);
  EXPECT_OK(view);
  return *view;
}

void Describe(const MergedView& view, uint32_t dir, const std::string& path, std::string& out) {
  for (const ViewChild& child : view.children(dir)) {
    const std::string name = path + std::string(child.name());
    switch (child.kind) {
      case NodeKind::kInode:
        out += name + "=" + std::to_string(child.layer) + ":" + std::to_string(child.target) + " ";
        break;
      case NodeKind::kWhiteout:
        out += name + "! ";
        break;
      case NodeKind::kDir:
        out += name + "/" + (view.directory(child.target).opaque ? "* " : " ");
        Describe(view, child.target, name + "/", out);
        break;
    }
  }
}

// "name=layer:entry", "dir/", "opaque/*", "whiteout!" in order.
std::string Text(const std::vector<TreeLayer>& layers, MergeMode mode = MergeMode::kBottom) {
  std::string out;
  Describe(*Merge(layers, mode), 0, "", out);
  return out;
}

// Goal: the upper name wins, directories merge.
TEST(MergedViewTest, UpperWinsDirectoriesMerge) {
  EXPECT_EQ(Text({{File("a"), File("d/x"), File("d/y")}, {File("b"), File("d/y"), File("d/z")}}),
            "a=0:0 b=1:0 d/ d/x=0:1 d/y=1:1 d/z=1:2 ");
}

// Goal: between a directory and anything else the upper one replaces the lower one whole.
TEST(MergedViewTest, DirectoryAndFileReplaceEachOther) {
  EXPECT_EQ(Text({{File("d/x")}, {File("d")}}), "d=1:0 ");
  EXPECT_EQ(Text({{File("d")}, {File("d/x")}}), "d/ d/x=1:0 ");
  EXPECT_EQ(Text({{File("d/old")}, {File("d")}, {File("d/new")}}), "d/ d/new=2:0 ");
}

// Goal: a whiteout hides what is below it, at any depth of the chain, and comes to nothing at the bottom.
TEST(MergedViewTest, Whiteouts) {
  EXPECT_EQ(Text({{File("a"), File("d/x"), File("e/y")}, {File(".wh.a"), File("d/.wh.x"), File(".wh.e")}}), "d/ ");
  EXPECT_EQ(Text({{File("a")}, {File(".wh.a")}, {File("a")}}), "a=2:0 ");
  EXPECT_EQ(Text({{File("d/x")}, {File(".wh.d")}, {File("d/y")}}), "d/ d/y=2:0 ");
  EXPECT_EQ(Text({{File("d/x")}, {}, {File("d/.wh.x")}}), "d/ ");
  EXPECT_EQ(Text({{File(".wh.a"), File("a")}}), "a=0:1 ");
  EXPECT_EQ(Text({{File("d/x")}, {File("d/y"), File(".wh.d")}}), "d/ d/y=1:0 ");
}

// Goal: an opaque directory hides what lower layers have in it, not what its own layer has, wherever the marker stands.
TEST(MergedViewTest, OpaqueDirectories) {
  EXPECT_EQ(Text({{File("d/x"), File("d/s/t")}, {File("d/y"), File("d/.wh..wh..opq"), File("d/z")}}),
            "d/ d/y=1:0 d/z=1:2 ");
  EXPECT_EQ(Text({{File("d/x")}, {File("d/.wh..wh..opq")}, {File("d/y")}}), "d/ d/y=2:0 ");
  EXPECT_EQ(Text({{File("x")}, {File(".wh..wh..opq"), File("y")}}), "y=1:1 ");
}

const format::Entry* MetaOf(const MergedView& view, std::string_view name) {
  const ViewChild* child = view.Find(0, name);
  const ViewDirectory& dir = view.directory(child == nullptr ? 0 : child->target);
  return dir.entry == kNoEntry ? nullptr : &view.chain()[dir.layer]->index().entries[dir.entry];
}

// Goal: metadata of a directory is that of the topmost layer that lists it; a whiteout below takes it away,
// emptying does not.
TEST(MergedViewTest, DirectoryMetadata) {
  EXPECT_EQ(MetaOf(*Merge({{Dir("d", 0700)}, {Dir("d", 0711)}, {File("d/x")}}), "d")->mode, 0711u);
  EXPECT_EQ(MetaOf(*Merge({{Dir("d", 0700)}, {File("d/.wh..wh..opq"), File("d/x")}}), "d")->mode, 0700u);
  EXPECT_EQ(MetaOf(*Merge({{Dir("d", 0700)}, {File(".wh.d")}, {File("d/x")}}), "d"), nullptr);
  EXPECT_EQ(MetaOf(*Merge({{Dir("d", 0700)}, {File(".wh.d"), File("d/x")}}), "d"), nullptr);
  EXPECT_EQ(MetaOf(*Merge({{Dir("d", 0700)}, {File("d")}, {File("d/x")}}), "d"), nullptr);
  EXPECT_EQ(MetaOf(*Merge({{Dir("", 0700)}, {File("d")}}), "")->mode, 0700u);
}

// Goal: above directories of others, whiteouts that may still hide something there are kept, and directories
// that hide theirs are opaque.
TEST(MergedViewTest, AboveForeignKeepsWhatOnlyOverlayfsCanDo) {
  const MergeMode kAbove = MergeMode::kAboveForeign;
  EXPECT_EQ(Text({{File(".wh.a"), File("b")}, {File(".wh.b"), File("c")}}, kAbove), "a! b! c=1:1 ");
  EXPECT_EQ(Text({{File(".wh.a")}, {File("a")}}, kAbove), "a=1:0 ");
  EXPECT_EQ(Text({{File("d/x")}, {File("d/.wh..wh..opq"), File("d/y")}}, kAbove), "d/* d/y=1:1 ");
  EXPECT_EQ(Text({{File("d/.wh..wh..opq")}, {File("d/y")}}, kAbove), "d/* d/y=1:0 ");
  EXPECT_EQ(Text({{File(".wh.d")}, {File("d/y")}}, kAbove), "d/* d/y=1:0 ");
  EXPECT_EQ(Text({{File("d")}, {File("d/y")}}, kAbove), "d/* d/y=1:0 ");
  EXPECT_EQ(Text({{File("d/y"), File(".wh.d")}}, kAbove), "d/* d/y=0:0 ");
  EXPECT_EQ(Text({{File("d/y")}, {Dir("d")}}, kAbove), "d/ d/y=0:0 ");
}

// Goal: inside an opaque directory a whiteout has nothing left to hide.
TEST(MergedViewTest, NoWhiteoutsUnderOpaqueDirectories) {
  const TreeLayer layer{File("d/.wh..wh..opq"), File("d/.wh.x"), File("d/e/.wh.y")};
  EXPECT_EQ(Text({layer}, MergeMode::kAboveForeign), "d/* d/e/ ");
}

// Goal: a hard link to a file of a lower layer is that file, as the layers below show it.
TEST(MergedViewTest, HardLinksIntoLowerLayers) {
  EXPECT_EQ(Text({{File("d/a")}, {Hardlink("h", "d/a")}}), "d/ d/a=0:0 h=0:0 ");
  EXPECT_EQ(Text({{File("a")}, {File("x"), File("a")}, {Hardlink("h", "a")}}), "a=1:1 h=1:1 x=1:0 ");
  EXPECT_EQ(Text({{File("a")}, {Hardlink("b", "a")}, {Hardlink("c", "b"), File(".wh.a"), File(".wh.b")}}), "c=0:0 ");
}

// Goal: a link whose target no lower layer shows has no name, and is counted.
TEST(MergedViewTest, DanglingHardLinksAreDropped) {
  const std::vector<std::vector<TreeLayer>> cases{
      {{Hardlink("h", "a")}},
      {{File("a")}, {File(".wh.a")}, {Hardlink("h", "a")}},
      {{File("d/a")}, {File("d/.wh..wh..opq")}, {Hardlink("h", "d/a")}},
      {{File("a/b")}, {Hardlink("h", "a")}},
      {{File("a")}, {Hardlink("h", "a/b")}},
  };
  for (const std::vector<TreeLayer>& layers : cases) {
    auto view = Merge(layers);
    EXPECT_EQ(view->Find(0, "h"), nullptr);
    EXPECT_EQ(view->dropped_links(), 1u);
    ASSERT_NE(view->dropped_link(), nullptr);
    EXPECT_EQ(view->dropped_link()->name, "h");
  }
}

// Goal: directory numbers depend on the layers alone: depth first, by name; parents and counts of
// subdirectories are right.
TEST(MergedViewTest, DirectoriesAreNumberedDepthFirst) {
  auto view = Merge({{Dir("b"), Dir("b/y"), File("b/f")}, {Dir("c"), Dir("a/z")}, {Dir("b/x")}});
  ASSERT_EQ(view->directory_count(), 7u);
  EXPECT_EQ(view->Find(0, "a")->target, 1u);
  EXPECT_EQ(view->Find(1, "z")->target, 2u);
  EXPECT_EQ(view->Find(0, "b")->target, 3u);
  EXPECT_EQ(view->Find(3, "x")->target, 4u);
  EXPECT_EQ(view->Find(3, "y")->target, 5u);
  EXPECT_EQ(view->Find(0, "c")->target, 6u);
  EXPECT_EQ(view->directory(5).parent, 3u);
  EXPECT_EQ(view->directory(0).parent, 0u);
  EXPECT_EQ(view->directory(3).subdirs, 2u);
}

// Goal: the root alone says the same as the whole merge.
TEST(MergedViewTest, RootAlone) {
  const std::vector<TreeLayer> layers{{Dir("", 0711), Dir("a"), Dir("b")}, {File(".wh.a"), Dir("c"), File("d")}};
  for (const MergeMode mode : {MergeMode::kBottom, MergeMode::kAboveForeign}) {
    auto view = Merge(layers, mode);
    Result<ViewDirectory> root = MergedView::Root(MakeChain(layers), mode);
    ASSERT_OK(root);
    EXPECT_EQ(root->subdirs, 2u);
    EXPECT_EQ(root->subdirs, view->directory(0).subdirs);
    EXPECT_EQ(root->entry, view->directory(0).entry);
    EXPECT_EQ(root->layer, view->directory(0).layer);
  }
}

// Goal: a chain of the greatest length merges; the deepest path costs no stack.
TEST(MergedViewTest, LongChainAndDeepPath) {
  std::vector<TreeLayer> layers;
  for (size_t i = 0; i < limits::kChainMax; ++i) layers.push_back({File("d/" + std::to_string(i))});
  std::string path = "d";
  while (path.size() + 2 <= limits::kPathBytesMax) path += "/a";
  layers.back().push_back(File(path));
  auto view = Merge(layers);
  EXPECT_EQ(view->directory_count(), 2048u);
  EXPECT_EQ(view->children(view->Find(0, "d")->target).size(), limits::kChainMax + 1);
}

// Goal: links into lower layers cannot make the merge endless. Method: each of many links searches a long chain.
TEST(MergedViewTest, SearchesForLowerLinksAreBounded) {
  std::vector<TreeLayer> layers(limits::kChainMax, TreeLayer{Dir("d")});
  for (int i = 0; i < 100'000; ++i) layers.back().push_back(Hardlink("h" + std::to_string(i), "d/d"));
  EXPECT_CODE(MergedView::Build(MakeChain(layers), MergeMode::kBottom), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace headrace::tree
