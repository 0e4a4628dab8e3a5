// Seek table, footer, CRC-64, times, names: the small formats.
#include <gtest/gtest.h>

#include "fusefs/format/bytes.h"
#include "fusefs/format/crc64.h"
#include "fusefs/format/footer.h"
#include "fusefs/format/name.h"
#include "fusefs/format/rfc3339.h"
#include "fusefs/format/seek_table.h"
#include "test/format/layer_fixture.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::format::test {
namespace {

TEST(Crc64Test, KnownValues) {
  Crc64 crc;
  EXPECT_EQ(crc.value(), 0u);
  crc.Update(AsBytes("123456789"));
  EXPECT_EQ(crc.value(), 0xb90956c775a41001u);  // the catalogue's check value of CRC-64/GO-ISO
  crc.Reset();
  for (char c : std::string("123456789")) crc.Update(AsBytes(std::string_view(&c, 1)));
  EXPECT_EQ(crc.value(), 0xb90956c775a41001u);
}

// Goal: folding gives what the tables give, for every length around its strides and in any pieces.
TEST(Crc64Test, FoldingIsTheSameAsTables) {
  std::mt19937_64 random(headrace::test::TestSeed());
  const std::string data = RandomBytes(random, 3000);
  for (size_t size = 0; size <= data.size(); ++size) {
    Crc64 folded;
    Crc64 by_tables(Crc64::Engine::kTables);
    const size_t cut = random() % (size + 1);
    for (Crc64* crc : {&folded, &by_tables}) {
      crc->Update(AsBytes(data).first(cut));
      crc->Update(AsBytes(data).subspan(cut, size - cut));
    }
    ASSERT_EQ(folded.value(), by_tables.value()) << size << " bytes, cut at " << cut;
  }
}

TEST(SeekTableTest, RoundTripAndLayout) {
  SeekTable table;
  table.frames = {{10, 100, {}}, {20, 0, {}}};
  auto text = table.Serialize();
  ASSERT_OK(text);
  EXPECT_EQ(text->size(), 8u + 16 + 9);
  EXPECT_EQ(LoadLe32(AsBytes(*text).data()), 0x184D2A5Eu);
  EXPECT_EQ(LoadLe32(AsBytes(*text).last(4).data()), 0x8F92EAB1u);
  auto back = SeekTable::Parse(AsBytes(*text), 30 + text->size());
  ASSERT_OK(back);
  ASSERT_EQ(back->frames.size(), 2u);
  EXPECT_EQ(back->frames[0].decompressed_size, 100u);
  EXPECT_CODE(SeekTable::Parse(AsBytes(*text), 31 + text->size()), StatusCode::kInvalidArgument);
}

// Goal: no flipped bit and no truncation of a table gives another table that passes unnoticed with other offsets.
TEST(SeekTableTest, DamageIsRefusedOrHarmless) {
  SeekTable table;
  table.frames = {{10, 100, {}}, {20, 0, {}}, {30, 5000, {}}};
  const std::string text = *table.Serialize();
  const uint64_t blob_size = 60 + text.size();
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    auto back = SeekTable::Parse(AsBytes(flipped), blob_size);
    if (!back.ok()) continue;  // what passes: decoded sizes (no digest covers them), and the two unused bits
    ASSERT_EQ(back->frames.size(), 3u);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(back->frames[i].compressed_size, table.frames[i].compressed_size);
  }
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_FALSE(SeekTable::Parse(AsBytes(text).first(size), blob_size).ok());
    EXPECT_FALSE(SeekTable::Parse(AsBytes(text).last(size), blob_size).ok());
  }
}

TEST(SeekTableTest, HostileFootersAreRefused) {
  std::string footer("\xff\xff\xff\xff\x00\xb1\xea\x92\x8f", 9);
  EXPECT_CODE(SeekTable::FrameSize(AsBytes(footer)), StatusCode::kResourceExhausted);
  footer.replace(0, 4, std::string("\x02\0\0\0", 4));
  auto size = SeekTable::FrameSize(AsBytes(footer));
  ASSERT_OK(size);
  EXPECT_EQ(*size, 8u + 16 + 9);
  footer[4] = '\x80';
  EXPECT_EQ(*SeekTable::FrameSize(AsBytes(footer)), 8u + 24 + 9);
  footer[4] = '\x04';
  EXPECT_CODE(SeekTable::FrameSize(AsBytes(footer)), StatusCode::kInvalidArgument);
}

TEST(FooterTest, FoundWithAndWithoutSeekTable) {
  auto layer = MakeLayer(TarFile("a", "hello") + TarEnd());
  ASSERT_OK(layer);
  const uint64_t size = layer->blob.size();
  uint64_t wanted = 0;
  EXPECT_CODE(ChunkedFooter::Find(AsBytes(layer->blob).last(50), size, wanted), StatusCode::kOutOfRange);
  ASSERT_GT(wanted, 72u);
  auto footer = ChunkedFooter::Find(AsBytes(layer->blob).last(wanted), size, wanted);
  ASSERT_OK(footer);
  EXPECT_EQ(footer->toc_offset, layer->summary.toc.offset);
  EXPECT_EQ(footer->toc_compressed_size, layer->summary.toc.compressed_size);
  const uint64_t table = *SeekTable::FrameSize(AsBytes(layer->blob).last(9));
  footer = ChunkedFooter::Find(AsBytes(layer->blob).first(size - table), size - table, wanted);
  EXPECT_OK(footer);
  for (size_t n = 0; n < 72; ++n) {
    EXPECT_FALSE(ChunkedFooter::Find(AsBytes(layer->blob).first(n), n, wanted).ok());
  }
  // Any flipped bit of the 64 bytes: refused, or it points inside the blob (the digest of the table decides then).
  const std::string bytes = ChunkedFooter{*footer}.Serialize();
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    auto parsed = ChunkedFooter::Parse(AsBytes(flipped), size);
    if (parsed.ok()) {
      EXPECT_LE(parsed->toc_offset + parsed->toc_compressed_size, size);
    }
  }
}

TEST(Rfc3339Test, RoundTrips) {
  for (TarTime time : {TarTime{0, 0}, TarTime{1714521600, 1}, TarTime{1714521600, 120000000}, TarTime{-1, 999999999},
                       TarTime{kRfc3339Min, 0}, TarTime{kRfc3339Max, 999999999}}) {
    auto back = ParseRfc3339(FormatRfc3339(time));
    ASSERT_OK(back);
    EXPECT_EQ(*back, time) << FormatRfc3339(time);
  }
  EXPECT_EQ(FormatRfc3339({1714521600, 120000000}), "2024-05-01T00:00:00.12Z");
  EXPECT_EQ(ParseRfc3339("2024-05-01T00:00:00-05:30")->seconds, 1714521600 + 19800);
  for (const char* bad : {"", "2024", "2024-05-01 00:00:00Z", "2024-13-01T00:00:00Z", "2024-05-01T24:00:00Z",
                          "2024-05-01T00:00:00", "2024-05-01T00:00:00.Z", "2024-05-01T00:00:00+2:00",
                          "2024-05-01T00:00:00Zx", "-024-05-01T00:00:00Z"}) {
    EXPECT_FALSE(ParseRfc3339(bad).ok()) << bad;
  }
}

TEST(NameTest, Clean) {
  EXPECT_EQ(*CleanName("./a//b/./c/"), "a/b/c");
  EXPECT_EQ(*CleanName("/"), "");
  EXPECT_EQ(*CleanName("./"), "");
  EXPECT_EQ(*CleanName("..."), "...");
  EXPECT_FALSE(CleanName("a/..").ok());
  EXPECT_FALSE(CleanName("..").ok());
  EXPECT_FALSE(CleanName(std::string_view("a\0b", 3)).ok());
  EXPECT_OK(CleanName(std::string(255, 'x')));
  EXPECT_FALSE(CleanName(std::string(256, 'x')).ok());
}

}  // namespace
}  // namespace headrace::format::test
