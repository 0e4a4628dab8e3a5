// The patterns that map files. What safetensors does with a shard: open and map it privately, read the header from the mapping,
// then open and map it a second time for the tensors (torch's storage); no advice of any kind. Bytes come by page faults in the
// copies to the destination.
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "integration/tools/bench/common.h"
#include "integration/tools/bench/replay_session.h"

namespace headrace::bench {
namespace {

// Bytes copied before they are hashed: they stay in the second-level cache.
constexpr uint64_t kStep = 256 * kKib;

class Mapping {
 public:
  Mapping(ReplaySession& session, const ModelFile& file, int flags) : size_(file.size) {
    const UniqueFd fd = session.Open(file, 0);
    if ((flags & MAP_POPULATE) != 0) (void)posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    void* const address = mmap(nullptr, size_, PROT_READ, flags, fd.get(), 0);
    if (address == MAP_FAILED) FailErrno("mmap " + file.path);
    data_ = static_cast<const uint8_t*>(address);
  }
  ~Mapping() { munmap(const_cast<uint8_t*>(data_), size_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  const uint8_t* data() const { return data_; }

 private:
  const uint8_t* data_ = nullptr;
  uint64_t size_;
};

// A byte that the compiler may not leave out.
uint8_t Touch(const uint8_t* at) { return *static_cast<const volatile uint8_t*>(at); }

// A shard as safetensors has it open.
struct MappedShard {
  const ModelFile* file = nullptr;
  std::unique_ptr<Mapping> header;
  std::unique_ptr<Mapping> data;
  std::vector<Piece> tensors;
};

// The header as the mapping shows it: `size` is 0 if there is none.
std::span<const uint8_t> ReadHeader(ReplaySession& session, const ModelFile& file, const Mapping& map) {
  (void)Touch(map.data());
  session.Arrived(file);
  if (file.size < 8) return {};
  return {map.data(), HeaderBytes(std::span<const uint8_t, 8>(map.data(), 8), file.size)};
}

MappedShard MapShard(ReplaySession& session, const ModelFile& file) {
  MappedShard shard;
  shard.file = &file;
  shard.header = std::make_unique<Mapping>(session, file, MAP_PRIVATE);
  const std::span<const uint8_t> header = ReadHeader(session, file, *shard.header);
  shard.tensors = CutIntoTensors(file, header, session.random());
  shard.data = std::make_unique<Mapping>(session, file, MAP_PRIVATE);
  return shard;
}

void CopyPiece(ReplaySession& session, const MappedShard& shard, const Piece& piece, Ring& ring) {
  for (uint64_t at = piece.begin; at < piece.end; at += kStep) {
    const uint64_t size = std::min(kStep, piece.end - at);
    uint8_t* const out = ring.Next(size);
    memcpy(out, shard.data->data() + at, size);
    session.Take(*shard.file, at, out, size);
  }
}

}  // namespace

void RunHeaders(ReplaySession& session) {
  Ring& ring = session.ring(0);
  for (const ModelFile& file : session.model().shards) {
    const Mapping map(session, file, MAP_PRIVATE);
    const std::span<const uint8_t> header = ReadHeader(session, file, map);
    for (uint64_t at = 0; at < header.size(); at += kStep) {
      const uint64_t size = std::min(kStep, header.size() - at);
      uint8_t* const out = ring.Next(size);
      memcpy(out, header.data() + at, size);
      session.Take(file, at, out, size);
    }
  }
  for (const ModelFile& file : session.model().documents) {
    const UniqueFd fd = session.Open(file, 0);
    for (uint64_t at = 0; at < file.size; at += kStep) {
      const uint64_t size = std::min(kStep, file.size - at);
      uint8_t* const out = ring.Next(size);
      if (Get(PreadFull(fd.get(), {out, size}, at)) != size) Fail(file.path + " ends early");
      session.Take(file, at, out, size);
    }
  }
}

void RunMappedForward(ReplaySession& session) {
  // P9: every rank maps everything and copies its rows of each tensor. Any other pattern in many processes copies all in each.
  const bool rows = session.options().pattern == "P9";
  const unsigned ranks = rows ? session.options().processes : 1;
  const unsigned rank = rows ? session.number() : 0;
  for (const ModelFile& file : session.model().shards) {
    const MappedShard shard = MapShard(session, file);
    for (const Piece& tensor : shard.tensors) CopyPiece(session, shard, PartOf(tensor, rank, ranks), session.ring(0));
  }
}

void RunMappedInterleaved(ReplaySession& session) {
  constexpr size_t kStreams = 4;  // weights, scales, norms and biases of a quantised model lie in regions of their own
  for (const ModelFile& file : session.model().shards) {
    const MappedShard shard = MapShard(session, file);
    size_t next[kStreams + 1];
    for (size_t i = 0; i <= kStreams; ++i) next[i] = shard.tensors.size() * i / kStreams;
    size_t end[kStreams];
    std::copy(next + 1, next + 1 + kStreams, end);
    for (bool more = true; more;) {
      more = false;
      for (size_t i = 0; i < kStreams; ++i) {
        if (next[i] >= end[i]) continue;
        CopyPiece(session, shard, shard.tensors[next[i]++], session.ring(0));
        more = true;
      }
    }
  }
}

void RunMappedRandom(ReplaySession& session) {
  std::vector<MappedShard> shards;
  std::vector<Piece> tensors;  // by shard, in random order within
  std::atomic<size_t> next{0};
  for (const ModelFile& file : session.model().shards) {
    shards.push_back(MapShard(session, file));
    std::vector<Piece> own = shards.back().tensors;
    std::shuffle(own.begin(), own.end(), session.random());
    tensors.insert(tensors.end(), own.begin(), own.end());
  }
  session.Parallel([&](unsigned thread) {
    for (size_t i; (i = next++) < tensors.size();) CopyPiece(session, shards[tensors[i].file], tensors[i], session.ring(thread));
  });
}

void RunPopulated(ReplaySession& session) {
  std::vector<std::unique_ptr<Mapping>> maps;
  for (const ModelFile& file : session.model().shards) {
    maps.push_back(std::make_unique<Mapping>(session, file, MAP_SHARED | MAP_POPULATE));
    (void)madvise(const_cast<uint8_t*>(maps.back()->data()), file.size, MADV_WILLNEED);
    (void)Touch(maps.back()->data());
    session.Arrived(file);
  }
  for (const ModelFile& file : session.model().shards) {  // used where they are: the mapping is the destination
    const uint8_t* const data = maps[file.index]->data();
    for (uint64_t at = 0; at < file.size; at += kStep) {
      const uint64_t size = std::min(kStep, file.size - at);
      for (uint64_t page = 0; page < size; page += kPage) (void)Touch(data + at + page);
      session.Take(file, at, data + at, size);
    }
  }
}

}  // namespace headrace::bench
