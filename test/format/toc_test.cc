// Tables of contents: what containers/storage and we write is understood, everything hostile is refused in bounded time and memory.
#include "fusefs/format/toc.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <chrono>

#include "fusefs/format/bytes.h"
#include "test/format/layer_fixture.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::format::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMany = 100000;
#else
constexpr int kMany = 1000000;
#endif
constexpr uint64_t kDataEnd = 1000000;
constexpr uint64_t kBlobSize = 1001000;

std::string Sha(char digit) { return "sha256:" + std::string(64, digit); }

std::string Doc(const std::string& entries) { return R"({"version":1,"entries":[)" + entries + "]}"; }

Result<LayerIndex> Parse(const std::string& entries) { return ParseTocJson(Doc(entries), kDataEnd, kBlobSize); }

std::string Reg(const std::string& name, uint64_t size, uint64_t begin, uint64_t end) {
  return R"({"type":"reg","name":")" + name + R"(","size":)" + std::to_string(size) + R"(,"digest":")" + Sha('a') +
         R"(","offset":)" + std::to_string(begin) + R"(,"endOffset":)" + std::to_string(end) + "}";
}

void ExpectRefused(const std::string& entries, const std::string& part) {
  auto index = Parse(entries);
  ASSERT_FALSE(index.ok()) << entries.substr(0, 300);
  EXPECT_TRUE(index.status().code() == StatusCode::kInvalidArgument ||
              index.status().code() == StatusCode::kResourceExhausted)
      << index.status().ToString();
  EXPECT_NE(index.status().message().find(part), std::string::npos) << index.status().ToString();
}

// Goal: the form that containers/storage writes: chunk entries without endOffset, times with an offset, names as in the tar.
TEST(TocTest, ReadsWhatContainersStorageWrites) {
  auto index = Parse(
      R"({"type":"dir","name":"./","mode":493,"modtime":"2024-05-01T02:00:00+02:00"},)"
      R"({"type":"reg","name":"./a/f","mode":33188,"size":100,"uid":1000,"gid":100,"modtime":"2024-05-01T00:00:00.5Z",)"
      R"("xattrs":{"user.x":"AQID"},"digest":")" + Sha('a') +
      R"(","offset":50,"endOffset":90,"chunkSize":40,"chunkDigest":")" + Sha('b') + R"("},)"
      R"({"type":"chunk","name":"./a/f","offset":60,"chunkSize":20,"chunkOffset":40,"chunkDigest":")" + Sha('c') +
      R"(","chunkType":"zeros"},)"
      R"({"type":"chunk","name":"./a/f","offset":70,"chunkSize":40,"chunkOffset":60,"chunkDigest":")" + Sha('d') + R"("},)"
      R"({"type":"hardlink","name":"h","linkName":"./a/f"},)"
      R"({"type":"symlink","name":"s","linkName":"../outside"},)"
      R"({"type":"char","name":".wh.x","devMajor":1,"devMinor":3},)"
      R"({"type":"reg","name":"empty","unknown":{"deep":[1,2,{"x":null}]},"digest":""})");
  ASSERT_OK(index);
  ASSERT_EQ(index->entries.size(), 6u);
  const Entry& file = index->entries[1];
  EXPECT_EQ(file.name, "a/f");
  EXPECT_EQ(file.mode, 0644u);
  EXPECT_EQ(file.mtime_ns, 500000000u);
  EXPECT_EQ(index->entries[0].mtime_s, file.mtime_s);
  EXPECT_EQ(file.xattrs[0].second, "\x01\x02\x03");
  ASSERT_EQ(file.chunk_count, 3u);
  EXPECT_EQ(index->chunks[0].blob_size, 10u);
  EXPECT_EQ(index->chunks[1].kind, ChunkKind::kZeros);
  EXPECT_EQ(index->chunks[2].blob_offset, 70u);
  EXPECT_EQ(index->chunks[2].blob_size, 20u);
  EXPECT_EQ(index->entries[2].link_target, "a/f");
  EXPECT_EQ(index->entries[3].link_target, "../outside");
  EXPECT_EQ(index->entries[5].chunk_count, 0u);
}

// Goal: every lie about names, places and sizes has its error.
TEST(TocTest, HostileEntriesAreRefused) {
  const std::string kBig = "1152921504606846977";  // 2^60 + 1
  ExpectRefused(Reg("../f", 10, 50, 60), "'..'");
  ExpectRefused(Reg("a/../../f", 10, 50, 60), "'..'");
  ExpectRefused(Reg("a\\u0000b", 10, 50, 60), "NUL");
  ExpectRefused(Reg(std::string(256, 'x'), 10, 50, 60), "component");
  std::string deep;
  for (int i = 0; i < 2100; ++i) deep += "a/";
  ExpectRefused(Reg(deep, 10, 50, 60), "4199 bytes");
  ExpectRefused(Reg("/", 10, 50, 60), "root");
  ExpectRefused(Reg("f", 10, kDataEnd - 5, kDataEnd + 1), "outside");
  ExpectRefused(Reg("f", 10, 60, 60), "outside");
  ExpectRefused(Reg("f", 10, 60, 50), "outside");
  ExpectRefused(Reg("f", 10, 18446744073709551615u, 5), "outside");
  ExpectRefused(Reg("f", 10, 0, 500000), "compressed bytes");
  ExpectRefused(Reg("f", 70 << 20, 0, 500000), "limit");
  ExpectRefused(R"({"type":"reg","name":"f","size":)" + kBig + "}", "too large");
  ExpectRefused(R"({"type":"reg","name":"f","size":18446744073709551616})", "wrong type");
  ExpectRefused(R"({"type":"reg","name":"f","size":-1})", "negative");
  ExpectRefused(R"({"type":"reg","name":"f","size":1.5})", "wrong type");
  ExpectRefused(R"({"type":"reg","name":"f","size":"5"})", "wrong type");
  ExpectRefused(R"({"type":"reg","name":["f"]})", "wrong type");
  ExpectRefused(R"({"type":"reg","name":"f","size":5,"offset":1,"endOffset":9})", "no digest");
  ExpectRefused(R"({"type":"reg","name":"f","size":5,"size":6})", "twice");
  ExpectRefused(R"({"type":"reg","name":"f","digest":"sha256:zz","size":5})", "digest");
  ExpectRefused(R"({"type":"reg","name":"f","uid":4294967295})", "uid");
  ExpectRefused(R"({"type":"reg","name":"f","modtime":"yesterday"})", "RFC 3339");
  ExpectRefused(R"({"type":"reg","name":"f","modtime":"2024-02-30T00:00:00Z"})", "RFC 3339");
  ExpectRefused(R"({"type":"hardlink","name":"a","linkName":"./a"})", "itself");
  ExpectRefused(R"({"type":"hardlink","name":"a","linkName":"../a"})", "'..'");
  ExpectRefused(R"({"type":"symlink","name":"a"})", "symbolic link");
  ExpectRefused(R"({"type":"door","name":"a"})", "unknown");
  ExpectRefused(R"({"name":"a"})", "unknown");
  ExpectRefused(R"({"type":"chunk","name":"a","offset":1})", "without a file");
  ExpectRefused(R"({"type":"dir","name":"a"},{"type":"chunk","name":"a","offset":1})", "without a file");
  ExpectRefused(R"({"type":"dir","name":"a"},{"type":"dir","name":"./a/"})", "same name");
  ExpectRefused(R"({"type":"reg","name":"a","xattrs":{"user.a":"!!"}})", "");
  ExpectRefused(R"({"type":"reg","name":"a","xattrs":{"":"AQID"}})", "xattr name");
  ExpectRefused(R"({"type":"reg","name":"a","xattrs":{"x":"AQID","x":"AQID"}})", "twice");
  ExpectRefused(R"({"type":"char","name":"a","devMajor":4096})", "major");
  ExpectRefused("5", "wrong type");
}

// Goal: chunks cover the file once and do not share bytes of the blob.
TEST(TocTest, ChunksMustCoverTheFileOnce) {
  const auto chunked = [](uint64_t size, std::vector<std::array<uint64_t, 4>> parts) {
    std::string out;
    for (size_t i = 0; i < parts.size(); ++i) {
      out += (i == 0 ? R"({"type":"reg","name":"f","size":)" + std::to_string(size) : R"(,{"type":"chunk","name":"f")") +
             R"(,"chunkOffset":)" + std::to_string(parts[i][0]) + R"(,"chunkSize":)" + std::to_string(parts[i][1]) +
             R"(,"offset":)" + std::to_string(parts[i][2]) + R"(,"endOffset":)" + std::to_string(parts[i][3]) +
             R"(,"chunkDigest":")" + Sha('a') + "\"}";
    }
    return out;
  };
  EXPECT_OK(Parse(chunked(30, {{0, 10, 5, 25}, {10, 20, 10, 25}})));
  ExpectRefused(chunked(30, {{0, 10, 5, 25}, {11, 19, 10, 25}}), "continue");
  ExpectRefused(chunked(30, {{0, 10, 5, 25}, {9, 21, 10, 25}}), "continue");
  ExpectRefused(chunked(30, {{0, 10, 5, 25}, {10, 19, 10, 25}}), "cover");
  ExpectRefused(chunked(30, {{0, 10, 5, 25}, {10, 21, 10, 25}}), "continue");
  ExpectRefused(chunked(30, {{0, 10, 5, 25}, {10, 18446744073709551615u, 10, 25}}), "continue");
  ExpectRefused(chunked(30, {{5, 25, 5, 25}}), "continue");
  ExpectRefused(chunked(30, {{0, 10, 5, 25}, {10, 10, 10, 20}, {20, 10, 15, 25}}), "overlap");
  ExpectRefused(Reg("a", 10, 50, 60) + "," + Reg("b", 10, 59, 70), "overlap");
  ExpectRefused(Reg("a", 10, 50, 60) + "," + Reg("b", 10, 50, 60), "overlap");
  EXPECT_OK(Parse(Reg("a", 10, 60, 70) + "," + Reg("b", 10, 50, 60)));
}

// Goal: what is not a table of contents at all.
TEST(TocTest, MalformedDocumentsAreRefused) {
  for (const char* text : {"", "{", "[]", "null", "5", "{}", R"({"version":2,"entries":[]})", R"({"entries":[]})",
                           R"({"version":1,"entries":{}})", R"({"version":1,"entries":[]}x)", "\xff\xfe",
                           R"({"version":1,"entries":[],"entries":[]})", R"({"version":1,"entries":[[]]})",
                           R"({"version":1,"entries":[{"type":"dir","name":"\ud800"}]})"}) {
    EXPECT_FALSE(ParseTocJson(text, 10, 20).ok()) << text;
  }
  EXPECT_OK(ParseTocJson(R"({"version":1,"entries":[]})", 10, 20));
  EXPECT_OK(ParseTocJson(R"({"version":1,"entries":null})", 10, 20));
}

// Goal: nesting, a million entries, and colliding names cost bounded time. The bounds are wide: sanitizers, a busy machine.
TEST(TocTest, SizeIsBounded) {
  const auto start = std::chrono::steady_clock::now();
  const std::string nested = R"({"version":1,"x":)" + std::string(2 << 20, '[');
  EXPECT_CODE(ParseTocJson(nested, 10, 20), StatusCode::kResourceExhausted);
  const std::string nested_in = R"({"version":1,"entries":[{"x":)" + std::string(2 << 20, '[');
  EXPECT_CODE(ParseTocJson(nested_in, 10, 20), StatusCode::kResourceExhausted);

  std::string many;
  for (int i = 0; i < kMany; ++i) many += R"({"type":"dir","name":")" + std::to_string(i) + "\"},";
  many.pop_back();
  auto index = Parse(many);
  ASSERT_OK(index);
  EXPECT_EQ(index->entries.size(), static_cast<size_t>(kMany));
  std::string huge(151 << 20, ' ');
  EXPECT_CODE(ParseTocJson(huge, 10, 20), StatusCode::kResourceExhausted);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(120));
}

TEST(TocTest, LocationIsParsedStrictly) {
  const std::string digest = Sha('a');
  auto location = TocLocation::Parse("v1," + digest + ",100,20,300,200");
  ASSERT_OK(location);
  EXPECT_EQ(location->ToString(), "v1," + digest + ",100,20,300,200");
  const std::vector<std::string> refused =
       {"", "v2," + digest + ",100,20,300,200", "v1," + digest + ",100,20,300",
        "v1," + digest + ",100,20,300,200,1", "v1," + digest + ",-1,20,300,200", "v1," + digest + ",7,20,300,200",
        "v1," + digest + ",100,101,300,200", "v1," + digest + ",18446744073709551615,20,300,200",
        "v1," + digest + ",100,0,300,200", "v1," + digest + ", 100,20,300,200", "v1,sha256:aa,100,20,300,200",
        "v1," + digest + ",100,20,157286401,200", "v1," + digest + ",100,20,300,1152921504606846977",
        std::string(1000, 'v')};
  for (const std::string& bad : refused) {
    EXPECT_FALSE(TocLocation::Parse(bad).ok()) << bad;
  }
}

Layer SmallLayer() {
  auto layer = MakeLayer(TarFile("a", "hello") + TarFile("b", std::string(70000, 'x')) + TarEnd());
  EXPECT_OK(layer);
  return std::move(layer).value();
}

// Goal: no bit of a table of contents can be flipped unseen; no truncation passes.
TEST(TocTest, FlippedAndTruncatedTablesAreRefused) {
  const Layer layer = SmallLayer();
  std::string toc(AsText(layer.Toc()));
  ASSERT_OK(ReadToc(AsBytes(toc), layer.summary.toc));
  for (size_t bit = 0; bit < toc.size() * 8; ++bit) {
    std::string flipped = toc;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_CODE(ReadToc(AsBytes(flipped), layer.summary.toc), StatusCode::kDataLoss);
  }
  for (size_t size = 0; size < toc.size(); ++size) {
    EXPECT_CODE(ReadToc(AsBytes(toc).first(size), layer.summary.toc), StatusCode::kDataLoss);
  }
}

// Goal: a table whose digest is right but which decodes to another size (a bomb, for one) is refused.
TEST(TocTest, TableOfAnotherSizeIsRefused) {
  const std::string json(50 << 20, ' ');
  std::vector<uint8_t> bomb(ZSTD_compressBound(json.size()));
  bomb.resize(ZSTD_compress(bomb.data(), bomb.size(), json.data(), json.size(), 1));
  TocLocation location{Digest::Of(std::span<const uint8_t>(bomb)), 8, bomb.size(), 1000, 1 << 20};
  EXPECT_CODE(ReadToc(bomb, location), StatusCode::kInvalidArgument);
  location.uncompressed_size = 60 << 20;
  EXPECT_CODE(ReadToc(bomb, location), StatusCode::kInvalidArgument);
}

// Goal: no flipped bit and no truncation of a chunk's frame gives bytes that pass.
TEST(DecodeChunkTest, DamageIsAlwaysSeen) {
  std::mt19937_64 random(headrace::test::TestSeed());
  for (const std::string& data : {std::string("tiny"), std::string(3000, 'x'), RandomBytes(random, 600)}) {
    auto layer = MakeLayer(TarFile("f", data) + TarEnd());
    ASSERT_OK(layer);
    auto index = ReadToc(layer->Toc(), layer->summary.toc);
    ASSERT_OK(index);
    const Chunk& chunk = index->chunks.at(0);
    const std::string frame = layer->blob.substr(chunk.blob_offset, chunk.blob_size);
    std::vector<uint8_t> out(chunk.size);
    ASSERT_OK(DecodeChunk(chunk, AsBytes(frame), out));
    for (size_t bit = 0; bit < frame.size() * 8; ++bit) {
      std::string flipped = frame;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
      // A bit that the decoder ignores (a reserved one) may be flipped: what counts is that the bytes are right.
      Status status = DecodeChunk(chunk, AsBytes(flipped), out);
      if (status.ok()) {
        EXPECT_EQ(AsText(out), data);
      } else {
        EXPECT_EQ(status.code(), StatusCode::kDataLoss);
      }
    }
    for (size_t size = 0; size < frame.size(); ++size) {
      EXPECT_CODE(DecodeChunk(chunk, AsBytes(frame).first(size), out), StatusCode::kDataLoss);
      Chunk shorter = chunk;
      shorter.blob_size = size;
      EXPECT_CODE(DecodeChunk(shorter, AsBytes(frame).first(size), out), StatusCode::kDataLoss);
    }
  }
}

// Goal: several frames one after the other are one chunk (containers/storage may write so); their total must fit.
TEST(DecodeChunkTest, SeveralFramesAreOneChunk) {
  std::string compressed;
  for (const char* part : {"hello ", "world"}) {
    char buffer[64];
    const size_t n = ZSTD_compress(buffer, sizeof buffer, part, std::strlen(part), 1);
    compressed.append(buffer, n);
  }
  Chunk chunk;
  chunk.size = 11;
  chunk.blob_size = compressed.size();
  chunk.digest = Digest::Of("hello world");
  std::vector<uint8_t> out(11);
  EXPECT_OK(DecodeChunk(chunk, AsBytes(compressed), out));
  EXPECT_EQ(AsText(out), "hello world");
  for (uint64_t size : {0, 5, 10, 12, 100}) {
    chunk.size = size;
    out.resize(size);
    EXPECT_CODE(DecodeChunk(chunk, AsBytes(compressed), out), StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace headrace::format::test
