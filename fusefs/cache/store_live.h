// The open contents of one store. Internal to cache/.
#ifndef HEADRACE_FUSEFS_CACHE_STORE_LIVE_H_
#define HEADRACE_FUSEFS_CACHE_STORE_LIVE_H_

#include <memory>
#include <optional>
#include <unordered_map>

#include "fusefs/base/mutex.h"
#include "fusefs/cache/content_store.h"

namespace headrace::cache {

struct ContentStore::Live {
  mutable Mutex mu;
  struct Open {
    std::weak_ptr<ContentFile> file;
    std::weak_ptr<DiskCount> disk;  // lives a moment longer
  };
  std::unordered_map<Digest, Open> files HR_GUARDED_BY(mu);
  size_t sweep_at HR_GUARDED_BY(mu) = 1024;

  // Contents that this process placed whole and nobody opened since, and the state of their data files then. What does not fit is verified like what other processes wrote.
  static constexpr size_t kPlacedMax = 1 << 16;
  std::unordered_map<Digest, DataIdentity> placed HR_GUARDED_BY(mu);

  void Placed(const Digest& id, const DataIdentity& data) {
    MutexLock lock(mu);
    if (placed.size() < kPlacedMax) placed[id] = data;
  }
  std::optional<DataIdentity> TakePlaced(const Digest& id) {
    MutexLock lock(mu);
    auto node = placed.extract(id);
    return node.empty() ? std::nullopt : std::optional(node.mapped());
  }
  std::shared_ptr<ContentFile> Find(const Digest& id) {
    MutexLock lock(mu);
    auto it = files.find(id);
    return it == files.end() ? nullptr : it->second.file.lock();
  }
  std::shared_ptr<DiskCount> CountOf(const Digest& id) {
    MutexLock lock(mu);
    auto it = files.find(id);
    return it == files.end() ? nullptr : it->second.disk.lock();
  }
  void Insert(const Digest& id, const std::shared_ptr<ContentFile>& file, const std::shared_ptr<DiskCount>& disk) {
    MutexLock lock(mu);
    files[id] = {file, disk};
    if (files.size() < sweep_at) return;
    std::erase_if(files, [](const auto& entry) { return entry.second.disk.expired(); });
    sweep_at = 1024 + 2 * files.size();
  }
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_STORE_LIVE_H_
