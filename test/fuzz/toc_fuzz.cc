// Tables of contents in their dialects, the learned tables of our own disk, and the tree that is made of them. Input: dialect, JSON.
#include <memory>
#include <string>

#include "fusefs/format/tar_indexer.h"
#include "fusefs/format/toc.h"
#include "fusefs/tree/layer_tree.h"
#include "test/fuzz/check_index.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

void CheckChild(const tree::LayerTree& tree, const format::LayerIndex& index, const tree::Child& child) {
  if (child.kind == tree::ChildKind::kDir) HEADRACE_CHECK(child.target < tree.directory_count());
  if (child.kind == tree::ChildKind::kInode) HEADRACE_CHECK(child.target < index.entries.size() && tree.IsInode(child.target));
}

void CheckTree(const tree::LayerTree& tree, const format::LayerIndex& index) {
  for (tree::DirId dir = 0; dir < tree.directory_count(); ++dir) {
    std::string_view last;
    bool first = true;
    for (const tree::Child& child : tree.children(dir)) {
      const std::string_view name(child.data, child.size);
      HEADRACE_CHECK(!name.empty() && name.find('/') == std::string_view::npos && (first || last < name));
      HEADRACE_CHECK(tree.Find(dir, name) == &child);
      last = name;
      first = false;
      CheckChild(tree, index, child);
    }
  }
}

}  // namespace

void FuzzToc(Bytes data) {
  constexpr uint64_t kDataEnd = 1 << 20;
  Input input(data);
  const size_t choice = input.Choice(4);
  constexpr format::TocDialect kDialects[] = {format::TocDialect::kZstdChunked, format::TocDialect::kEstargz, format::TocDialect::kLearned};
  auto index = choice == 3 ? format::ReadLearnedTable(input.Text()) : format::ParseTocJson(input.Text(), kDataEnd, kDataEnd + 100, kDialects[choice]);
  if (!index.ok()) return;
  CheckIndex(*index, choice == 3 ? index->blob_size : kDataEnd);
  auto shared = std::make_shared<const format::LayerIndex>(std::move(*index));
  auto tree = tree::LayerTree::Build(shared);
  if (tree.ok()) CheckTree(**tree, *shared);
}

}  // namespace headrace::fuzz
