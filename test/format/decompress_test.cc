// Decompressor: every compression that a layer may have, any split of the input, and no damage passes unseen.
#include "fusefs/format/decompress.h"

#include <gtest/gtest.h>

#include "fusefs/format/bytes.h"
#include "test/format/layer_fixture.h"
#include "test/support/compress.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::format::test {
namespace {

using headrace::test::Gzip;
using headrace::test::Zstd;

Result<std::string> Inflate(const std::string& in, size_t piece) {
  std::string out;
  auto d = Decompressor::Create([&](std::span<const uint8_t> bytes) {
    out += AsText(bytes);
    return OkStatus();
  });
  for (size_t at = 0; at < in.size(); at += piece) {
    HR_RETURN_IF_ERROR(d->Write(AsBytes(in).subspan(at, std::min(piece, in.size() - at))));
  }
  HR_RETURN_IF_ERROR(d->Finish());
  return out;
}

// Goal: each form comes out whole, whatever the pieces; members and frames in a row are one stream.
TEST(DecompressorTest, EveryForm) {
  std::mt19937_64 random(headrace::test::TestSeed());
  const std::string a = RandomWeights(random, 700001);
  const std::string b(900000, 'b');
  const std::string skippable = SkippableHeader(kSkippableMagicChunked, 3) + "abc";
  const std::pair<std::string, std::string> cases[] = {
      {a, a}, {"", ""}, {"x", "x"}, {Gzip(a), a}, {Gzip(""), ""}, {Gzip(a) + Gzip(b) + Gzip("end"), a + b + "end"},
      {Zstd(a), a}, {Zstd(""), ""}, {skippable + Zstd(a) + skippable + Zstd(b) + skippable, a + b}};
  for (const auto& [in, want] : cases) {
    for (size_t piece : {size_t{3}, size_t{4099}, size_t{1} << 26}) {
      if (piece == 3 && in.size() > 100000) continue;
      auto out = Inflate(in, piece);
      ASSERT_OK(out);
      EXPECT_TRUE(*out == want) << in.size() << " in pieces of " << piece;
    }
  }
}

// Goal: the end of every member and frame is told, whatever the pieces, and the rest can be decoded from there.
TEST(DecompressorTest, BoundariesCanBeEntered) {
  std::mt19937_64 random(headrace::test::TestSeed());
  std::vector<std::string> parts = {"x", "", RandomWeights(random, 300'001), std::string(256 << 10, 'b'), RandomWeights(random, 77'777)};
  for (const bool gzip : {true, false}) {
    std::string blob, data;
    SeekPoints wanted;
    for (const std::string& part : parts) {
      blob += gzip ? Gzip(part) : Zstd(part);
      data += part;
      wanted.push_back({blob.size(), data.size()});
      if (gzip) continue;
      blob += SkippableHeader(kSkippableMagicChunked, 3) + "abc";
      wanted.push_back({blob.size(), data.size()});
    }
    for (const size_t piece : {size_t{7}, size_t{4099}, blob.size()}) {
      SeekPoints seen;
      uint64_t passed = 0;
      auto d = Decompressor::Create(
          [&](std::span<const uint8_t> bytes) {
            passed += bytes.size();
            return OkStatus();
          },
          [&](const SeekPoint& end) {
            EXPECT_EQ(end.decoded_offset, passed);
            seen.push_back(end);
          });
      for (size_t at = 0; at < blob.size(); at += piece) ASSERT_OK(d->Write(AsBytes(blob).subspan(at, std::min(piece, blob.size() - at))));
      ASSERT_OK(d->Finish());
      EXPECT_TRUE(seen == wanted) << "gzip " << gzip << ", pieces of " << piece << ": " << seen.size() << " boundaries";
    }
    for (const SeekPoint& point : wanted) {
      auto rest = Inflate(blob.substr(point.blob_offset), 4099);
      ASSERT_OK(rest);
      EXPECT_TRUE(*rest == data.substr(point.decoded_offset)) << point.blob_offset;
    }
  }
}

// Goal: a layer of ours is a zstd stream like any other.
TEST(DecompressorTest, OurOwnLayer) {
  const std::string tar = TarFile("a", std::string(200000, 'a')) + TarEnd();
  auto layer = MakeLayer(tar);
  ASSERT_OK(layer);
  auto out = Inflate(layer->blob, 1000);
  ASSERT_OK(out);
  EXPECT_TRUE(*out == tar);
}

// Goal: truncation at every length is an error (or, between members, an honest end), and so is garbage behind the end.
TEST(DecompressorTest, TruncatedAndTrailing) {
  for (const std::string& one : {Gzip("hello hello hello"), Zstd("hello hello hello")}) {
    const std::string in = one + one;
    for (size_t size = 2; size < in.size(); ++size) {
      auto out = Inflate(in.substr(0, size), 1 << 20);
      // The first bytes alone do not say what it is: they pass as a plain stream, as any tar reader will notice.
      if (size < 4 && one[0] == '\x28') continue;
      EXPECT_EQ(out.ok(), size == one.size()) << size;
      if (!out.ok()) {
        EXPECT_EQ(out.status().code(), StatusCode::kDataLoss);
      }
    }
    EXPECT_CODE(Inflate(one + "garbage", 1 << 20), StatusCode::kDataLoss);
  }
  EXPECT_CODE(Inflate(std::string("\xFD" "7zXZ\0\0\0\0\0\0\0", 12), 100), StatusCode::kUnimplemented);
}

// Goal: headers with every optional part (names above all: gzip(1) writes them), in members in a row, cut anywhere. ISA-L 2.30 takes a header that comes in two pieces into
// the checksum of the data ("wrong checksum" of every layer that gzip(1) made).
TEST(DecompressorTest, GzipHeadersInPieces) {
  std::mt19937_64 random(headrace::test::TestSeed());
  const std::string a = RandomWeights(random, 300'000);
  const auto with = [&](uint8_t flags, const std::string& more) {
    std::string member = Gzip(a);
    member[3] = static_cast<char>(flags);
    return member.insert(10, more);
  };
  const std::string extra("\x05\0abcde", 7), name("model.tar\0", 10), comment("a comment\0", 10);
  std::string all;
  std::string want;
  for (const std::string& member : {with(8, name), with(4, extra), with(4 + 8 + 16 + 2, extra + name + comment + "xy"), with(16, comment), with(4, std::string(2, '\0'))}) {
    for (size_t piece = 1; piece < 45; ++piece) {
      auto out = Inflate(member.substr(0, 60), piece);  // as far as the header goes: no error but the end
      EXPECT_CODE(out, StatusCode::kDataLoss);
      EXPECT_EQ(out.status().message(), "compressed layer is truncated");
    }
    for (size_t piece : {size_t{1}, size_t{7}, size_t{4096}, size_t{1} << 26}) {
      auto out = Inflate(member, piece);
      ASSERT_OK(out);
      EXPECT_TRUE(*out == a);
    }
    all += member;
    want += a;
  }
  for (size_t piece : {size_t{11}, size_t{70'001}}) {
    auto out = Inflate(all, piece);
    ASSERT_OK(out);
    EXPECT_TRUE(*out == want);
  }
  EXPECT_CODE(Inflate(with(0x20, ""), 100), StatusCode::kDataLoss);
  EXPECT_CODE(Inflate(with(8, std::string(70'000, 'n')), 100), StatusCode::kDataLoss);
}

// Goal: a flipped bit in gzip (which has a checksum) is an error or harmless.
TEST(DecompressorTest, FlippedBitsInGzip) {
  const std::string in = Gzip("hello hello hello, this is text");
  for (size_t bit = 0; bit < in.size() * 8; ++bit) {
    std::string flipped = in;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    if (bit < 16) continue;  // not gzip any more
    auto out = Inflate(flipped, 1 << 20);
    if (out.ok()) {
      EXPECT_EQ(*out, "hello hello hello, this is text");
    }
  }
}

// Goal: an error of the sink stops everything and stays.
TEST(DecompressorTest, SinkErrorIsReturned) {
  const std::string in = Gzip(std::string(1 << 20, 'x'));
  auto d = Decompressor::Create([](std::span<const uint8_t>) { return UnavailableError("full"); });
  EXPECT_CODE(d->Write(AsBytes(in)), StatusCode::kUnavailable);
  EXPECT_CODE(d->Write(AsBytes(in)), StatusCode::kUnavailable);
  EXPECT_CODE(d->Finish(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace headrace::format::test
