#include "fusefs/tree/merged_view.h"

#include <algorithm>
#include <string>
#include <utility>

#include "fusefs/tree/limits.h"

namespace headrace::tree {
namespace {

// One directory of one layer that has a share in a merged directory.
struct Share {
  uint16_t layer;
  DirId dir;
};
using Shares = std::vector<Share>;  // top to bottom

// The names of one share that are still to be merged.
struct Cursor {
  const Child* at;
  const Child* end;
  uint16_t layer;
};

// Heap order: the smallest name first; among equal names the upper layer first.
bool LaterInHeap(const Cursor& a, const Cursor& b) {
  const int order = a.at->name().compare(b.at->name());
  return order != 0 ? order > 0 : a.layer < b.layer;
}

struct Claim {
  const Child* child;
  uint16_t layer;
};

// The layers' parts of one merged directory.
struct Parts {
  Shares shares;
  bool opaque = false;        // something hides what is further below
  Share meta{0, 0};           // whose metadata it has, if has_meta
  bool has_meta = false;

  // Adds the next lower one; false: what is below has no part in the directory any more.
  bool Add(const Chain& chain, Share share) {
    const Directory& dir = chain[share.layer]->directory(share.dir);
    if (!opaque) shares.push_back(share);
    // A tar that does not list the directory leaves it as it was; emptying it (opaque) leaves its metadata, too.
    if (!has_meta && dir.entry != kNoEntry) {
      meta = share;
      has_meta = true;
    }
    opaque = opaque || dir.opaque;
    return !dir.anew && !(opaque && has_meta);
  }
};

// The directory that the topmost of the claims on one name (top to bottom) is.
Parts CollectParts(const Chain& chain, std::span<const Claim> claims) {
  Parts parts;
  for (const Claim& claim : claims) {
    if (claim.child->kind != ChildKind::kDir) {
      parts.opaque = true;
      break;
    }
    if (!parts.Add(chain, {claim.layer, claim.child->target})) break;
  }
  return parts;
}

// The root of the lowest `levels` layers.
Parts RootParts(const Chain& chain, size_t levels) {
  Parts parts;
  for (size_t i = levels; i-- > 0;) {
    if (!parts.Add(chain, {static_cast<uint16_t>(i), kRootDir})) break;
  }
  return parts;
}

}  // namespace

class ViewBuilder {
 public:
  ViewBuilder(const Chain& chain, MergeMode mode) : chain_(chain), keep_(mode == MergeMode::kAboveForeign) {}

  Status Run(MergedView& view);
  Result<ViewDirectory> RunRoot();

 private:
  // A directory that was met and is still to be numbered and merged.
  struct Pending {
    Parts parts;
    uint32_t parent = 0;
    size_t child_slot = SIZE_MAX;  // where its number is to be written
    bool hidden_below = false;     // it, or a directory above it, is opaque
  };

  ViewDirectory Describe(const Pending& pending) const;
  // Appends the merged names to `out` and, for directories, what is to be merged later to `found` (child_slot
  // = index in `out`).
  Status MergeNames(const Pending& pending, std::vector<ViewChild>& out, std::vector<Pending>& found);
  Status TakeName(const Pending& pending, std::span<const Claim> claims, std::vector<ViewChild>& out,
                  std::vector<Pending>& found);
  Result<Claim> FollowLowerLink(Claim claim);
  Claim FindBelow(size_t levels, std::string_view path);

  const Chain& chain_;
  const bool keep_;
  uint64_t searches_ = 0;
  uint64_t dropped_links_ = 0;
  const format::Entry* dropped_link_ = nullptr;
};

ViewDirectory ViewBuilder::Describe(const Pending& pending) const {
  ViewDirectory dir;
  dir.parent = pending.parent;
  dir.opaque = keep_ && pending.parts.opaque;
  if (pending.parts.has_meta) {
    dir.layer = pending.parts.meta.layer;
    dir.entry = chain_[dir.layer]->directory(pending.parts.meta.dir).entry;
  }
  return dir;
}

Status ViewBuilder::MergeNames(const Pending& pending, std::vector<ViewChild>& out, std::vector<Pending>& found) {
  std::vector<Cursor> heap;
  for (const Share& share : pending.parts.shares) {
    std::span<const Child> all = chain_[share.layer]->children(share.dir);
    if (!all.empty()) heap.push_back({all.data(), all.data() + all.size(), share.layer});
  }
  std::make_heap(heap.begin(), heap.end(), LaterInHeap);
  std::vector<Claim> claims;
  while (!heap.empty()) {
    claims.clear();
    do {
      std::pop_heap(heap.begin(), heap.end(), LaterInHeap);
      Cursor& cursor = heap.back();
      claims.push_back({cursor.at, cursor.layer});
      if (++cursor.at == cursor.end) {
        heap.pop_back();
      } else {
        std::push_heap(heap.begin(), heap.end(), LaterInHeap);
      }
    } while (!heap.empty() && heap.front().at->name() == claims.front().child->name());
    HR_RETURN_IF_ERROR(TakeName(pending, claims, out, found));
  }
  return OkStatus();
}

Status ViewBuilder::TakeName(const Pending& pending, std::span<const Claim> claims, std::vector<ViewChild>& out,
                             std::vector<Pending>& found) {
  Claim top = claims.front();
  ViewChild child;
  child.data = top.child->data;
  child.size = top.child->size;
  if (top.child->kind == ChildKind::kLowerLink) {
    HR_ASSIGN_OR_RETURN(top, FollowLowerLink(top));
    if (top.child == nullptr) return OkStatus();
  }
  switch (top.child->kind) {
    case ChildKind::kWhiteout:
      if (!keep_ || pending.hidden_below) return OkStatus();
      child.kind = NodeKind::kWhiteout;
      break;
    case ChildKind::kDir: {
      child.kind = NodeKind::kDir;
      Pending below;
      below.parts = CollectParts(chain_, claims);
      below.hidden_below = below.parts.opaque || pending.hidden_below;
      below.child_slot = out.size();
      found.push_back(std::move(below));
      break;
    }
    case ChildKind::kInode:
    case ChildKind::kLowerLink:
      child.kind = NodeKind::kInode;
      child.layer = top.layer;
      child.target = top.child->target;
      break;
  }
  if (out.size() >= limits::kViewNamesMax) {
    return ResourceExhaustedError("the merged layers have more than " + std::to_string(limits::kViewNamesMax) +
                                  " names");
  }
  out.push_back(child);
  return OkStatus();
}

// The inode that a hard link to a name of the layers below leads to; child == nullptr: there is none.
Result<Claim> ViewBuilder::FollowLowerLink(Claim claim) {
  const format::Entry* link = nullptr;
  while (claim.child != nullptr && claim.child->kind == ChildKind::kLowerLink) {
    link = &chain_[claim.layer]->index().entries[claim.child->target];
    claim = FindBelow(claim.layer, link->link_target);
  }
  if (searches_ > limits::kLinkSearchesMax) {
    return ResourceExhaustedError("hard links into lower layers, such as " + Printable(link->name) + ", are too many");
  }
  if (claim.child == nullptr || claim.child->kind != ChildKind::kInode) {
    ++dropped_links_;
    dropped_link_ = link;
    claim.child = nullptr;
  }
  return claim;
}

// What the lowest `levels` layers show under that path.
Claim ViewBuilder::FindBelow(size_t levels, std::string_view path) {
  Parts parts = RootParts(chain_, levels);
  while (true) {
    const size_t slash = path.find('/');
    std::string_view name = path.substr(0, slash);
    std::vector<Claim> claims;
    for (const Share& share : parts.shares) {
      ++searches_;
      const Child* child = chain_[share.layer]->Find(share.dir, name);
      if (child != nullptr) claims.push_back({child, share.layer});
    }
    if (claims.empty() || searches_ > limits::kLinkSearchesMax) return {nullptr, 0};
    if (slash == std::string_view::npos) return claims.front();
    if (claims.front().child->kind != ChildKind::kDir) return {nullptr, 0};
    parts = CollectParts(chain_, claims);
    path = path.substr(slash + 1);
  }
}

Status ViewBuilder::Run(MergedView& view) {
  std::vector<Pending> stack(1);
  stack[0].parts = RootParts(chain_, chain_.size());
  stack[0].hidden_below = stack[0].parts.opaque;
  std::vector<Pending> found;
  while (!stack.empty()) {
    Pending pending = std::move(stack.back());
    stack.pop_back();
    const uint32_t number = static_cast<uint32_t>(view.dirs_.size());
    if (pending.child_slot != SIZE_MAX) view.children_[pending.child_slot].target = number;
    ViewDirectory dir = Describe(pending);
    dir.first_child = static_cast<uint32_t>(view.children_.size());
    found.clear();
    HR_RETURN_IF_ERROR(MergeNames(pending, view.children_, found));
    dir.child_count = static_cast<uint32_t>(view.children_.size()) - dir.first_child;
    dir.subdirs = static_cast<uint32_t>(found.size());
    view.dirs_.push_back(dir);
    for (size_t i = found.size(); i-- > 0;) {  // the first name is merged next: depth first
      found[i].parent = number;
      stack.push_back(std::move(found[i]));
    }
  }
  view.children_.shrink_to_fit();
  view.dirs_.shrink_to_fit();
  view.dropped_links_ = dropped_links_;
  view.dropped_link_ = dropped_link_;
  return OkStatus();
}

Result<ViewDirectory> ViewBuilder::RunRoot() {
  Pending root;
  root.parts = RootParts(chain_, chain_.size());
  std::vector<ViewChild> names;
  std::vector<Pending> found;
  HR_RETURN_IF_ERROR(MergeNames(root, names, found));
  ViewDirectory dir = Describe(root);
  dir.subdirs = static_cast<uint32_t>(found.size());
  return dir;
}

const ViewChild* MergedView::Find(uint32_t dir, std::string_view name) const {
  std::span<const ViewChild> all = children(dir);
  auto at = std::lower_bound(all.begin(), all.end(), name,
                             [](const ViewChild& child, std::string_view wanted) { return child.name() < wanted; });
  return at != all.end() && at->name() == name ? &*at : nullptr;
}

Result<std::shared_ptr<const MergedView>> MergedView::Build(Chain chain, MergeMode mode) {
  HEADRACE_CHECK(!chain.empty() && chain.size() <= limits::kChainMax);
  std::shared_ptr<MergedView> view(new MergedView());
  view->chain_ = std::move(chain);
  HR_RETURN_IF_ERROR(ViewBuilder(view->chain_, mode).Run(*view));
  return std::shared_ptr<const MergedView>(std::move(view));
}

Result<ViewDirectory> MergedView::Root(const Chain& chain, MergeMode mode) {
  HEADRACE_CHECK(!chain.empty() && chain.size() <= limits::kChainMax);
  return ViewBuilder(chain, mode).RunRoot();
}

}  // namespace headrace::tree
