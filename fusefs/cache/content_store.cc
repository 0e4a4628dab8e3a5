#include "fusefs/cache/content_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <new>
#include <optional>
#include <utility>

#include "fusefs/base/file.h"
#include "fusefs/base/little_endian.h"
#include "fusefs/base/log.h"
#include "fusefs/base/text.h"
#include "fusefs/cache/evictor.h"
#include "fusefs/cache/map_format.h"
#include "fusefs/cache/store_live.h"
#include "fusefs/cache/store_shared.h"

namespace headrace::cache {
namespace {

constexpr uint64_t kAlwaysBegun = uint64_t{1} << 20;
constexpr uint64_t kBeginBytes = 8192;

// Names begin with the id of the process that writes the file; another process may use the directory now.
void SweepStaged(const std::string& directory) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename();
    const auto pid = ParseU64(std::string_view(name).substr(0, name.find('.')));
    const bool alive = pid.ok() && *pid != static_cast<uint64_t>(::getpid()) && ::access(("/proc/" + std::to_string(*pid)).c_str(), F_OK) == 0;
    if (!alive) ::unlink(entry.path().c_str());
  }
}

}  // namespace

ContentStore::ContentStore(std::shared_ptr<StoreShared> shared, const StoreOptions& options)
    : shared_(std::move(shared)),
      options_(options),
      live_(std::make_unique<Live>()),
      sealer_(std::make_unique<ThreadPool>("cache-seal", 1)),
      evictor_(std::make_unique<Evictor>(*this, options.max_age)) {
  shared_->sealer = sealer_.get();
  may_evict_.store(!options.await_mounted, std::memory_order_release);
}

ContentStore::~ContentStore() { evictor_->Stop(); }

Result<std::unique_ptr<ContentStore>> ContentStore::Create(const StoreOptions& options, Metrics& metrics) {
  auto shared = std::make_shared<StoreShared>(options.root, options.limits, metrics);
  shared->write_pause = options.write_pause;
  HR_RETURN_IF_ERROR(MakeDirs(options.root).Annotate("cache directory"));
  if (::access(options.root.c_str(), R_OK | W_OK | X_OK) != 0) {
    return Status::FromErrno(errno, "cache directory " + options.root);
  }
  // What a process that was killed had staged.
  HR_RETURN_IF_ERROR(MakeDirs(options.root + "/staged").Annotate("cache directory"));
  SweepStaged(options.root + "/staged");
  std::unique_ptr<ContentStore> store(new ContentStore(std::move(shared), options));  // NOLINT: private constructor
  HR_RETURN_IF_ERROR(store->shared_->pins.Load().Annotate("cache pins"));
  store->evictor_->Start();
  return store;
}

std::string ContentStore::PathStem(const Digest& id) const {
  const std::string hex = id.Hex();
  return options_.root + "/" + hex.substr(0, 2) + "/" + hex.substr(2, 2) + "/" + hex;
}

Result<std::shared_ptr<ContentFile>> ContentStore::Open(const ContentSpec& spec) {
  HEADRACE_CHECK(spec.size > 0 && spec.chunk_count > 0);
  if (auto file = live_->Find(spec.id); file && file->Untouched()) return file;
  MutexLock lock(shared_->OpeningOf(spec.id));
  if (auto file = live_->Find(spec.id); file && file->Untouched()) return file;
  try {
    Result<std::shared_ptr<ContentFile>> file = OpenLocked(spec);
    if (!file.ok()) return file.status().Annotate("cache");
    live_->Insert(spec.id, *file, (*file)->disk_);
    return file;
  } catch (const std::bad_alloc&) {
    return ResourceExhaustedError("cache: no memory for a map of " + std::to_string(spec.chunk_count) + " chunks");
  }
}

Result<std::shared_ptr<ContentFile>> ContentStore::OpenLocked(const ContentSpec& spec) {
  const std::string stem = PathStem(spec.id);
  // Its map alone takes a block: a million small files that are opened while the cache is full would be too much.
  if (spec.size < kAlwaysBegun && !shared_->space.HasRoom(kBeginBytes) && ::access((stem + ".map").c_str(), F_OK) != 0) return ResourceExhaustedError("full");
  const auto make = [&] {
    return std::shared_ptr<ContentFile>(new ContentFile(shared_, spec, stem + ".data", stem + ".map"));  // NOLINT
  };
  const std::optional<DataIdentity> placed = live_->TakePlaced(spec.id);
  const std::shared_ptr<DiskCount> disk = live_->CountOf(spec.id);
  auto file = make();
  Status status = file->Load(placed, disk);
  if (status.errno_override() == ENOENT) {
    HR_RETURN_IF_ERROR(MakeDirs(stem.substr(0, stem.rfind('/'))));
    file = make();
    status = file->Load(placed, disk);
  }
  HR_RETURN_IF_ERROR(status);
  file->MaybeSeal();  // placed whole
  return file;
}

std::vector<bool> ContentStore::Peek(const ContentSpec& spec, bool* sealed) {
  if (sealed != nullptr) *sealed = false;
  if (auto file = live_->Find(spec.id); file && file->usable()) {
    if (sealed != nullptr) *sealed = file->sealed();
    std::vector<bool> out(spec.chunk_count);
    for (uint32_t i = 0; i < spec.chunk_count; ++i) out[i] = file->state(i) != ChunkState::kAbsent;
    return out;
  }
  const std::string stem = PathStem(spec.id);
  Result<UniqueFd> map = OpenFile(stem + ".map", O_RDONLY);
  struct stat st;
  if (!map.ok() || ::stat((stem + ".data").c_str(), &st) != 0) return {};
  if (static_cast<uint64_t>(st.st_size) != spec.size) return {};
  const DataIdentity data = IdentityOf(st);
  if (::fstat(map->get(), &st) != 0 || static_cast<uint64_t>(st.st_size) != MapSize(spec.chunk_count)) return {};
  std::vector<uint8_t> bytes(MapSize(spec.chunk_count));
  Result<size_t> got = PreadFull(map->get(), bytes, 0);
  if (!got.ok() || *got != bytes.size()) return {};
  const std::span<const uint8_t> view(bytes);
  if (!HeaderMatches(view.first<kMapHeaderSize>(), spec)) return {};
  if (SealMatches(view.subspan<kMapSealOffset, kMapSealSize>(), spec, data)) {
    if (sealed != nullptr) *sealed = true;
    return std::vector<bool>(spec.chunk_count, true);
  }
  std::vector<bool> out(spec.chunk_count);
  for (uint32_t i = 0; i < spec.chunk_count; ++i) {
    out[i] = LoadLe64(bytes.data() + kMapMarksOffset + i * kMapMarkSize) != 0;
  }
  return out;
}

size_t ContentStore::open_contents() const {
  MutexLock lock(live_->mu);
  size_t n = 0;
  for (const auto& [id, open] : live_->files) n += !open.file.expired();
  return n;
}

}  // namespace headrace::cache
