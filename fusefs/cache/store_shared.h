// What the ContentFiles of one store have in common. Internal to cache/.
#ifndef HEADRACE_FUSEFS_CACHE_STORE_SHARED_H_
#define HEADRACE_FUSEFS_CACHE_STORE_SHARED_H_

#include <sys/stat.h>

#include <array>
#include <atomic>
#include <bitset>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "fusefs/base/digest.h"
#include "fusefs/base/executor.h"
#include "fusefs/base/file.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/cache/map_format.h"
#include "fusefs/cache/pins.h"
#include "fusefs/cache/space.h"

namespace headrace::cache {

// What one pair of files takes on the disk, as the space knows it. All objects of the pair have the same one: an object that is let go may still be there when the content is opened anew.
class DiskCount {
 public:
  DiskCount(Space& space, uint64_t inode_of_map, int64_t data, int64_t map) : map_inode(inode_of_map), space_(space), data_(data), map_(map) {}

  // Asks the kernel what the file takes and tells the space what is new; 0 or an errno. Unlinked files are no longer the cache's: their bytes go when the last who has them open lets go.
  int Data(int fd, struct stat* st) {
    MutexLock lock(mu_);
    return Count(fd, st, data_);
  }
  int Map(int fd, struct stat* st) {
    MutexLock lock(mu_);
    return Count(fd, st, map_);
  }

  const uint64_t map_inode;  // of the pair: the map stays open, and thus its inode number its own, as long as anybody has this

 private:
  // Under the lock: of two that ask at once the later answer must win.
  int Count(int fd, struct stat* st, int64_t& counted) HR_REQUIRES(mu_) {
    if (::fstat(fd, st) != 0) return errno;
    const int64_t now = st->st_nlink > 0 ? DiskBytes(*st) : 0;
    space_.Add(now - std::exchange(counted, now));
    return 0;
  }

  Space& space_;
  Mutex mu_;  // a leaf; never held across I/O (fstat of an open local file is none)
  int64_t data_ HR_GUARDED_BY(mu_);
  int64_t map_ HR_GUARDED_BY(mu_);
};

struct StoreShared {
  StoreShared(const std::string& root, const SpaceLimits& limits, Metrics& m) : metrics(m), space(root, limits, m), pins(root + "/pins") {}

  // False while writing rests after a failure.
  bool MayWrite() const {
    return std::chrono::steady_clock::now().time_since_epoch().count() >=
           write_again_at.load(std::memory_order_relaxed);
  }
  // Counts a failed write and lets writing rest. True if the caller should log it: once each pause.
  bool WriteFailed() {
    Metrics::Add(metrics.cache_write_errors);
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    const int64_t next = (now + std::chrono::steady_clock::duration(write_pause)).count();
    const int64_t before = write_again_at.exchange(next, std::memory_order_relaxed);
    return before <= now.count();
  }

  // Makes the name of <root>/aa/bb/<id>.map last, and with the first one of a directory also the names that lead to it. On the sealing thread only.
  Status SyncNames(const Digest& id, const std::string& path) {
    std::string directory = path.substr(0, path.rfind('/'));
    HR_RETURN_IF_ERROR(FsyncDir(directory));
    const size_t index = size_t{id.bytes()[0]} << 8 | id.bytes()[1];
    if (names_synced[index]) return OkStatus();
    for (int level = 0; level < 2; ++level) {
      directory.resize(directory.rfind('/'));
      HR_RETURN_IF_ERROR(FsyncDir(directory));
    }
    names_synced[index] = true;
    return OkStatus();
  }

  Mutex& OpeningOf(const Digest& id) { return opening[id.bytes()[0] % opening.size()]; }

  Metrics& metrics;
  Space space;
  Pins pins;
  // Two threads that open one content at once must get one object, and names are not removed under who opens them. The lock of a stripe is the only one of the project that is held
  // over I/O: over opening, placing or removing one local file; nothing is ever locked inside it but Live::mu, ContentFile::mu_ and DiskCount's.
  std::array<Mutex, 64> opening;
  std::chrono::milliseconds write_pause{0};
  ThreadPool* sealer = nullptr;
  std::bitset<65536> names_synced;  // by the first two bytes of the ids
  std::atomic<int64_t> write_again_at{INT64_MIN};  // steady_clock ticks
  std::atomic<bool> makes_holes{true};             // until one could not be made
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_STORE_SHARED_H_
