#include "fusefs/cache/map_format.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "fusefs/base/little_endian.h"

namespace headrace::cache {
namespace {

constexpr std::string_view kHeaderMagic = "HRCMAP\r\n";  // 8 bytes; the line end shows a text-mode copy
constexpr std::string_view kSealMagic = "HRSEALED";
constexpr size_t kSealChecksumAt = kMapSealSize - 8;
constexpr size_t kHeaderChecksumAt = kMapHeaderSize - 8;

// The first 8 bytes of the SHA-256 of what stands before it.
void PutChecksum(std::span<uint8_t> bytes, size_t at, const Digest& salt) {
  Sha256 sha;
  sha.Update(salt.bytes());
  sha.Update(bytes.first(at));
  std::memcpy(bytes.data() + at, sha.Finish().bytes().data(), 8);
}

}  // namespace

MapHeader EncodeHeader(const ContentSpec& spec) {
  MapHeader out{};
  std::memcpy(out.data(), kHeaderMagic.data(), kHeaderMagic.size());
  StoreLe32(out.data() + 8, kMapVersion);
  StoreLe32(out.data() + 12, spec.chunk_count);
  StoreLe64(out.data() + 16, spec.size);
  std::memcpy(out.data() + 24, spec.id.bytes().data(), Digest::kSize);
  std::memcpy(out.data() + 56, spec.file_digest.bytes().data(), Digest::kSize);
  PutChecksum(out, kHeaderChecksumAt, spec.id);
  return out;
}

bool HeaderMatches(std::span<const uint8_t, kMapHeaderSize> bytes, const ContentSpec& spec) {
  ContentSpec stored = spec;
  std::array<uint8_t, Digest::kSize> file_digest;
  std::memcpy(file_digest.data(), bytes.data() + 56, Digest::kSize);
  stored.file_digest = Digest(file_digest);
  const MapHeader expected = EncodeHeader(stored);
  return std::equal(bytes.begin(), bytes.end(), expected.begin());
}

DataIdentity IdentityOf(const struct stat& st) {
  constexpr int64_t kSecond = 1'000'000'000;
  return {.inode = st.st_ino, .modified_ns = st.st_mtim.tv_sec * kSecond + st.st_mtim.tv_nsec, .changed_ns = st.st_ctim.tv_sec * kSecond + st.st_ctim.tv_nsec};
}

MapSeal EncodeSeal(const ContentSpec& spec, const DataIdentity& data) {
  MapSeal out{};
  std::memcpy(out.data(), kSealMagic.data(), kSealMagic.size());
  StoreLe64(out.data() + 8, spec.size);
  StoreLe64(out.data() + 16, data.inode);
  StoreLe64(out.data() + 24, static_cast<uint64_t>(data.modified_ns));
  StoreLe64(out.data() + 32, static_cast<uint64_t>(data.changed_ns));
  PutChecksum(out, kSealChecksumAt, spec.id);
  return out;
}

bool SealMatches(std::span<const uint8_t, kMapSealSize> bytes, const ContentSpec& spec, const DataIdentity& data) {
  const MapSeal expected = EncodeSeal(spec, data);
  return std::equal(bytes.begin(), bytes.end(), expected.begin());
}

bool SealIsAbsent(std::span<const uint8_t, kMapSealSize> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

uint64_t MarkSeed(const Digest& id) {
  Sha256 sha;
  sha.Update(std::string_view("headrace presence mark 1\n"));
  sha.Update(id.bytes());
  return LoadLe64(sha.Finish().bytes().data());
}

uint64_t MarkOf(uint64_t seed, uint32_t index) {
  // The finaliser of SplitMix64: every bit of seed and index moves every bit of the mark.
  uint64_t x = seed + (uint64_t{index} + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  return x == 0 ? 1 : x;
}

}  // namespace headrace::cache
