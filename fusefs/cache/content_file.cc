#include "fusefs/cache/content_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "fusefs/base/little_endian.h"
#include "fusefs/base/log.h"
#include "fusefs/cache/content_parts.h"
#include "fusefs/cache/map_format.h"
#include "fusefs/cache/store_shared.h"

namespace headrace::cache {
namespace {

// A chunk may begin and end within blocks that it does not share yet.
constexpr uint64_t kBlockRoom = 2 * 4096;

Status LockFile(int fd, int operation) {
  while (::flock(fd, operation) != 0) {
    if (errno != EINTR) return Status::FromErrno(errno, "flock");
  }
  return {};
}

bool SameInode(int fd, const std::string& path) {
  struct stat a, b;
  return ::fstat(fd, &a) == 0 && ::stat(path.c_str(), &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Opens the same inode once more, whoever swaps names.
std::string FdPath(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

Result<uint64_t> FileSize(int fd) {
  struct stat st;
  if (::fstat(fd, &st) != 0) return Status::FromErrno(errno, "fstat");
  return static_cast<uint64_t>(st.st_size);
}

}  // namespace

ContentFile::ContentFile(std::shared_ptr<StoreShared> shared, const ContentSpec& spec, std::string data_path,
                         std::string map_path)
    : shared_(std::move(shared)), spec_(spec), data_path_(std::move(data_path)), map_path_(std::move(map_path)) {
  mark_seed_ = MarkSeed(spec_.id);
}

ContentFile::~ContentFile() {
  // Time of last use, for eviction: that of the map file.
  if (!map_.valid()) return;
  ::futimens(map_.get(), nullptr);
  CountDisk();
  // Said when it is true: the count goes before the descriptors, the map's lock last.
  disk_.reset();
  data_.Reset();
  read_only_.Reset();
  map_.Reset();
  shared_->space.LetGo();
}

uint64_t ContentFile::Mark(uint32_t chunk) const { return MarkOf(mark_seed_, chunk); }

// Opens or begins the pair of files. The map's flock keeps two processes from beginning it at once; it is local and short.
Status ContentFile::Load(const std::optional<DataIdentity>& placed, const std::shared_ptr<DiskCount>& disk) {
  for (int attempt = 0; attempt < 8; ++attempt) {
    HR_ASSIGN_OR_RETURN(map_, OpenFile(map_path_, O_RDWR | O_CREAT | O_NOFOLLOW));
    // Exclusive if nobody uses it: only then it may be begun anew.
    Status locked = LockFile(map_.get(), LOCK_EX | LOCK_NB);
    const bool exclusive = locked.ok();
    if (locked.errno_override() == EWOULDBLOCK) locked = LockFile(map_.get(), LOCK_SH);
    HR_RETURN_IF_ERROR(locked.Annotate(map_path_));
    if (!SameInode(map_.get(), map_path_)) continue;  // thrown away by somebody while we waited
    bool invalid = false;
    struct stat map, data;
    if (::fstat(map_.get(), &map) != 0) return Status::FromErrno(errno, "fstat " + map_path_);
    // What is here was counted by who made it, or at the start.
    const bool same = disk && disk->map_inode == map.st_ino;
    disk_ = same ? disk : std::make_shared<DiskCount>(shared_->space, map.st_ino, ::stat(data_path_.c_str(), &data) == 0 ? DiskBytes(data) : 0, DiskBytes(map));
    HR_RETURN_IF_ERROR(LoadExisting(placed, &invalid));
    if (invalid && !exclusive) return FailedPreconditionError(map_path_ + " is not usable and in use");
    if (invalid) {
      HR_RETURN_IF_ERROR(Reinitialise());
      CountDisk();
    }
    if (exclusive) HR_RETURN_IF_ERROR(LockFile(map_.get(), LOCK_SH).Annotate(map_path_));
    ::futimens(map_.get(), nullptr);
    return {};
  }
  return UnavailableError(map_path_ + " is replaced again and again by another process");
}

Status ContentFile::LoadExisting(const std::optional<DataIdentity>& placed, bool* invalid) {
  *invalid = true;
  HR_ASSIGN_OR_RETURN(const uint64_t map_size, FileSize(map_.get()));
  if (map_size == 0) return {};
  const auto reject = [this](std::string_view why) {
    log::Warn("cache file begun anew content={} reason=\"{}\"", spec_.id.Hex(), why);
    return OkStatus();
  };
  if (map_size != MapSize(spec_.chunk_count)) return reject("the map has a wrong size");
  std::vector<uint8_t> map(map_size);
  Result<size_t> got = PreadFull(map_.get(), map, 0);
  if (!got.ok() || *got != map.size()) return reject("the map cannot be read");
  const std::span<const uint8_t> bytes(map);
  if (!HeaderMatches(bytes.first<kMapHeaderSize>(), spec_)) return reject("the map is damaged or of another version");
  Result<UniqueFd> data = OpenFile(data_path_, O_RDONLY | O_NOFOLLOW);
  if (!data.ok() && data.status().errno_override() == ENOENT) return reject("the data file is gone");
  if (!data.ok() && data.status().errno_override() == ELOOP) return reject("the data file is a symbolic link");
  HR_RETURN_IF_ERROR(data.status());
  struct stat st;
  if (::fstat(data->get(), &st) != 0) return Status::FromErrno(errno, "fstat " + data_path_);
  if (!S_ISREG(st.st_mode) || static_cast<uint64_t>(st.st_size) != spec_.size) {
    return reject("the data file has a wrong size");
  }
  const auto seal = bytes.subspan<kMapSealOffset, kMapSealSize>();
  *invalid = false;
  if (SealMatches(seal, spec_, IdentityOf(st))) {
    sealed_as_ = IdentityOf(st);
    read_only_ = std::move(*data);
    HR_RETURN_IF_ERROR(HoldData());
    sealed_.store(true, std::memory_order_release);
    return {};
  }
  if (!SealIsAbsent(seal)) log::Warn("sealed cache file was touched since, verified again content={}", spec_.id.Hex());
  const bool believed = placed && *placed == IdentityOf(st);
  HR_ASSIGN_OR_RETURN(data_, OpenFile(FdPath(data->get()), O_RDWR));
  states_ = std::make_unique<std::atomic<ChunkState>[]>(spec_.chunk_count);
  uint32_t missing = 0;
  for (uint32_t i = 0; i < spec_.chunk_count; ++i) {
    const uint64_t mark = LoadLe64(map.data() + kMapMarksOffset + i * kMapMarkSize);
    // Whatever wrote the mark may not have lived to see the disk fail, or the machine, or the file system mounted anew: only digests are believed.
    const ChunkState state = mark == 0                     ? ChunkState::kAbsent
                             : mark == Mark(i) && believed ? ChunkState::kPresent
                                                           : ChunkState::kUnverified;
    states_[i].store(state, std::memory_order_relaxed);
    missing += state != ChunkState::kPresent;
  }
  missing_.store(missing, std::memory_order_relaxed);
  MutexLock lock(mu_);
  ours_ = IdentityOf(st);
  return {};
}

// REQUIRES: map_ is locked exclusively. The header is written last: a half begun file is invalid.
Status ContentFile::Reinitialise() {
  if (::ftruncate(map_.get(), 0) != 0) return Status::FromErrno(errno, "truncate " + map_path_);
  if (::unlink(data_path_.c_str()) != 0 && errno != ENOENT) return Status::FromErrno(errno, "unlink " + data_path_);
  HR_ASSIGN_OR_RETURN(data_, OpenFile(data_path_, O_RDWR | O_CREAT | O_EXCL));
  if (::ftruncate(data_.get(), static_cast<off_t>(spec_.size)) != 0) {
    return Status::FromErrno(errno, "truncate " + data_path_);
  }
  if (::ftruncate(map_.get(), static_cast<off_t>(MapSize(spec_.chunk_count))) != 0) {
    return Status::FromErrno(errno, "truncate " + map_path_);
  }
  HR_RETURN_IF_ERROR(PwriteFull(map_.get(), EncodeHeader(spec_), 0).Annotate(map_path_));
  states_ = std::make_unique<std::atomic<ChunkState>[]>(spec_.chunk_count);
  for (uint32_t i = 0; i < spec_.chunk_count; ++i) states_[i].store(ChunkState::kAbsent, std::memory_order_relaxed);
  missing_.store(spec_.chunk_count, std::memory_order_relaxed);
  struct stat st;
  if (::fstat(data_.get(), &st) != 0) return Status::FromErrno(errno, "fstat " + data_path_);
  MutexLock lock(mu_);
  ours_ = IdentityOf(st);
  return {};
}

ChunkState ContentFile::state(uint32_t chunk) const {
  HEADRACE_CHECK(chunk < spec_.chunk_count);
  if (!usable()) return ChunkState::kAbsent;
  if (!states_) return ChunkState::kPresent;
  return states_[chunk].load(std::memory_order_acquire);
}

bool ContentFile::complete() const { return usable() && missing_.load(std::memory_order_acquire) == 0; }

int ContentFile::backing_fd() const {
  HEADRACE_CHECK(read_only_.valid());
  return read_only_.get();
}

Status ContentFile::Read(uint64_t offset, std::span<uint8_t> out) {
  const int fd = data_.valid() ? data_.get() : read_only_.get();
  Result<size_t> got = PreadFull(fd, out, offset);
  if (got.ok() && *got == out.size()) return {};
  Metrics::Add(shared_->metrics.cache_read_errors);
  if (!got.ok()) return got.status().Annotate(data_path_);
  Damage("the data file became shorter");
  return DataLossError(data_path_ + " became shorter");
}

Status ContentFile::ReadPresent(uint64_t epoch, uint64_t offset, std::span<uint8_t> out) {
  HR_RETURN_IF_ERROR(Read(offset, out));
  // After the read: what happened before it is seen.
  if (sealed() ? !Untouched() : data_.valid() && !StillOurs().ok()) return DataLossError(data_path_ + " was touched");
  return epoch == this->epoch() ? OkStatus() : UnavailableError(data_path_ + " lost chunks meanwhile");
}

Status ContentFile::StillOurs() {
  // Writes that failed are remembered for the descriptor; the kernel may have dropped those pages since, and would read something old from the disk. Asking costs no waiting: no page is there.
  if (Status status = WriteBackError(data_.get()).Annotate(data_path_); !status.ok()) {
    Damage(status.ToString());
    return status;
  }
  {
    MutexLock lock(mu_);
    if (changing_ > 0 || IsOurs()) return OkStatus();
    Doubt();
  }
  log::Warn("cache file was touched by somebody else, verified again content={}", spec_.id.Hex());
  return DataLossError(data_path_ + " was touched");
}

bool ContentFile::IsOurs() {
  struct stat st;
  return ::fstat(data_.get(), &st) == 0 && IdentityOf(st) == ours_;
}

void ContentFile::Doubt() {
  uint32_t doubted = 0;
  for (uint32_t i = 0; i < spec_.chunk_count; ++i) {
    ChunkState present = ChunkState::kPresent;
    doubted += states_[i].compare_exchange_strong(present, ChunkState::kUnverified, std::memory_order_acq_rel);
  }
  missing_.fetch_add(doubted, std::memory_order_acq_rel);
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  struct stat st;
  if (::fstat(data_.get(), &st) == 0) ours_ = IdentityOf(st);
}

// Writing into a file that was cut under us would make holes that look like data.
Status ContentFile::BeginChange() {
  HR_ASSIGN_OR_RETURN(const uint64_t size, FileSize(data_.get()));
  if (size != spec_.size) {
    Damage("the data file changed its size");
    return DataLossError(data_path_ + " changed its size");
  }
  MutexLock lock(mu_);
  if (changing_ == 0 && !IsOurs()) Doubt();
  ++changing_;
  return OkStatus();
}

Status ContentFile::EndChange() {
  struct stat st;
  {
    MutexLock lock(mu_);
    --changing_;
    if (const int error = disk_->Data(data_.get(), &st); error != 0) return Status::FromErrno(error, "fstat " + data_path_);
    ours_ = IdentityOf(st);
  }
  if (static_cast<uint64_t>(st.st_size) == spec_.size) return OkStatus();
  Damage("the data file changed its size");
  return DataLossError(data_path_ + " changed its size");
}

Status ContentFile::WriteData(uint64_t offset, std::span<const uint8_t> bytes) {
  HR_RETURN_IF_ERROR(BeginChange());
  const Status written = PwriteFull(data_.get(), bytes, offset).Annotate(data_path_);
  const Status ended = EndChange();
  return written.ok() ? ended : written;
}

Status ContentFile::WriteChunk(uint32_t chunk, uint64_t offset, std::span<const uint8_t> bytes) {
  HEADRACE_CHECK(offset <= spec_.size && bytes.size() <= spec_.size - offset);
  if (!usable()) return FailedPreconditionError(data_path_ + " is damaged");
  if (state(chunk) == ChunkState::kPresent) return {};
  if (!shared_->MayWrite()) return UnavailableError("the cache rests after a failed write");
  const uint64_t room = bytes.size() + kBlockRoom;
  if (!shared_->space.Reserve(room)) return ResourceExhaustedError("the cache is full");
  const ChunkTurn turn(*this, chunk);
  Status status = turn ? WriteData(offset, bytes) : UnavailableError("the chunk is being given back");
  shared_->space.Release(room);
  if (!turn) return status;
  if (status.ok()) {
    status = SetPresent(chunk);
    Metrics::Add(shared_->metrics.cache_write_bytes, static_cast<int64_t>(bytes.size()));  // who sees it counted finds it present
    WriteBack(bytes.size());
    return status;
  }
  if (shared_->WriteFailed()) log::Warn("cache write failed, serving without error=\"{}\"", status.ToString());
  return status;
}

bool ContentFile::HasRoom(uint64_t bytes) const { return shared_->MayWrite() && shared_->space.HasRoomAhead(bytes + kBlockRoom); }

bool ContentFile::HasSpare(uint64_t bytes) const { return shared_->MayWrite() && shared_->space.HasSpare(bytes + kBlockRoom); }

Status ContentFile::WriteUnmarked(uint64_t offset, std::span<const uint8_t> bytes) {
  if (!usable()) return FailedPreconditionError(data_path_ + " is damaged");
  if (!data_.valid()) return OkStatus();  // sealed meanwhile
  return WriteData(offset, bytes);
}

Status ContentFile::Confirm(uint32_t chunk, uint64_t give_backs) {
  if (!usable()) return FailedPreconditionError(data_path_ + " is damaged");
  if (state(chunk) == ChunkState::kPresent) return {};
  const ChunkTurn turn(*this, chunk);
  // After the turn began: from then on nothing is given back.
  if (!turn || this->give_backs() != give_backs) return UnavailableError(data_path_ + " gave chunks back meanwhile");
  return SetPresent(chunk);
}

Status ContentFile::MarkHole(uint32_t chunk, uint64_t offset, uint64_t size) {
  HEADRACE_CHECK(offset <= spec_.size && size <= spec_.size - offset);
  if (!usable()) return FailedPreconditionError(data_path_ + " is damaged");
  if (state(chunk) == ChunkState::kPresent) return {};
  const ChunkTurn turn(*this, chunk);
  if (!turn) return UnavailableError("the chunk is being given back");
  if (size > 0) {
    HR_RETURN_IF_ERROR(BeginChange());
    Status punched;
    if (::fallocate(data_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(size)) != 0) {
      punched = Status::FromErrno(errno, "punch a hole into " + data_path_);
    }
    HR_RETURN_IF_ERROR(EndChange());
    HR_RETURN_IF_ERROR(punched);
  }
  return SetPresent(chunk);
}

Status ContentFile::SetPresent(uint32_t chunk) {
  if (!states_) return FailedPreconditionError(data_path_ + " was sealed and is damaged");
  uint8_t mark[kMapMarkSize];
  StoreLe64(mark, Mark(chunk));
  Status status = PwriteFull(map_.get(), mark, kMapMarksOffset + uint64_t{chunk} * kMapMarkSize);
  if (!status.ok()) {
    if (shared_->WriteFailed()) log::Warn("cache map write failed, serving without error=\"{}\"", status.ToString());
    return status.Annotate(map_path_);
  }
  bool last = false;
  {
    MutexLock lock(mu_);
    if (states_[chunk].exchange(ChunkState::kPresent, std::memory_order_acq_rel) != ChunkState::kPresent) {
      last = missing_.fetch_sub(1, std::memory_order_acq_rel) == 1;
    }
  }
  if (last || complete()) MaybeSeal();  // a late write of the same bytes may have kept a seal from being set
  return {};
}

void ContentFile::Drop(uint32_t chunk, ChunkState seen) {
  if (!usable()) return;
  bool was_sealed = false;
  {
    MutexLock lock(mu_);
    if (seen == ChunkState::kUnverified && state(chunk) == ChunkState::kPresent) return;
    was_sealed = sealed_.load(std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_acq_rel);
    if (!was_sealed && states_ &&
        states_[chunk].exchange(ChunkState::kAbsent, std::memory_order_acq_rel) == ChunkState::kPresent) {
      missing_.fetch_add(1, std::memory_order_acq_rel);
    }
  }
  if (was_sealed) {
    Damage("a chunk of the sealed file cannot be read");
    return;
  }
  const uint8_t absent[kMapMarkSize] = {};
  Status status = PwriteFull(map_.get(), absent, kMapMarksOffset + uint64_t{chunk} * kMapMarkSize);
  if (!status.ok()) Damage("a chunk cannot be dropped: " + status.ToString());
}

// The same inode, so that nobody who swaps names can have another file passed through.
Status ContentFile::OpenReadOnly() {
  if (read_only_.valid()) return {};
  HR_ASSIGN_OR_RETURN(read_only_, OpenFile(FdPath(data_.get()), O_RDONLY));
  return HoldData();
}

// Whoever removes a content takes this lock exclusively first: the kernel keeps it while it reads the file by itself (passthrough), also when this process is gone.
Status ContentFile::HoldData() { return LockFile(read_only_.get(), LOCK_SH | LOCK_NB).Annotate(data_path_); }

void ContentFile::CountDisk() {
  const int fd = data_.valid() ? data_.get() : read_only_.get();
  if (fd < 0 || !disk_) return;
  struct stat st;
  disk_->Data(fd, &st);
  disk_->Map(map_.get(), &st);
}

bool ContentFile::Untouched() {
  if (!usable()) return false;
  if (!sealed()) return true;
  struct stat st;
  if (::fstat(read_only_.get(), &st) == 0 && static_cast<uint64_t>(st.st_size) == spec_.size && IdentityOf(st) == sealed_as_) return true;
  {
    MutexLock lock(mu_);
    damaged_.store(true, std::memory_order_release);
    epoch_.fetch_add(1, std::memory_order_acq_rel);
    sealed_.store(false, std::memory_order_release);
  }
  log::Warn("sealed cache file was touched, verified again when it is opened next content={}", spec_.id.Hex());
  return false;
}

void ContentFile::Damage(const std::string& why) {
  {
    // Whoever finds it damaged and opens the content anew finds its names gone: a second object of the same inode would count bytes that the first one's late writes count too, and the
    // names that are removed here could be the second one's.
    MutexLock opening(shared_->OpeningOf(spec_.id));
    {
      MutexLock lock(mu_);
      if (damaged_.load(std::memory_order_relaxed)) return;
      damaged_.store(true, std::memory_order_release);
      epoch_.fetch_add(1, std::memory_order_acq_rel);
      sealed_.store(false, std::memory_order_release);
    }
    UnlinkIfOurs();
  }
  log::Warn("cache file damaged, fetched again from now on content={} reason=\"{}\"", spec_.id.Hex(), why);
}

void ContentFile::UnlinkIfOurs() {
  if (!SameInode(map_.get(), map_path_)) return;
  // Without its seal and header the map is worth nothing, whoever finds it, even if the unlink fails.
  if (::ftruncate(map_.get(), 0) != 0) log::Warn("cache map not cut path={} errno={}", map_path_, errno);
  ::unlink(map_path_.c_str());
  ::unlink(data_path_.c_str());
}

}  // namespace headrace::cache
