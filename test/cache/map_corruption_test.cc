// Goal: no damage of a map makes the store give bytes that were not written: every byte of a small map is changed in every bit and to
// every interesting value; what the store then calls present or sealed must be what was present or sealed. Golden bytes of the format.
#include "fusefs/cache/map_format.h"

#include <fcntl.h>
#include <unistd.h>

#include "fusefs/base/file.h"
#include "test/cache/store_fixture.h"

namespace headrace::cache {
namespace {

class MapCorruptionTest : public StoreTest {
 protected:
  // Chunk 1 is written, the others are not.
  std::string OneChunkWritten() {
    Write(*Open(), 1);
    auto map = ReadFile(Path(".map"), 1 << 20);
    EXPECT_OK(map);
    return *map;
  }
  void PutMap(const std::string& bytes) { Put(".map", bytes); }
  void Put(const std::string& extension, const std::string& bytes) {
    ::unlink(Path(extension).c_str());  // a new file: cutting one to nothing makes ext4 flush it
    auto fd = OpenFile(Path(extension), O_WRONLY | O_CREAT | O_EXCL);
    ASSERT_OK(fd);
    ASSERT_OK(WriteFull(fd->get(), {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
  }
  // Nothing is believed, and nothing is there to be verified that was not written, unless the mark itself was changed.
  void ExpectNoLies() {
    auto result = store_->Open(spec_);
    ASSERT_OK(result);
    ContentFile& file = **result;
    EXPECT_FALSE(file.sealed());
    for (uint32_t i = 0; i < kChunks; ++i) EXPECT_NE(file.state(i), ChunkState::kPresent) << i;
    if (file.state(1) == ChunkState::kUnverified) ExpectChunk(file, 1);
  }
};

TEST_F(MapCorruptionTest, EveryChangedByteOfAMap) {
  const std::string good = OneChunkWritten();
  ASSERT_EQ(good.size(), MapSize(kChunks));
  auto data = ReadFile(Path(".data"), 1 << 20);
  ASSERT_OK(data);
  for (size_t at = 0; at < good.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xff, 0x10}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      PutMap(bad);
      Put(".data", *data);
      SCOPED_TRACE("byte " + std::to_string(at) + " xor " + std::to_string(flip));
      ExpectNoLies();
    }
  }
}

TEST_F(MapCorruptionTest, EveryLengthOfAMap) {
  const std::string good = OneChunkWritten();
  auto data = ReadFile(Path(".data"), 1 << 20);
  ASSERT_OK(data);
  for (size_t length = 0; length < good.size() + 9; ++length) {
    std::string bad = good;
    bad.resize(length, '\1');
    PutMap(bad);
    Put(".data", *data);
    ExpectNoLies();
  }
}

TEST_F(MapCorruptionTest, ChangedBytesOfASealedMap) {
  {
    auto file = Open();
    WriteAll(*file);
    ASSERT_TRUE(WaitForSeal(*file));
  }
  auto good = ReadFile(Path(".map"), 1 << 20);
  auto data = ReadFile(Path(".data"), 1 << 20);
  ASSERT_OK(good);
  ASSERT_OK(data);
  Restart();
  for (size_t at = 0; at < kMapMarksOffset; ++at) {
    std::string bad = *good;
    bad[at] = static_cast<char>(bad[at] ^ 0x20);
    PutMap(bad);
    Put(".data", *data);
    auto file = Open();
    ASSERT_TRUE(file);
    EXPECT_FALSE(file->sealed()) << at;
    for (uint32_t i = 0; i < kChunks; ++i) EXPECT_NE(file->state(i), ChunkState::kPresent) << at;
  }
}

TEST_F(MapCorruptionTest, AMapOfAnotherContentIsNotBelieved) {
  const std::string good = OneChunkWritten();
  spec_.id = Digest::Of("other");
  Open();  // makes the directory
  PutMap(good);
  EXPECT_EQ(Open()->state(1), ChunkState::kAbsent);
}

TEST_F(MapCorruptionTest, AnUnknownVersionIsBegunAnew) {
  std::string map = OneChunkWritten();
  map[8] = 2;
  PutMap(map);
  auto file = Open();
  EXPECT_EQ(file->state(1), ChunkState::kAbsent);
  Write(*file, 1);
  ExpectChunk(*file, 1);
}

// Golden: the bytes that README.md of fusefs/cache specifies.
TEST(MapFormatTest, GoldenBytes) {
  ContentSpec spec;
  spec.id = Digest::Of("a");
  spec.file_digest = Digest::Of("b");
  spec.size = 0x0102030405;
  spec.chunk_count = 0x0607;
  const MapHeader header = EncodeHeader(spec);
  EXPECT_EQ(std::string(header.begin(), header.begin() + 8), "HRCMAP\r\n");
  const std::vector<uint8_t> numbers(header.begin() + 8, header.begin() + 24);
  EXPECT_EQ(numbers, std::vector<uint8_t>({1, 0, 0, 0, 7, 6, 0, 0, 5, 4, 3, 2, 1, 0, 0, 0}));
  EXPECT_TRUE(std::equal(header.begin() + 24, header.begin() + 56, spec.id.bytes().begin()));
  EXPECT_TRUE(std::equal(header.begin() + 56, header.begin() + 88, spec.file_digest.bytes().begin()));
  Sha256 sha;
  sha.Update(spec.id.bytes());
  sha.Update(std::span(header).first(120));
  const Digest sum = sha.Finish();
  EXPECT_TRUE(std::equal(header.begin() + 120, header.end(), sum.bytes().begin()));
  EXPECT_TRUE(HeaderMatches(header, spec));
  const DataIdentity data{.inode = 0x0a0b, .modified_ns = 0x0c0d, .changed_ns = 0x0e0f};
  const MapSeal seal = EncodeSeal(spec, data);
  EXPECT_EQ(std::string(seal.begin(), seal.begin() + 8), "HRSEALED");
  const std::vector<uint8_t> of(seal.begin() + 8, seal.begin() + 56);
  EXPECT_EQ(of, std::vector<uint8_t>({5,    4,    3, 2, 1, 0, 0, 0, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0, 0x0d, 0x0c, 0, 0, 0, 0, 0, 0,
                                      0x0f, 0x0e, 0, 0, 0, 0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0}));
  EXPECT_TRUE(SealMatches(seal, spec, data));
  EXPECT_FALSE(SealIsAbsent(seal));
  EXPECT_TRUE(SealIsAbsent(MapSeal{}));
  for (const DataIdentity& other : {DataIdentity{0x0a0c, 0x0c0d, 0x0e0f}, DataIdentity{0x0a0b, 0x0c0e, 0x0e0f}, DataIdentity{0x0a0b, 0x0c0d, 0x0e10}}) {
    EXPECT_FALSE(SealMatches(seal, spec, other));
  }
  spec.size += 1;
  EXPECT_FALSE(HeaderMatches(header, spec));
  EXPECT_FALSE(SealMatches(seal, spec, data));
}

TEST(MapFormatTest, MarksDifferByContentAndIndex) {
  const uint64_t a = MarkSeed(Digest::Of("a"));
  EXPECT_NE(a, MarkSeed(Digest::Of("b")));
  EXPECT_NE(MarkOf(a, 0), MarkOf(a, 1));
  EXPECT_NE(MarkOf(a, 0), 0u);
}

}  // namespace
}  // namespace headrace::cache
