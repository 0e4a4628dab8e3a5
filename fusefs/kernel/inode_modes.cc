#include "fusefs/kernel/inode_modes.h"

#include <utility>

#include "fusefs/base/log.h"

namespace headrace::kernel {

InodeModes::InodeModes(BackingRegistrar& registrar, SessionTable& table, uint64_t small_file_bytes, bool passthrough)
    : registrar_(registrar), small_file_bytes_(small_file_bytes), passthrough_(passthrough), table_(table) {
  MutexLock lock(mu_);
  for (const auto& [place, inode] : table_.OpenInodes()) states_.emplace(inode.node, State{inode, place, nullptr});
  unanswered_ = table_.Unanswered();
  for (int id : table_.Suspects()) registrar_.Unregister(id);
  table_.EndRegister(0);
  table_.Closed();
}

InodeModes::~InodeModes() {
  {
    MutexLock lock(mu_);
    if (left_) return;
  }
  Clear();
}

void InodeModes::Clear() {
  std::unordered_map<vfs::NodeId, State> dropped;  // destroyed without the lock
  MutexLock lock(mu_);
  dropped.swap(states_);
  unanswered_.clear();
  for (auto& [node, state] : dropped) {
    if (state.inode.backing_id > 0) registrar_.Unregister(state.inode.backing_id);
  }
  table_.Clear();
}

void InodeModes::Leave() {
  std::unordered_map<vfs::NodeId, State> dropped;
  MutexLock lock(mu_);
  dropped.swap(states_);
  left_ = true;
}

OpenInode InodeModes::Choose(vfs::NodeId node, const stream::FileContent& content) {
  OpenInode inode{node, IoMode::kDirect, 0, 0};
  if (passthrough_ && content.sealed()) {
    table_.BeginRegister();
    auto id = registrar_.Register(content.backing_fd());
    table_.EndRegister(id.ok() ? *id : 0);
    if (id.ok()) {
      inode.mode = IoMode::kPassthrough;
      inode.backing_id = *id;
      return inode;
    }
    // Said once: it is a property of the machine (cache on overlayfs, no CAP_SYS_ADMIN), not of the file.
    if (registration_failures_++ == 0) {
      log::Warn("passthrough refused, complete files are served by direct I/O error=\"{}\"", id.status().ToString());
    }
  }
  inode.mode = content.size() <= small_file_bytes_ ? IoMode::kCached : IoMode::kDirect;
  return inode;
}

uint32_t InodeModes::Claim(uint64_t unique) {
  auto it = unanswered_.find(unique);
  if (it == unanswered_.end()) return SessionTable::kNone;
  const uint32_t answer = it->second;
  unanswered_.erase(it);
  return answer;
}

Result<InodeModes::Opened> InodeModes::Open(vfs::NodeId node, const std::shared_ptr<stream::FileContent>& content, uint64_t unique) {
  MutexLock lock(mu_);
  auto it = states_.find(node);
  const uint32_t claimed = Claim(unique);
  if (claimed != SessionTable::kNone && it != states_.end()) {
    if (!it->second.content) it->second.content = content;
    // Perhaps nobody has begun to fetch it.
    return Opened{it->second.inode.mode, it->second.inode.backing_id, true, true, claimed, it->second.content};
  }
  if (claimed != SessionTable::kNone) table_.Answered(claimed);  // a table that lies: count it now
  const bool first = it == states_.end();
  State state;
  if (first) {
    state.place = table_.TakePlace();
    if (state.place == SessionTable::kNone) return ResourceExhaustedError("too many files are open");
    state.inode = Choose(node, *content);
    state.content = content;
  } else {
    state = it->second;
    if (!state.content) state.content = content;
  }
  ++state.inode.opens;
  const uint32_t answer = table_.Change(state.place, state.inode, unique);
  if (answer == SessionTable::kNone) {
    if (first && state.inode.backing_id > 0) registrar_.Unregister(state.inode.backing_id);
    return ResourceExhaustedError("too many opens are under way");
  }
  if (first) it = states_.emplace(node, State{}).first;
  it->second = std::move(state);
  return Opened{it->second.inode.mode, it->second.inode.backing_id, first, false, answer, it->second.content};
}

std::shared_ptr<stream::FileContent> InodeModes::Content(vfs::NodeId node) const {
  MutexLock lock(mu_);
  auto it = states_.find(node);
  return it == states_.end() ? nullptr : it->second.content;
}

void InodeModes::Keep(vfs::NodeId node, const std::shared_ptr<stream::FileContent>& content) {
  MutexLock lock(mu_);
  auto it = states_.find(node);
  if (it != states_.end() && !it->second.content) it->second.content = content;
}

std::shared_ptr<stream::FileContent> InodeModes::CloseOnce(std::unordered_map<vfs::NodeId, State>::iterator it, uint32_t* answer, uint64_t unique) {
  State& state = it->second;
  OpenInode inode = state.inode;
  const bool last = --inode.opens == 0;
  const int closes = last ? inode.backing_id : 0;
  if (*answer != SessionTable::kNone) {
    table_.TakeBack(state.place, inode, *answer, closes);
  } else if (*answer = table_.Change(state.place, inode, unique, closes); *answer == SessionTable::kNone) {
    return nullptr;  // more answers under way than there are threads: cannot be; the inode stays open, which costs memory only
  }
  if (!last) {
    state.inode = inode;
    return nullptr;
  }
  if (closes > 0) {
    registrar_.Unregister(closes);
    table_.Closed();
  }
  std::shared_ptr<stream::FileContent> content = std::move(state.content);
  states_.erase(it);
  return content;
}

InodeModes::Released InodeModes::Release(vfs::NodeId node, uint64_t unique) {
  std::shared_ptr<stream::FileContent> last;  // its destructor runs without the lock
  MutexLock lock(mu_);
  Released released;
  released.answer = Claim(unique);
  if (released.answer != SessionTable::kNone) return {true, true, released.answer};
  auto it = states_.find(node);
  if (it == states_.end()) return {};
  released.known = true;
  last = CloseOnce(it, &released.answer, unique);
  return released;
}

void InodeModes::Answered(uint32_t answer) {
  if (answer == SessionTable::kNone) return;
  MutexLock lock(mu_);
  if (!left_) table_.Answered(answer);
}

void InodeModes::TakeBack(vfs::NodeId node, uint32_t answer) {
  std::shared_ptr<stream::FileContent> last;
  MutexLock lock(mu_);
  auto it = states_.find(node);
  if (it == states_.end() || left_) return;
  last = CloseOnce(it, &answer, 0);
}

void InodeModes::SettleUnanswered() {
  MutexLock lock(mu_);
  for (const auto& [unique, answer] : unanswered_) table_.Answered(answer);
  unanswered_.clear();
}

std::map<vfs::NodeId, int> InodeModes::BackingIds() const {
  MutexLock lock(mu_);
  std::map<vfs::NodeId, int> ids;
  for (const auto& [node, state] : states_) {
    if (state.inode.backing_id > 0) ids.emplace(node, state.inode.backing_id);
  }
  return ids;
}

size_t InodeModes::open_inodes() const {
  MutexLock lock(mu_);
  return states_.size();
}

uint64_t InodeModes::opens() const {
  MutexLock lock(mu_);
  uint64_t opens = 0;
  for (const auto& [node, state] : states_) opens += state.inode.opens;
  return opens;
}

uint64_t InodeModes::registration_failures() const {
  MutexLock lock(mu_);
  return registration_failures_;
}

}  // namespace headrace::kernel
