// ContentFile: the cached bytes of one file content: a sparse backing file, the presence of each of its chunks, and the seal.
//
// Made by ContentStore::Open; the same content opened twice in a process is the same object while it lives. What is in the backing
// file at a present chunk was verified against its digest by the caller BEFORE WriteChunk or Confirm; the store adds nothing to
// that and loses nothing of it (README.md has the byte format and the argument).
//
// Threads: every method from any thread. All but state(), complete(), sealed(), usable() and backing_fd() block on the local disk.
// Ownership: owns its descriptors. WriteChunk, Confirm, MarkHole, Drop and Read REQUIRE that the ContentStore lives; the
// destructor does not.
// Errors: a failing disk is a Status and a counter, never an abort; the caller goes on without the cache.
#ifndef HEADRACE_FUSEFS_CACHE_CONTENT_FILE_H_
#define HEADRACE_FUSEFS_CACHE_CONTENT_FILE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/file.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"

namespace headrace::cache {

// Which content. Two specs with the same id must be equal in size and chunk_count.
struct ContentSpec {
  Digest id;           // over size and every chunk's place and digest (stream::ContentId): same id, same bytes, same cut
  Digest file_digest;  // of the whole file as its layer claims; kept for tools, never believed
  uint64_t size = 0;
  uint32_t chunk_count = 0;
};

// Which state of which data file a seal speaks of. The kernel changes `changed_ns` with every write, cut, renaming and removal.
struct DataIdentity {
  uint64_t inode = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;
  bool operator==(const DataIdentity&) const = default;
};

enum class ChunkState : uint8_t {
  kAbsent,      // not here
  kUnverified,  // written before this object was made, or touched by somebody since: read it, compare its digest, then Confirm or Drop
  kPresent,     // verified since then
};

class DiskCount;     // store_shared.h
struct StoreShared;  // what the files of one store have in common (content_store.cc)

class ContentFile : public std::enable_shared_from_this<ContentFile> {
 public:
  ~ContentFile();
  ContentFile(const ContentFile&) = delete;
  ContentFile& operator=(const ContentFile&) = delete;

  const ContentSpec& spec() const { return spec_; }
  // REQUIRES: chunk < spec().chunk_count.
  ChunkState state(uint32_t chunk) const;
  // Another one each time when chunks ceased to be kPresent. To be asked before state().
  uint64_t epoch() const { return epoch_.load(std::memory_order_acquire); }
  // Every chunk is kPresent.
  bool complete() const;
  // Complete, synced and durably marked so. True stays true, except when the backing file was found damaged or touched.
  bool sealed() const { return sealed_.load(std::memory_order_acquire); }
  // False: the backing file was found damaged; every chunk is kAbsent and writes are refused until all users let go and open it anew.
  bool usable() const { return !damaged_.load(std::memory_order_acquire); }
  // False: it is of no use any more, and whoever opens the content gets another object. Asks the kernel whether anybody wrote to, cut, renamed or removed the data file since it was
  // sealed; if so, the file is not usable() from now on, and what is on the disk is verified chunk by chunk by who opens it next. Does not block on a disk.
  bool Untouched();
  // Calls `done` once, when a seal that is under way has ended, well or not; at once if none is (not complete, sealed already, damaged).
  // On the store's sealing thread or the caller's.
  void WhenSealEnds(std::function<void()> done);
  // Regular file, opened O_RDONLY; owned by this object, valid as long as it lives. REQUIRES: sealed() was seen true once.
  int backing_fd() const;

  // Fills `out` from `offset`. REQUIRES: the range lies in chunks that were seen kPresent or kUnverified. An error is counted; the
  // caller treats the chunks as absent (Drop) and fetches them again. A file that is too short is found damaged on the way.
  Status Read(uint64_t offset, std::span<uint8_t> out);
  // The same for a range of chunks that all were kPresent in `epoch`, to be served without looking at their digests: also an error if somebody else touched the file since, or the disk did
  // not take what was given to it. Then the chunks may be kUnverified or kAbsent now, and `out` is worth nothing.
  Status ReadPresent(uint64_t epoch, uint64_t offset, std::span<uint8_t> out);
  // Writes the bytes of a verified chunk, then its presence; the last one starts sealing in the background. An error is counted and
  // pauses writing of the whole store for a moment (Unavailable meanwhile, not counted). ResourceExhausted: no room within the limits; nothing was written, the evictor makes some.
  Status WriteChunk(uint32_t chunk, uint64_t offset, std::span<const uint8_t> bytes);
  // The disk would take so many bytes after those that are under way (ContentStore::SetUnderWay), as far as one can know: nothing need be fetched that only the cache wants if it would not.
  bool HasRoom(uint64_t bytes) const;
  // The same without anything being evicted for it.
  bool HasSpare(uint64_t bytes) const;
  // What the cache may hold of all contents, as far as one can know.
  uint64_t CacheBytes() const;
  // So many bytes would make something go, and there is nothing that may: everything in the cache is in use or pinned. Only GiveBack helps then.
  bool IsStuck(uint64_t bytes) const;
  // How often something was given back so far (GiveBack). To be asked before a chunk is read that is to be confirmed.
  uint64_t give_backs() const { return give_backs_.load(std::memory_order_acquire); }
  // The unverified chunk was read after `give_backs` was asked, and its digest matched. Unavailable: something was given back since, it may be this one.
  Status Confirm(uint32_t chunk, uint64_t give_backs);
  // The chunk is zeros and needs no bytes: makes a hole of it and marks it present.
  Status MarkHole(uint32_t chunk, uint64_t offset, uint64_t size);
  // The chunk's bytes are wrong or cannot be read. `seen`: its state when they were read; nothing happens to an unverified chunk that others wrote or confirmed since.
  void Drop(uint32_t chunk, ChunkState seen);
  // Makes room: the chunks [first, end), which are [offset, offset + size) of the file, are absent from now on and their bytes the file system's again. Nothing happens, and 0 comes back, if
  // one of them is not kPresent or is being written, and to a file that is complete or pinned. Blocks on the local disk.
  uint64_t GiveBack(uint32_t first, uint32_t end, uint64_t offset, uint64_t size);

 private:
  friend class ContentStore;
  ContentFile(std::shared_ptr<StoreShared> shared, const ContentSpec& spec, std::string data_path, std::string map_path);

  // `placed`: how this process left the data file when it wrote all of it. `disk`: that of the content's last object here, or null.
  Status Load(const std::optional<DataIdentity>& placed, const std::shared_ptr<DiskCount>& disk);
  Status LoadExisting(const std::optional<DataIdentity>& placed, bool* invalid);
  Status Reinitialise();
  // For ContentStore: bytes of chunks that all are confirmed when all are written.
  Status WriteUnmarked(uint64_t offset, std::span<const uint8_t> bytes);
  Status SetPresent(uint32_t chunk);
  // Around everything that ends with SetPresent: the chunk is not given back meanwhile. False if it is just being given back.
  class ChunkTurn;
  // Around everything of ours that changes the data file: its size is right, and whatever changes its times in between is us.
  Status BeginChange();
  Status EndChange();
  Status WriteData(uint64_t offset, std::span<const uint8_t> bytes);
  // Nobody but us changed the data file, and the disk has failed none of it. Else nothing is kPresent any more.
  Status StillOurs();
  bool IsOurs() HR_REQUIRES(mu_);
  void Doubt() HR_REQUIRES(mu_);
  // The chunks are absent, and nobody writes them before leaving_ is empty again. False: they may not go.
  bool BeginLeaving(uint32_t first, uint32_t end);
  void MaybeSeal();
  Status Seal();
  void SealEnded();
  void WriteBack(uint64_t written);
  Status OpenReadOnly();
  Status HoldData();
  // What the pair of files takes on the disk, told to the space.
  void CountDisk();
  void Damage(const std::string& why);
  void UnlinkIfOurs();
  uint64_t Mark(uint32_t chunk) const;

  const std::shared_ptr<StoreShared> shared_;
  const ContentSpec spec_;
  const std::string data_path_;
  const std::string map_path_;
  uint64_t mark_seed_ = 0;
  DataIdentity sealed_as_;  // set before sealed_ becomes true
  UniqueFd map_;        // holds a shared flock(2) as long as this object lives; the last to be closed, so that who may lock it exclusively finds the others closed
  UniqueFd data_;       // read and write; invalid if it was sealed when it was opened
  UniqueFd read_only_;  // set before sealed_ becomes true; holds a shared flock(2) as long as anybody has this description of the file, the kernel's passthrough included
  std::unique_ptr<std::atomic<ChunkState>[]> states_;  // null if it was sealed when it was opened: all present
  Mutex mu_;                                           // transitions of missing_, sealed_, damaged_; never held across I/O (fstat of an open local file is none)
  bool sealing_ HR_GUARDED_BY(mu_) = false;
  unsigned changing_ HR_GUARDED_BY(mu_) = 0;  // changes of ours under way; while there are any, the times say nothing
  std::vector<uint32_t> busy_ HR_GUARDED_BY(mu_);                        // chunks that are about to be present, each as often as somebody is at it
  std::pair<uint32_t, uint32_t> leaving_ HR_GUARDED_BY(mu_) = {0, 0};    // chunks that are being given back: [first, end)
  DataIdentity ours_ HR_GUARDED_BY(mu_);      // the data file after the last change of ours
  std::vector<std::function<void()>> on_seal_end_ HR_GUARDED_BY(mu_);
  std::atomic<uint64_t> not_written_back_{0};          // bytes given to the page cache since writing to the disk was last begun
  std::atomic<uint32_t> missing_{0};                   // chunks that are not kPresent
  std::atomic<uint64_t> epoch_{0};
  std::atomic<uint64_t> give_backs_{0};
  std::atomic<bool> sealed_{false};
  std::atomic<bool> damaged_{false};
  std::shared_ptr<DiskCount> disk_;  // set by Load; goes before the descriptors do
};

}  // namespace headrace::cache

#endif  // HEADRACE_FUSEFS_CACHE_CONTENT_FILE_H_
