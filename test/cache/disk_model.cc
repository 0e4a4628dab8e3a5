#include "test/cache/disk_model.h"

#include <algorithm>
#include <cstddef>
#include <set>
#include <utility>

namespace headrace::test {
namespace {

using Kind = DiskOp::Kind;
constexpr uint64_t kSector = 512;

uint64_t FreeInode(const DiskState& state) {
  std::set<uint64_t> used;
  for (const auto& [id, node] : state) used.insert(node.inode);
  uint64_t inode = 1;
  while (used.contains(inode)) ++inode;
  return inode;
}

void Put(std::string& bytes, uint64_t offset, const char* from, uint64_t size) {
  if (bytes.size() < offset + size) bytes.resize(offset + size);
  std::copy_n(from, size, bytes.begin() + static_cast<ptrdiff_t>(offset));
}

// Sector by sector, those that `reaches` says.
template <typename Reaches>
void WriteSectors(DiskNode& node, const DiskOp& op, Reaches reaches) {
  const uint64_t end = op.offset + op.bytes.size();
  for (uint64_t at = op.offset; at < end;) {
    const uint64_t next = std::min(end, (at / kSector + 1) * kSector);
    if (reaches()) Put(node.bytes, at, op.bytes.data() + (at - op.offset), next - at);
    at = next;
  }
}

void ApplyData(DiskNode& node, const DiskOp& op) {
  if (op.kind == Kind::kTruncate) node.bytes.resize(op.size);
  if (op.kind == Kind::kWrite) WriteSectors(node, op, [] { return true; });
  if (op.kind == Kind::kPunch && op.offset < node.bytes.size()) {
    std::fill_n(node.bytes.begin() + static_cast<ptrdiff_t>(op.offset), std::min(op.size, node.bytes.size() - op.offset), '\0');
  }
}

void ApplyName(DiskState& state, const DiskOp& op) {
  DiskNode& directory = state[op.node];
  if (op.child == 0) {
    directory.names.erase(op.name);
  } else {
    directory.names[op.name] = op.child;
  }
  if (op.from != 0) state[op.from].names.erase(op.from_name);
}

void ApplyTimes(DiskState& state, const DiskOp& op) {
  if (op.kind == Kind::kMark || op.kind == Kind::kSyncAll || op.kind == Kind::kSyncData) return;
  const bool data = op.kind == Kind::kWrite || op.kind == Kind::kTruncate || op.kind == Kind::kPunch;
  DiskNode& node = state[op.kind == Kind::kName && op.child != 0 ? op.child : op.node];
  node.changed = op.time;
  if (data || node.modified == 0) node.modified = op.time;
}

// What is under way to the disk.
struct Pending {
  std::map<uint32_t, std::vector<const DiskOp*>> data;   // by file
  std::map<uint32_t, std::vector<const DiskOp*>> names;  // by directory
  std::map<uint32_t, std::vector<std::pair<uint64_t, uint64_t>>> times;  // modified, changed
};

// Nodes that no name leads to are gone.
void DropUnreachable(DiskState& state) {
  std::set<uint32_t> reached{1};
  std::vector<uint32_t> todo{1};
  while (!todo.empty()) {
    const uint32_t id = todo.back();
    todo.pop_back();
    for (const auto& [name, child] : state[id].names) {
      if (reached.insert(child).second) todo.push_back(child);
    }
  }
  std::erase_if(state, [&](const auto& entry) { return !reached.contains(entry.first); });
}

}  // namespace

DiskModel::DiskModel() {
  base_[1] = {.directory = true, .inode = 1};
  now_ = base_;
}

DiskModel::DiskModel(DiskState base) : base_(std::move(base)), now_(base_) {
  for (const auto& [id, node] : base_) {
    next_node_ = std::max(next_node_, id + 1);
    next_time_ = std::max({next_time_, node.changed + 1, node.modified + 1});
  }
}

void DiskModel::Release(uint32_t node) {
  if (node == 1) return;
  for (const auto& [id, directory] : now_) {
    for (const auto& [name, child] : directory.names) {
      if (child == node) return;
    }
  }
  now_[node].inode = 0;
}

uint32_t DiskModel::Find(const std::string& path) const {
  uint32_t at = 1;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    begin = end + 1;
    if (name.empty()) continue;
    const auto& names = now_.at(at).names;
    const auto it = names.find(name);
    if (it == names.end()) return 0;
    at = it->second;
  }
  return at;
}

void DiskModel::Apply(DiskOp op) {
  op.time = next_time_++;
  if (op.kind == Kind::kName && op.child != 0 && !now_.contains(op.child)) {
    const uint64_t inode = FreeInode(now_);
    now_[op.child] = {.directory = op.directory, .inode = inode};
    op.size = inode;  // Cut makes the same node
  }
  ApplyTimes(now_, op);
  if (op.kind == Kind::kName) {
    ApplyName(now_, op);
  } else if (op.node != 0) {
    ApplyData(now_[op.node], op);
  }
  ops_.push_back(std::move(op));
}

DiskState DiskModel::Cut(size_t count, Loss loss, std::mt19937_64& random) const {
  DiskState disk = base_;   // what lasts
  DiskState cached = base_;  // what the kernel knows
  Pending pending;
  for (size_t i = 0; i < count; ++i) {
    const DiskOp& op = ops_[i];
    if (op.kind == Kind::kMark) continue;
    if (op.kind == Kind::kName && op.child != 0 && !cached.contains(op.child)) {
      cached[op.child] = disk[op.child] = {.directory = op.directory, .inode = op.size};
    }
    ApplyTimes(cached, op);
    const uint32_t touched = op.kind == Kind::kName && op.child != 0 ? op.child : op.node;
    if (op.kind == Kind::kSyncAll || op.kind == Kind::kSyncData) {
      for (const DiskOp* before : pending.data[op.node]) ApplyData(disk[op.node], *before);
      for (const DiskOp* before : pending.names[op.node]) {
        ApplyName(disk, *before);
        // What was renamed away cannot come back under its old name.
        std::erase_if(pending.names[before->from], [&](const DiskOp* made) { return made->time < before->time && made->name == before->from_name; });
      }
      pending.data[op.node].clear();
      pending.names[op.node].clear();
      if (op.kind == Kind::kSyncData) continue;
      pending.times[op.node].clear();
      disk[op.node].modified = cached[op.node].modified;
      disk[op.node].changed = cached[op.node].changed;
      continue;
    }
    (op.kind == Kind::kName ? pending.names : pending.data)[op.node].push_back(&op);
    pending.times[touched].emplace_back(cached[touched].modified, cached[touched].changed);
  }
  // Odds of a piece to have reached the disk: now nearly all, now next to nothing.
  const double odds = loss == Loss::kNone ? 1 : std::uniform_real_distribution<double>(0.05, 0.95)(random);
  const auto reaches = [&] { return std::bernoulli_distribution(odds)(random); };
  const auto metadata = [&] { return loss != Loss::kUnsynced || reaches(); };
  for (auto& [id, ops] : pending.data) {
    for (const DiskOp* op : ops) {
      DiskNode& node = disk[id];
      if (op->kind != Kind::kWrite) {
        if (metadata()) ApplyData(node, *op);
        continue;
      }
      if (metadata()) node.bytes.resize(std::max<uint64_t>(node.bytes.size(), op->offset + op->bytes.size()));
      WriteSectors(node, *op, reaches);
    }
  }
  std::map<uint64_t, const DiskOp*> renamed;  // in the order in which it was done
  for (auto& [id, ops] : pending.names) {
    for (const DiskOp* op : ops) renamed[op->time] = op;
  }
  for (const auto& [time, op] : renamed) {
    if (metadata()) ApplyName(disk, *op);
  }
  for (auto& [id, times] : pending.times) {
    for (const auto& [modified, changed] : times) {
      if (!metadata()) continue;
      disk[id].modified = modified;
      disk[id].changed = changed;
    }
  }
  DropUnreachable(disk);
  return disk;
}

}  // namespace headrace::test
