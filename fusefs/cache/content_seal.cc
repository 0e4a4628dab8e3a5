// ContentFile: getting bytes to the disk for good: early write-back, and the seal of a complete file.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "fusefs/base/log.h"
#include "fusefs/cache/content_file.h"
#include "fusefs/cache/map_format.h"
#include "fusefs/cache/store_shared.h"

namespace headrace::cache {
namespace {

constexpr uint64_t kWriteBackBytes = uint64_t{32} << 20;

}  // namespace

// The disk begins to write early and all along: a file that is complete is then sealed soon, and dirty pages do not pile up until the kernel
// makes writers wait.
void ContentFile::WriteBack(uint64_t written) {
  if (not_written_back_.fetch_add(written, std::memory_order_relaxed) + written < kWriteBackBytes) return;
  not_written_back_.store(0, std::memory_order_relaxed);
  // On the store's thread: it may wait for the disk's queue. Its errors show at the seal's fdatasync.
  shared_->sealer->Post([self = shared_from_this()] { ::sync_file_range(self->data_.get(), 0, 0, SYNC_FILE_RANGE_WRITE); });
}

void ContentFile::WhenSealEnds(std::function<void()> done) {
  {
    MutexLock lock(mu_);
    if (sealing_) {
      on_seal_end_.push_back(std::move(done));
      return;
    }
  }
  done();
}

void ContentFile::SealEnded() {
  std::vector<std::function<void()>> waiting;
  {
    MutexLock lock(mu_);
    sealing_ = false;
    waiting.swap(on_seal_end_);
  }
  for (const auto& done : waiting) done();
}

void ContentFile::MaybeSeal() {
  if (!complete() || sealed()) return;
  {
    MutexLock lock(mu_);
    sealing_ = true;
  }
  shared_->sealer->Post([self = shared_from_this()] {
    Status status = self->Seal();
    self->SealEnded();
    if (!status.ok()) {
      Metrics::Add(self->shared_->metrics.cache_write_errors);
      log::Warn("cache file not sealed content={} error=\"{}\"", self->spec_.id.Hex(), status.ToString());
    }
  });
}

// Runs on the store's sealing thread only.
Status ContentFile::Seal() {
  if (!complete() || sealed()) return {};
  HR_RETURN_IF_ERROR(StillOurs());
  HR_RETURN_IF_ERROR(OpenReadOnly());
  // With its times, which the seal names.
  if (::fsync(data_.get()) != 0) {
    // The kernel may have dropped pages that it could not write: nothing of this file is believed any more.
    Status status = Status::FromErrno(errno, "fsync " + data_path_);
    Damage(status.ToString());
    return status;
  }
  struct stat st;
  if (::fstat(data_.get(), &st) != 0) return Status::FromErrno(errno, "fstat " + data_path_);
  const DataIdentity identity = IdentityOf(st);
  HR_RETURN_IF_ERROR(PwriteFull(map_.get(), EncodeSeal(spec_, identity), kMapSealOffset).Annotate(map_path_));
  Status synced;
  if (::fdatasync(map_.get()) != 0) synced = Status::FromErrno(errno, "fdatasync " + map_path_);
  if (synced.ok()) synced = shared_->SyncNames(spec_.id, map_path_);
  {
    MutexLock lock(mu_);
    // The state that the seal names must be one that we made: somebody else's writes are not to be sealed in.
    if (identity != ours_ && changing_ == 0) Doubt();
    if (synced.ok() && identity == ours_ && missing_.load(std::memory_order_acquire) == 0 && usable()) {
      sealed_as_ = identity;
      Metrics::Add(shared_->metrics.cache_sealed_files);  // who sees it sealed finds it counted
      sealed_.store(true, std::memory_order_release);
      return {};
    }
  }
  // A chunk was dropped meanwhile, or the seal may not be on the disk: take it back.
  const MapSeal none{};
  Status undone = PwriteFull(map_.get(), none, kMapSealOffset);
  if (!undone.ok()) Damage("a seal cannot be taken back: " + undone.ToString());
  return synced;
}

}  // namespace headrace::cache
