// ContentStore: contents that come whole instead of chunk by chunk.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "fusefs/base/file.h"
#include "fusefs/base/little_endian.h"
#include "fusefs/base/log.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/cache/map_format.h"
#include "fusefs/cache/store_live.h"
#include "fusefs/cache/store_shared.h"

namespace headrace::cache {
namespace {

constexpr uint64_t kWriteBackBytes = uint64_t{32} << 20;
constexpr size_t kCopyBytes = 4 << 20;
// Who places contents is no reader: it may wait for the evictor.
constexpr std::chrono::seconds kRoomWait{2};

// Header and the marks of every chunk.
std::vector<uint8_t> WholeMap(const ContentSpec& spec) {
  std::vector<uint8_t> map(MapSize(spec.chunk_count));
  const MapHeader header = EncodeHeader(spec);
  std::copy(header.begin(), header.end(), map.begin());
  const uint64_t seed = MarkSeed(spec.id);
  for (uint32_t i = 0; i < spec.chunk_count; ++i) StoreLe64(map.data() + kMapMarksOffset + uint64_t{i} * kMapMarkSize, MarkOf(seed, i));
  return map;
}

}  // namespace

StagedFile::~StagedFile() {
  if (path_.empty()) return;
  ::unlink(path_.c_str());
  shared_->space.Add(-static_cast<int64_t>(counted_));
}

Status StagedFile::Write(uint64_t offset, std::span<const uint8_t> bytes, Room room) {
  if (given_up_.load()) return OkStatus();
  if (room == Room::kNow) {
    // Not cut off like below: another thread may be writing, and what was cut would become a hole in front of its bytes, zeros that look like data.
    if (!shared_->space.Reserve(bytes.size())) return ResourceExhaustedError("the cache is full");
  } else if (!shared_->space.ReserveUntil(bytes.size(), std::chrono::steady_clock::now() + kRoomWait)) {
    given_up_.store(true);
    shared_->space.Add(-static_cast<int64_t>(counted_.exchange(0)));
    return ::ftruncate(fd(), 0) == 0 ? OkStatus() : Status::FromErrno(errno, "truncate " + path_);
  }
  shared_->space.Add(static_cast<int64_t>(bytes.size()));
  counted_.fetch_add(bytes.size());
  shared_->space.Release(bytes.size());
  HR_RETURN_IF_ERROR(PwriteFull(fd(), bytes, offset).Annotate(path_));
  if (not_written_back_.fetch_add(bytes.size()) + bytes.size() >= kWriteBackBytes) {  // as ContentFile: the disk begins early; its errors show when the content is sealed
    not_written_back_.store(0);
    ::sync_file_range(fd(), 0, 0, SYNC_FILE_RANGE_WRITE);
  }
  return OkStatus();
}

Status StagedFile::Bytes::Read(uint64_t offset, std::span<uint8_t> out) const {
  HR_ASSIGN_OR_RETURN(const size_t got, PreadFull(fd_.get(), out, offset));
  if (lost()) return DataLossError("the disk did not take what was written to a staged file of the cache");
  return got == out.size() ? OkStatus() : DataLossError("a staged file of the cache is shorter");
}

bool StagedFile::Bytes::lost() const {
  if (!WriteBackError(fd_.get()).ok()) lost_.store(true);
  return lost_.load();
}

Status StagedFile::Punch(uint64_t offset, uint64_t size) {
  if (::fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(size)) != 0) {
    return Status::FromErrno(errno, "punch a hole into " + path_);
  }
  uint64_t counted = counted_.load();
  while (!counted_.compare_exchange_weak(counted, counted - std::min(counted, size))) {
  }
  shared_->space.Add(-static_cast<int64_t>(std::min(counted, size)));
  return OkStatus();
}

Result<std::unique_ptr<StagedFile>> ContentStore::Stage() {
  const std::string path = options_.root + "/staged/" + std::to_string(::getpid()) + "." + std::to_string(staged_count_.fetch_add(1));
  HR_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_EXCL));
  return std::unique_ptr<StagedFile>(new StagedFile(shared_, path, std::move(fd)));  // NOLINT: private constructor
}

// The caller vouches for the marks; they are believed by who opens the content next in this process (Live::placed), and the seal is set then, after a sync.
Result<bool> ContentStore::Place(const ContentSpec& spec, const std::function<Status(const std::string& data_path)>& place) {
  HEADRACE_CHECK(spec.size > 0 && spec.chunk_count > 0);
  const std::string stem = PathStem(spec.id);
  MutexLock lock(shared_->OpeningOf(spec.id));
  if (auto file = live_->Find(spec.id); file) return false;
  Result<UniqueFd> map = OpenFile(stem + ".map", O_RDWR | O_CREAT | O_NOFOLLOW);
  if (map.status().errno_override() == ENOENT) {
    HR_RETURN_IF_ERROR(MakeDirs(stem.substr(0, stem.rfind('/'))));
    map = OpenFile(stem + ".map", O_RDWR | O_CREAT | O_NOFOLLOW);
  }
  HR_RETURN_IF_ERROR(map.status());
  struct stat st;
  // Somebody else's, or begun already: whoever opens it sees what is in it.
  if (::flock(map->get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(map->get(), &st) != 0 || st.st_size != 0) return false;
  HR_RETURN_IF_ERROR(place(stem + ".data"));
  const std::vector<uint8_t> bytes = WholeMap(spec);
  // A map that is cut short is begun anew by who opens it.
  HR_RETURN_IF_ERROR(PwriteFull(map->get(), bytes, 0).Annotate(stem + ".map"));
  Metrics::Add(shared_->metrics.cache_write_bytes, static_cast<int64_t>(spec.size));
  struct stat data;
  if (::stat((stem + ".data").c_str(), &data) != 0 || ::fstat(map->get(), &st) != 0) return true;
  shared_->space.Add(DiskBytes(data) + DiskBytes(st));
  live_->Placed(spec.id, IdentityOf(data));
  return true;
}

Status ContentStore::WriteInto(const ContentSpec& spec, const std::function<Status(uint64_t offset, std::span<uint8_t> out)>& read) {
  HR_ASSIGN_OR_RETURN(std::shared_ptr<ContentFile> file, Open(spec));
  if (file->complete()) return OkStatus();
  const uint64_t give_backs = file->give_backs();
  // Chunks may be of any size, and their places are not known here: all bytes first, then all marks.
  std::vector<uint8_t> buffer(std::min<uint64_t>(spec.size, kCopyBytes));
  for (uint64_t offset = 0; offset < spec.size; offset += buffer.size()) {
    const std::span<uint8_t> piece = std::span(buffer).first(std::min<uint64_t>(buffer.size(), spec.size - offset));
    HR_RETURN_IF_ERROR(read(offset, piece));
    HR_RETURN_IF_ERROR(file->WriteUnmarked(offset, piece));
  }
  for (uint32_t i = 0; i < spec.chunk_count; ++i) {
    const Status confirmed = file->Confirm(i, give_backs);
    if (!confirmed.ok() && confirmed.code() != StatusCode::kUnavailable) return confirmed;  // it was given back meanwhile, for want of room
  }
  return OkStatus();
}

Status ContentStore::Put(const ContentSpec& spec, std::span<const uint8_t> bytes) {
  HEADRACE_CHECK(bytes.size() == spec.size);
  if (!shared_->space.ReserveUntil(spec.size, std::chrono::steady_clock::now() + kRoomWait)) return OkStatus();
  auto placed = Place(spec, [&](const std::string& path) -> Status {
    HR_ASSIGN_OR_RETURN(UniqueFd data, OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW));
    return PwriteFull(data.get(), bytes, 0).Annotate(path);
  });
  shared_->space.Release(spec.size);
  if (!placed.ok()) return placed.status().Annotate("cache");
  if (*placed) return OkStatus();
  return WriteInto(spec, [&](uint64_t offset, std::span<uint8_t> out) {
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
    return OkStatus();
  });
}

Status ContentStore::Adopt(const ContentSpec& spec, std::unique_ptr<StagedFile> staged) {
  if (staged->given_up_) return OkStatus();
  if (staged->bytes_->lost()) return DataLossError("cache: the disk did not take what was written to " + staged->path_);
  if (::ftruncate(staged->fd(), static_cast<off_t>(spec.size)) != 0) return Status::FromErrno(errno, "truncate " + staged->path_);
  auto placed = Place(spec, [&](const std::string& path) -> Status {
    if (::rename(staged->path_.c_str(), path.c_str()) != 0) return Status::FromErrno(errno, "rename " + staged->path_ + " to " + path);
    staged->path_.clear();
    shared_->space.Add(-static_cast<int64_t>(staged->counted_));  // counted as a content from now on
    return OkStatus();
  });
  if (!placed.ok()) return placed.status().Annotate("cache");
  if (*placed) return OkStatus();
  return WriteInto(spec, [&](uint64_t offset, std::span<uint8_t> out) -> Status {
    return staged->Read(offset, out);
  });
}

}  // namespace headrace::cache
