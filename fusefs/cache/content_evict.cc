// ContentStore: what lies on the disk, and how a content leaves it (README.md, "Eviction").
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/cache/evictor.h"
#include "fusefs/cache/map_format.h"
#include "fusefs/cache/store_live.h"
#include "fusefs/cache/store_shared.h"

namespace headrace::cache {
namespace {

bool IsHex(std::string_view text, size_t size) { return text.size() == size && text.find_first_not_of("0123456789abcdef") == std::string_view::npos; }

// The directories in `directory` that the store makes.
std::vector<std::string> HexDirectories(const std::string& directory) {
  std::vector<std::string> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
    if (IsHex(entry.path().filename().native(), 2)) found.push_back(entry.path());
  }
  return found;
}

}  // namespace

CacheUsage ContentStore::Usage() const {
  const Space& space = shared_->space;
  const SpaceLimits limits = space.limits();
  return {.used = space.used(), .budget = limits.budget, .low = limits.budget / 100 * limits.low_percent, .free = space.Free(), .floor = space.Floor(), .counted = space.counted()};
}

bool ContentStore::HasRoom(uint64_t bytes) const { return shared_->MayWrite() && shared_->space.HasRoom(bytes); }

void ContentStore::SetUnderWay(uint64_t bytes) { shared_->space.SetUnderWay(bytes); }

void ContentStore::ListDirectory(const std::string& directory, std::vector<StoredContent>& out) {
  std::unordered_map<Digest, StoredContent> here;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename();
    const bool data = name.ends_with(".data");
    if (!IsHex(name.substr(0, 64), 64) || name.substr(64) != (data ? ".data" : ".map")) continue;
    const auto id = Digest::Parse("sha256:" + name.substr(0, 64));
    struct stat st;
    if (!id.ok() || ::stat(entry.path().c_str(), &st) != 0 || !S_ISREG(st.st_mode)) continue;
    StoredContent& content = here[*id];
    content.id = *id;
    content.bytes += static_cast<uint64_t>(DiskBytes(st));
    if (data) content.size = static_cast<uint64_t>(st.st_size);
    // The map's time is that of the last use; a data file alone is what a crash left of an eviction.
    if (!data || content.last_use == 0) content.last_use = st.st_mtim.tv_sec;
  }
  for (auto& [id, content] : here) out.push_back(content);
}

std::vector<StoredContent> ContentStore::List() {
  const uint64_t version = shared_->space.version();
  std::vector<StoredContent> all;
  for (const std::string& first : HexDirectories(options_.root)) {
    for (const std::string& second : HexDirectories(first)) ListDirectory(second, all);
  }
  uint64_t bytes = 0;
  const std::vector<Digest> mounted = MountedContents();
  const std::unordered_set<Digest> is_mounted(mounted.begin(), mounted.end());
  for (StoredContent& content : all) {
    bytes += content.bytes;
    content.open = live_->Find(content.id) != nullptr;
    content.pinned = shared_->pins.IsPinned(content.id);
    content.mounted = is_mounted.contains(content.id);
  }
  if (shared_->space.counted()) shared_->space.Correct(bytes, version);
  return all;
}

uint64_t ContentStore::Evict(const StoredContent& content) {
  const std::string stem = PathStem(content.id);
  struct stat map_st{}, data_st{};
  UniqueFd map, data;  // cut and closed, which frees the bytes, when nothing is locked any more
  {
    MutexLock lock(shared_->OpeningOf(content.id));
    if (live_->Find(content.id) || shared_->pins.IsPinned(content.id)) return 0;
    // As who begins a content: whoever else has it open holds a lock on the map, and the kernel's passthrough one on the data file.
    Result<UniqueFd> opened = OpenFile(stem + ".map", O_RDWR | O_CREAT | O_NOFOLLOW);
    if (!opened.ok() || ::flock(opened->get(), LOCK_EX | LOCK_NB) != 0) return 0;
    map = std::move(*opened);
    struct stat named;
    if (::fstat(map.get(), &map_st) != 0 || ::stat((stem + ".map").c_str(), &named) != 0 || named.st_ino != map_st.st_ino) return 0;
    if (map_st.st_size != 0 && map_st.st_mtim.tv_sec > content.last_use) return 0;  // used since it was chosen
    opened = OpenFile(stem + ".data", O_RDWR | O_NOFOLLOW);
    if (opened.ok()) {
      data = std::move(*opened);
      if (::flock(data.get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(data.get(), &data_st) != 0) return 0;
    }
    // The map first, and cut: without its seal and header it is worth nothing, whichever of the three reaches the disk.
    if (::ftruncate(map.get(), 0) != 0) return 0;
    ::unlink((stem + ".map").c_str());
    if (::unlink((stem + ".data").c_str()) != 0 && errno != ENOENT) log::Warn("cache file not removed path={}.data errno={}", stem, errno);
    live_->TakePlaced(content.id);
  }
  const int64_t freed = DiskBytes(map_st) + DiskBytes(data_st);
  // Not left to the last closing: the kernel may still be at its own of a file that it passed through, with the lock given back and the bytes not yet (seen: 5 MiB above a budget).
  if (data.valid() && ::ftruncate(data.get(), 0) != 0) log::Warn("cache file not cut path={}.data errno={}", stem, errno);
  data.Reset();
  map.Reset();
  shared_->space.Add(-freed);
  Metrics& metrics = shared_->metrics;
  Metrics::Add(metrics.cache_evicted_contents);
  Metrics::Add(metrics.cache_evicted_bytes, freed);
  if (content.mounted) Metrics::Add(metrics.cache_evicted_mounted_bytes, freed);
  log::Debug("evicted content={} bytes={} mounted={}", content.id.Hex(), freed, content.mounted);
  return static_cast<uint64_t>(freed);
}

Result<Pruned> ContentStore::Prune(const PruneRequest& request) { return evictor_->Prune(request); }

Status ContentStore::Pin(const std::string& name, const std::vector<Digest>& contents, const std::vector<std::string>& notes) {
  HR_RETURN_IF_ERROR(shared_->pins.Set(name, contents, notes));
  // An eviction that had asked before holds the lock of its content's stripe until that is gone.
  for (Mutex& stripe : shared_->opening) MutexLock wait(stripe);
  return OkStatus();
}

Status ContentStore::Unpin(const std::string& name) {
  HR_RETURN_IF_ERROR(shared_->pins.Remove(name));
  shared_->space.Hurry();
  return OkStatus();
}

void ContentStore::SetMounted(std::function<std::vector<Digest>()> mounted) {
  MutexLock lock(mounted_mu_);
  mounted_ = std::move(mounted);
  may_evict_.store(true, std::memory_order_release);
  shared_->space.Wake();
}

std::vector<PinRecord> ContentStore::Pinned() const { return shared_->pins.List(); }
bool ContentStore::IsPinned(const Digest& id) const { return shared_->pins.IsPinned(id); }

std::vector<Digest> ContentStore::MountedContents() {
  std::function<std::vector<Digest>()> mounted;
  {
    MutexLock lock(mounted_mu_);
    mounted = mounted_;
  }
  return mounted ? mounted() : std::vector<Digest>();
}

void ContentStore::StopEviction() {
  evictor_->Stop();
  MutexLock lock(mounted_mu_);
  mounted_ = nullptr;
}

void ContentStore::SetLimits(const SpaceLimits& limits, std::chrono::seconds max_age) {
  evictor_->SetMaxAge(max_age);
  shared_->space.SetLimits(limits);
}

}  // namespace headrace::cache
