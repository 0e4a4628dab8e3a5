// Plays the extraction of a tar on a tree of names, entry by entry, then packs what is left of it into a LayerTree.
#include <algorithm>
#include <string>
#include <utility>

#include "fusefs/tree/layer_tree.h"
#include "fusefs/tree/limits.h"
#include "fusefs/tree/name_table.h"

namespace headrace::tree {
namespace {

using format::Entry;
using format::EntryType;
using Kind = BuildNode::Kind;

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kWhiteoutMetaPrefix = ".wh..wh.";
constexpr std::string_view kOpaqueName = ".wh..wh..opq";

bool IsWhiteoutName(std::string_view name) { return name.starts_with(kWhiteoutPrefix); }

std::string_view BaseName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

// overlayfs takes a character device 0/0 for a whiteout, whoever made it.
bool IsWhiteoutDevice(const Entry& entry) {
  return entry.type == EntryType::kCharDevice && entry.dev_major == 0 && entry.dev_minor == 0;
}

}  // namespace

class LayerTreeBuilder {
 public:
  explicit LayerTreeBuilder(std::shared_ptr<const format::LayerIndex> index)
      : index_(std::move(index)), table_(index_->entries.size() + 1) {
    nodes_.reserve(index_->entries.size() + 1);
    BuildNode root;
    root.kind = Kind::kDir;
    root.data = "";
    nodes_.push_back(root);
  }

  Result<std::shared_ptr<const LayerTree>> Run() {
    if (index_->entries.size() > limits::kLayerNodesMax) {
      return ResourceExhaustedError("layer has " + std::to_string(index_->entries.size()) + " entries, at most " +
                                    std::to_string(limits::kLayerNodesMax) + " are allowed");
    }
    for (uint32_t i = 0; i < index_->entries.size(); ++i) HR_RETURN_IF_ERROR(Add(i));
    HR_RETURN_IF_ERROR(ResolvePending());
    return Pack();
  }

 private:
  struct PendingLink {
    uint32_t node;
    uint32_t behind;  // the pending link that it was linked to, or kNoNode: look the target up when all names are known
  };

  const Entry& entry(uint32_t i) const { return index_->entries[i]; }
  Status Bad(uint32_t i, const std::string& why) const {
    return InvalidArgumentError("entry " + std::to_string(i) + " " + Printable(entry(i).name) + ": " + why);
  }

  Status Add(uint32_t i);
  Status AddRoot(uint32_t i);
  Status AddWhiteout(uint32_t i, uint32_t parent, std::string_view base);
  Status AddDirectory(uint32_t i, uint32_t parent, std::string_view base);
  Status AddOther(uint32_t i, uint32_t parent, std::string_view base);
  Result<uint32_t> ParentOf(uint32_t i, std::string_view path);
  Result<uint32_t> NewNode(uint32_t parent, std::string_view name, Kind kind, uint32_t entry);
  uint32_t FindPath(std::string_view path) const;
  void Kill(uint32_t node);
  Status ResolvePending();
  Status ResolveOne(uint32_t start);
  std::shared_ptr<const LayerTree> Pack();
  Child PackChild(const BuildNode& node, const std::vector<DirId>& numbers) const;
  static void MergeWhiteouts(LayerTree& tree);

  std::shared_ptr<const format::LayerIndex> index_;
  std::vector<BuildNode> nodes_;  // 0 = root
  NameTable table_;
  std::vector<PendingLink> pending_;
  std::string_view last_parent_path_;  // neighbours in a tar mostly share their directory
  uint32_t last_parent_ = kNoNode;
};

Status LayerTreeBuilder::Add(uint32_t i) {
  const Entry& e = entry(i);
  std::string_view path = e.name;
  if (path.empty()) return AddRoot(i);
  if (path.size() > limits::kPathBytesMax) return Bad(i, "the path is longer than 4096 bytes");
  if (path.front() == '/' || path.find("//") != std::string_view::npos) {
    return Bad(i, "the path has an empty component");
  }
  const size_t slash = path.rfind('/');
  std::string_view base = BaseName(path);
  HR_ASSIGN_OR_RETURN(const uint32_t parent, ParentOf(i, slash == std::string_view::npos ? "" : path.substr(0, slash)));
  if (base.empty() || base == "." || base == ".." || base.size() > limits::kNameBytesMax ||
      base.find('\0') != std::string_view::npos) {
    return Bad(i, "the name is not a file name");
  }
  if (IsWhiteoutName(base)) return AddWhiteout(i, parent, base);
  if (e.type == EntryType::kDirectory) return AddDirectory(i, parent, base);
  return AddOther(i, parent, base);
}

Status LayerTreeBuilder::AddRoot(uint32_t i) {
  if (entry(i).type != EntryType::kDirectory) return Bad(i, "the root of a layer must be a directory");
  nodes_[0].entry = i;
  return OkStatus();
}

Status LayerTreeBuilder::AddWhiteout(uint32_t i, uint32_t parent, std::string_view base) {
  if (base == kOpaqueName) {
    nodes_[parent].opaque = true;
    return OkStatus();
  }
  if (base.starts_with(kWhiteoutMetaPrefix)) return OkStatus();  // bookkeeping of aufs
  std::string_view hidden = base.substr(kWhiteoutPrefix.size());
  if (hidden.empty() || hidden == "." || hidden == "..") return Bad(i, "a whiteout of no file name");
  if (table_.Find(nodes_, parent, base) != kNoNode) return OkStatus();
  return NewNode(parent, base, Kind::kWhiteout, i).status();
}

Status LayerTreeBuilder::AddDirectory(uint32_t i, uint32_t parent, std::string_view base) {
  const uint32_t old = table_.Find(nodes_, parent, base);
  if (old != kNoNode && nodes_[old].kind == Kind::kDir) {
    nodes_[old].entry = i;  // listed again: its children stay
    return OkStatus();
  }
  if (old != kNoNode) Kill(old);
  return NewNode(parent, base, Kind::kDir, i).status();
}

Status LayerTreeBuilder::AddOther(uint32_t i, uint32_t parent, std::string_view base) {
  const Entry& e = entry(i);
  Kind kind = Kind::kInode;
  uint32_t target = i;
  uint32_t behind = kNoNode;
  if (e.type == EntryType::kHardlink) {
    if (IsWhiteoutName(BaseName(e.link_target))) return Bad(i, "hard link to the whiteout " + Printable(e.link_target));
    const uint32_t to = e.link_target.empty() ? 0 : FindPath(e.link_target);
    if (to != kNoNode && nodes_[to].kind == Kind::kDir) {
      return Bad(i, "hard link to the directory " + Printable(e.link_target));
    }
    const bool known = to != kNoNode && nodes_[to].kind == Kind::kInode;
    kind = known ? Kind::kInode : Kind::kPendingLink;
    target = known ? nodes_[to].target : kNoEntry;
    if (!known) behind = to;
  }
  if (const uint32_t old = table_.Find(nodes_, parent, base); old != kNoNode) Kill(old);
  HR_ASSIGN_OR_RETURN(const uint32_t node, NewNode(parent, base, kind, i));
  nodes_[node].target = target;
  if (kind == Kind::kPendingLink) pending_.push_back({node, behind});
  return OkStatus();
}

// The directory of that path; what the tar has not listed (yet) is made. A file in the way is an error, as it
// is for tar.
Result<uint32_t> LayerTreeBuilder::ParentOf(uint32_t i, std::string_view path) {
  if (last_parent_ != kNoNode && !nodes_[last_parent_].dead && path == last_parent_path_) return last_parent_;
  uint32_t at = 0;
  for (std::string_view rest = path; !rest.empty();) {
    const size_t slash = rest.find('/');
    std::string_view name = rest.substr(0, slash);
    rest = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
    if (name.empty() || name == "." || name == ".." || name.size() > limits::kNameBytesMax) {
      return Bad(i, "the path has a component that is not a file name");
    }
    if (IsWhiteoutName(name)) return Bad(i, "a directory of its path has the reserved prefix .wh.");
    uint32_t next = table_.Find(nodes_, at, name);
    if (next == kNoNode) {
      HR_ASSIGN_OR_RETURN(next, NewNode(at, name, Kind::kDir, kNoEntry));
    } else if (nodes_[next].kind != Kind::kDir) {
      return Bad(i, Printable(entry(nodes_[next].entry).name) + " is in the way: not a directory");
    }
    at = next;
  }
  last_parent_path_ = path;
  last_parent_ = at;
  return at;
}

Result<uint32_t> LayerTreeBuilder::NewNode(uint32_t parent, std::string_view name, Kind kind, uint32_t entry_index) {
  if (nodes_.size() >= limits::kLayerNodesMax) {
    return ResourceExhaustedError("layer has more than " + std::to_string(limits::kLayerNodesMax) +
                                  " names (directories that its tar does not list included)");
  }
  const uint32_t id = static_cast<uint32_t>(nodes_.size());
  BuildNode node;
  node.data = name.data();
  node.size = static_cast<uint8_t>(name.size());
  node.parent = parent;
  node.kind = kind;
  node.entry = entry_index;
  node.next_sibling = nodes_[parent].first_child;
  nodes_.push_back(node);
  nodes_[parent].first_child = id;
  table_.Insert(nodes_, id);
  return id;
}

uint32_t LayerTreeBuilder::FindPath(std::string_view path) const {
  uint32_t at = 0;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    at = table_.Find(nodes_, at, path.substr(0, slash));
    if (at == kNoNode || slash == std::string_view::npos) break;
    path = path.substr(slash + 1);
  }
  return at;
}

void LayerTreeBuilder::Kill(uint32_t node) {
  std::vector<uint32_t> todo{node};
  while (!todo.empty()) {
    BuildNode& at = nodes_[todo.back()];
    todo.pop_back();
    if (at.dead) continue;
    at.dead = true;
    for (uint32_t c = at.first_child; c != kNoNode; c = nodes_[c].next_sibling) todo.push_back(c);
  }
}

Status LayerTreeBuilder::ResolvePending() {
  // What a pending link waits for is kept in `target` of its node until it is resolved: a node, or kNoNode.
  for (const PendingLink& link : pending_) nodes_[link.node].target = link.behind;
  for (const PendingLink& link : pending_) {
    if (nodes_[link.node].kind == Kind::kPendingLink) HR_RETURN_IF_ERROR(ResolveOne(link.node));
  }
  return OkStatus();
}

// Follows a chain of links to an inode of this layer, or to a name that only a lower layer can have.
Status LayerTreeBuilder::ResolveOne(uint32_t start) {
  std::vector<uint32_t> chain;
  uint32_t at = start;
  Kind kind = Kind::kPendingLink;
  uint32_t target = kNoEntry;
  while (kind == Kind::kPendingLink) {
    BuildNode& node = nodes_[at];
    if (node.kind != Kind::kPendingLink) {
      if (node.kind == Kind::kDir) {
        const uint32_t link = nodes_[chain.back()].entry;
        return Bad(link, "hard link to the directory " + Printable(entry(link).link_target));
      }
      kind = node.kind;
      target = node.target;
      break;
    }
    if (node.visiting) return Bad(node.entry, "a cycle of hard links");
    node.visiting = true;
    chain.push_back(at);
    uint32_t next = node.target != kNoNode ? node.target : FindPath(entry(node.entry).link_target);
    if (next == kNoNode) {
      kind = Kind::kLowerLink;
      target = node.entry;
    }
    at = next;
  }
  for (uint32_t link : chain) {
    nodes_[link].kind = kind;
    nodes_[link].target = target;
    nodes_[link].visiting = false;
  }
  return OkStatus();
}

Child LayerTreeBuilder::PackChild(const BuildNode& node, const std::vector<DirId>& numbers) const {
  Child child;
  child.data = node.data;
  child.size = node.size;
  switch (node.kind) {
    case Kind::kDir:
      child.kind = ChildKind::kDir;
      child.target = numbers[static_cast<size_t>(&node - nodes_.data())];
      break;
    case Kind::kWhiteout:
      child.kind = ChildKind::kWhiteout;
      child.data += kWhiteoutPrefix.size();
      child.size = static_cast<uint8_t>(child.size - kWhiteoutPrefix.size());
      break;
    case Kind::kInode:
      child.kind = IsWhiteoutDevice(entry(node.target)) ? ChildKind::kWhiteout : ChildKind::kInode;
      child.target = node.target;
      break;
    case Kind::kPendingLink:
    case Kind::kLowerLink:
      child.kind = ChildKind::kLowerLink;
      child.target = node.target;
      break;
  }
  return child;
}

std::shared_ptr<const LayerTree> LayerTreeBuilder::Pack() {
  std::shared_ptr<LayerTree> tree(new LayerTree());
  tree->index_ = index_;
  tree->nlink_.assign(index_->entries.size(), 0);
  table_ = NameTable(0);
  std::vector<DirId> numbers(nodes_.size(), kNoNode);
  for (uint32_t i = 0; i < nodes_.size(); ++i) {
    const BuildNode& node = nodes_[i];
    if (node.dead || node.kind != Kind::kDir) continue;
    numbers[i] = static_cast<DirId>(tree->dirs_.size());
    tree->dirs_.push_back({.entry = node.entry, .opaque = node.opaque});
  }
  // Children of one directory lie side by side: count, place, sort.
  size_t names = 0;
  for (uint32_t i = 1; i < nodes_.size(); ++i) {
    if (nodes_[i].dead) continue;
    ++tree->dirs_[numbers[nodes_[i].parent]].child_count;
    ++names;
  }
  uint32_t at = 0;
  for (Directory& dir : tree->dirs_) {
    dir.first_child = at;
    at += std::exchange(dir.child_count, 0);
  }
  tree->children_.resize(names);
  for (uint32_t i = 1; i < nodes_.size(); ++i) {
    if (nodes_[i].dead) continue;
    Directory& dir = tree->dirs_[numbers[nodes_[i].parent]];
    tree->children_[dir.first_child + dir.child_count++] = PackChild(nodes_[i], numbers);
  }
  MergeWhiteouts(*tree);
  for (const Directory& dir : tree->dirs_) {
    for (uint32_t c = 0; c < dir.child_count; ++c) {
      const Child& child = tree->children_[dir.first_child + c];
      tree->lower_links_ += child.kind == ChildKind::kLowerLink;
      if (child.kind != ChildKind::kInode || tree->nlink_[child.target]++ > 0) continue;
      if (entry(child.target).type != EntryType::kRegular) continue;
      ++tree->file_count_;
      tree->file_bytes_ += entry(child.target).size;
    }
  }
  return tree;
}

// Sorts the names of each directory. A whiteout beside a name of the same layer hides only what is below: a directory
// becomes opaque by it, anything else replaces what is below anyway.
void LayerTreeBuilder::MergeWhiteouts(LayerTree& tree) {
  auto before = [](const Child& a, const Child& b) {
    const int order = a.name().compare(b.name());
    return order != 0 ? order < 0 : a.kind != ChildKind::kWhiteout && b.kind == ChildKind::kWhiteout;
  };
  for (Directory& dir : tree.dirs_) {
    std::span<Child> all(tree.children_.data() + dir.first_child, dir.child_count);
    if (!std::is_sorted(all.begin(), all.end(), before)) std::sort(all.begin(), all.end(), before);
    size_t kept = 0;
    for (const Child& child : all) {
      if (kept > 0 && all[kept - 1].name() == child.name()) {
        if (all[kept - 1].kind == ChildKind::kDir) {
          Directory& made = tree.dirs_[all[kept - 1].target];
          made.opaque = made.anew = true;
        }
        continue;
      }
      all[kept++] = child;
    }
    dir.child_count = static_cast<uint32_t>(kept);
  }
}

Result<std::shared_ptr<const LayerTree>> LayerTree::Build(std::shared_ptr<const format::LayerIndex> index) {
  HEADRACE_CHECK(index != nullptr);
  return LayerTreeBuilder(std::move(index)).Run();
}

}  // namespace headrace::tree
