// Presence maps of the cache, read back from the disk. Input: the data file ('0' right, '1' too short, '2' none), what is put right in the map ('1' the header, '2' and the seal), the map.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "fusefs/base/file.h"
#include "fusefs/base/little_endian.h"
#include "fusefs/cache/content_store.h"
#include "fusefs/cache/map_format.h"
#include "test/fuzz/fuzz_targets.h"
#include "test/support/temp_dir.h"

namespace headrace::fuzz {
namespace {

constexpr uint32_t kChunks = 3;
constexpr uint64_t kChunkSize = 10;

cache::ContentSpec TheContent() {
  cache::ContentSpec spec;
  spec.id = Digest::Of("content");
  spec.size = kChunks * kChunkSize;
  spec.chunk_count = kChunks;
  return spec;
}

void Write(const std::string& path, std::string_view bytes) {
  HEADRACE_CHECK(WriteFileAtomic(path, bytes, 0600, Durability::kProcessCrash).ok());
}

template <size_t kSize>
void Put(std::string& map, size_t at, const std::array<uint8_t, kSize>& bytes) {
  map.resize(std::max(map.size(), at + kSize));
  std::memcpy(map.data() + at, bytes.data(), kSize);
}

template <size_t kSize>
std::span<const uint8_t, kSize> Part(const std::string& map, size_t at) {
  return std::span<const uint8_t, kSize>(reinterpret_cast<const uint8_t*>(map.data()) + at, kSize);
}

void CheckOpened(cache::ContentFile& file, const std::string& map, const cache::DataIdentity& data, bool data_right) {
  const cache::ContentSpec spec = TheContent();
  const bool right = data_right && map.size() == cache::MapSize(kChunks) && cache::HeaderMatches(Part<cache::kMapHeaderSize>(map, 0), spec);
  const bool seal = right && cache::SealMatches(Part<cache::kMapSealSize>(map, cache::kMapSealOffset), spec, data);
  HEADRACE_CHECK(file.sealed() == seal && file.complete() == seal);
  for (uint32_t i = 0; i < kChunks; ++i) {
    const cache::ChunkState state = file.state(i);
    if (seal) {
      HEADRACE_CHECK(state == cache::ChunkState::kPresent);
      continue;
    }
    // Nothing is believed that this process did not write, and nothing is made up.
    const bool marked = right && LoadLe64(Part<cache::kMapMarkSize>(map, cache::kMapMarksOffset + i * cache::kMapMarkSize).data()) != 0;
    HEADRACE_CHECK(state == (marked ? cache::ChunkState::kUnverified : cache::ChunkState::kAbsent));
  }
}

}  // namespace

void FuzzPresenceMap(Bytes input_bytes) {
  static const test::TempDir directory;  // these are for the process: making them for each input would be most of the work
  static Metrics metrics;
  static const auto store = cache::ContentStore::Create({.root = directory.path(), .write_pause = std::chrono::milliseconds(0)}, metrics);
  HEADRACE_CHECK(store.ok());
  Input input(input_bytes);
  const cache::ContentSpec spec = TheContent();
  const std::string hex = spec.id.Hex();
  const std::string folder = directory.path() + "/" + hex.substr(0, 2) + "/" + hex.substr(2, 2);
  HEADRACE_CHECK(MakeDirs(folder).ok());
  const size_t data_state = input.Choice(3);
  const size_t mended = input.Choice(3);
  std::string map(input.Text());
  struct stat st {};
  HEADRACE_CHECK(RemoveAll(folder + "/" + hex + ".data").ok() && RemoveAll(folder + "/" + hex + ".map").ok());
  if (data_state != 2) {
    Write(folder + "/" + hex + ".data", std::string(spec.size - data_state, 'd'));
    HEADRACE_CHECK(::stat((folder + "/" + hex + ".data").c_str(), &st) == 0);
  }
  if (mended > 0) Put(map, 0, cache::EncodeHeader(spec));
  if (mended == 2) {
    Put(map, cache::kMapSealOffset, cache::EncodeSeal(spec, cache::IdentityOf(st)));
    map.resize(cache::MapSize(kChunks));
  }
  Write(folder + "/" + hex + ".map", map);
  auto file = (*store)->Open(spec);
  HEADRACE_CHECK(file.ok());
  CheckOpened(**file, map, cache::IdentityOf(st), data_state == 0);
  // It can be used, whatever was there. Not all of it: a content that becomes complete is sealed in the background.
  const std::string bytes(kChunkSize, 'n');
  if ((*file)->sealed()) return;
  (*file)->Drop(0, (*file)->state(0));
  HEADRACE_CHECK((*file)->WriteChunk(0, 0, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}).ok());
  HEADRACE_CHECK((*file)->state(0) == cache::ChunkState::kPresent && !(*file)->complete());
}

}  // namespace headrace::fuzz
