#include "fusefs/kernel/inode_modes.h"

#include <utility>

#include "fusefs/base/log.h"

namespace headrace::kernel {

InodeModes::InodeModes(BackingRegistrar& registrar, uint64_t small_file_bytes, bool passthrough)
    : registrar_(registrar), small_file_bytes_(small_file_bytes), passthrough_(passthrough) {}

InodeModes::~InodeModes() { Clear(); }

void InodeModes::Clear() {
  std::unordered_map<vfs::NodeId, State> dropped;  // destroyed without the lock
  MutexLock lock(mu_);
  dropped.swap(states_);
  for (auto& [node, state] : dropped) {
    if (state.backing_id > 0) registrar_.Unregister(state.backing_id);
  }
}

InodeModes::State InodeModes::Choose(std::shared_ptr<stream::FileContent> content) {
  State state;
  if (passthrough_ && content->sealed()) {
    auto id = registrar_.Register(content->backing_fd());
    if (id.ok()) {
      state.mode = IoMode::kPassthrough;
      state.backing_id = *id;
      state.content = std::move(content);
      return state;
    }
    // Said once: it is a property of the machine (cache on overlayfs, no CAP_SYS_ADMIN), not of the file.
    if (registration_failures_++ == 0) {
      log::Warn("passthrough refused, complete files are served by direct I/O error=\"{}\"", id.status().ToString());
    }
  }
  state.mode = content->size() <= small_file_bytes_ ? IoMode::kCached : IoMode::kDirect;
  state.content = std::move(content);
  return state;
}

InodeModes::Opened InodeModes::Open(vfs::NodeId node, std::shared_ptr<stream::FileContent> content) {
  MutexLock lock(mu_);
  auto it = states_.find(node);
  bool first = it == states_.end();
  if (first) it = states_.emplace(node, Choose(std::move(content))).first;
  State& state = it->second;
  ++state.opens;
  return Opened{state.mode, state.backing_id, first, state.content};
}

std::shared_ptr<stream::FileContent> InodeModes::Content(vfs::NodeId node) const {
  MutexLock lock(mu_);
  auto it = states_.find(node);
  return it == states_.end() ? nullptr : it->second.content;
}

bool InodeModes::Release(vfs::NodeId node) {
  std::shared_ptr<stream::FileContent> last;  // its destructor runs without the lock
  MutexLock lock(mu_);
  auto it = states_.find(node);
  if (it == states_.end()) return false;
  if (--it->second.opens > 0) return true;
  if (it->second.backing_id > 0) registrar_.Unregister(it->second.backing_id);
  last = std::move(it->second.content);
  states_.erase(it);
  return true;
}

std::map<vfs::NodeId, int> InodeModes::BackingIds() const {
  MutexLock lock(mu_);
  std::map<vfs::NodeId, int> ids;
  for (const auto& [node, state] : states_) {
    if (state.backing_id > 0) ids.emplace(node, state.backing_id);
  }
  return ids;
}

size_t InodeModes::open_inodes() const {
  MutexLock lock(mu_);
  return states_.size();
}

uint64_t InodeModes::registration_failures() const {
  MutexLock lock(mu_);
  return registration_failures_;
}

}  // namespace headrace::kernel
