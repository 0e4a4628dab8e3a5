// eStargz: footers and tables as its writers make them, and as they might be made to harm us. The layers here are put together byte by byte from the format's description;
// integration/tests/format-oracle reads layers that other tools wrote.
#include "fusefs/format/estargz.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fusefs/base/text.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/layer_formats.h"
#include "fusefs/format/tar_writer.h"
#include "fusefs/format/toc.h"
#include "test/format/layer_fixture.h"
#include "test/support/compress.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::format::test {
namespace {

using Json = nlohmann::json;

std::string Member(const std::string& data) { return headrace::test::Gzip(data, 1); }

std::string Footer(uint64_t offset, bool legacy = false) {
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016lx", offset);
  std::string payload = std::string(hex) + "STARGZ";
  std::string out("\x1f\x8b\x08\x04\0\0\0\0\0\xff", 10);
  if (!legacy) payload = std::string("SG\x16\0", 4) + payload;
  out += std::string(1, static_cast<char>(payload.size())) + std::string(1, '\0') + payload;
  return out + std::string("\x01\0\0\xff\xff\0\0\0\0\0\0\0\0", 13);
}

std::string TocTar(const std::string& json, const std::string& name = "stargz.index.json") {
  std::string tar;
  TarWriter writer([&](std::span<const uint8_t> bytes) {
    tar += AsText(bytes);
    return OkStatus();
  });
  Entry entry;
  entry.name = name;
  entry.mode = 0444;
  entry.size = json.size();
  EXPECT_OK(writer.Add(entry));
  EXPECT_OK(writer.Data(AsBytes(json)));
  EXPECT_OK(writer.Finish());
  return tar;
}

// A layer as stargz writers make one: each file's content begins a gzip member, which goes on with what follows the content in the tar.
struct Made {
  std::string blob;
  uint64_t toc_offset = 0;
  Digest toc;
  std::map<std::string, std::string> files;

  std::span<const uint8_t> Table(uint64_t footer = kEstargzFooterSize) const {
    return AsBytes(blob).subspan(toc_offset, blob.size() - footer - toc_offset);
  }
};

Json File(const std::string& name, uint64_t size, const std::string& content, uint64_t offset) {
  return {{"name", name}, {"type", "reg"}, {"size", size}, {"mode", 0100644}, {"modtime", "2020-01-02T03:04:05Z"}, {"offset", offset},
          {"digest", Digest::Of(content).ToString()}, {"chunkDigest", Digest::Of(content).ToString()}, {"NumLink", 0}, {"userName", "root"}};
}

void Close(Made& made, const Json& entries) {
  const std::string json = Json{{"version", 1}, {"entries", entries}}.dump();
  made.toc = Digest::Of(json);
  made.toc_offset = made.blob.size();
  made.blob += Member(TocTar(json)) + Footer(made.toc_offset);
}

Made MakeLayer() {
  Made made;
  std::mt19937_64 random(headrace::test::TestSeed());
  const std::string padding(700, '\0');
  made.files["one"] = RandomWeights(random, 5000);
  made.files["big"] = RandomWeights(random, 300'000);
  made.files["p1"] = "packed one";
  made.files["p2"] = RandomWeights(random, 3000);
  made.blob = Member("tar headers before the first content");
  Json entries = Json::array();
  entries.push_back({{"name", "d/"}, {"type", "dir"}, {"mode", 040755}, {"modtime", "2020-01-02T03:04:05Z"}, {"uid", 100000}, {"xattrs", {{"user.a", "dg=="}}}});
  entries.push_back(File("one", 5000, made.files["one"], made.blob.size()));
  made.blob += Member(made.files["one"] + padding);
  const std::string& big = made.files["big"];
  for (size_t at = 0; at < big.size(); at += 128 << 10) {
    const std::string piece = big.substr(at, 128 << 10);
    Json part = at == 0 ? File("big", big.size(), big, made.blob.size()) : Json{{"name", "big"}, {"type", "chunk"}, {"offset", made.blob.size()}};
    part["chunkDigest"] = Digest::Of(piece).ToString();
    part["chunkOffset"] = at;
    if (at + piece.size() < big.size()) part["chunkSize"] = piece.size();  // the last one goes to the end of the file
    entries.push_back(part);
    made.blob += Member(piece + (at + piece.size() == big.size() ? padding : ""));
  }
  // Small files together in one member (--estargz-min-chunk-size).
  const std::string packed = made.files["p1"] + padding + made.files["p2"];
  entries.push_back(File("p1", made.files["p1"].size(), made.files["p1"], made.blob.size()));
  entries.push_back(File("p2", 3000, made.files["p2"], made.blob.size()));
  entries.back()["innerOffset"] = made.files["p1"].size() + padding.size();
  made.blob += Member(packed + padding);
  entries.push_back(File(".no.prefetch.landmark", 1, "\xf", made.blob.size()));
  made.blob += Member("\xf" + padding);
  entries.push_back({{"name", "l"}, {"type", "hardlink"}, {"linkName", "one"}});
  entries.push_back({{"name", "s"}, {"type", "symlink"}, {"linkName", "../x"}, {"mode", 0777}});
  Close(made, entries);
  return made;
}

// Goal: every file comes out by its table, small files in one member and large ones in several too; eStargz's own files are not shown.
TEST(EstargzTest, ReadsLayers) {
  const Made made = MakeLayer();
  auto footer = ParseEstargzFooter(made.blob);
  ASSERT_OK(footer);
  EXPECT_EQ(footer->toc_offset, made.toc_offset);
  EXPECT_EQ(footer->size, 51u);
  auto index = ReadEstargzToc(made.Table(), made.toc, made.toc_offset, made.blob.size());
  ASSERT_OK(index);
  ASSERT_EQ(index->entries.size(), 7u);
  EXPECT_EQ(index->entries[0].name, "d");
  EXPECT_EQ(index->entries[0].mode, 0755u);
  EXPECT_EQ(index->entries[0].uid, 100000u);
  EXPECT_EQ(index->entries[0].xattrs.at(0).second, "v");
  EXPECT_EQ(index->entries[5].link_target, "one");
  size_t seen = 0;
  for (const Entry& entry : index->entries) {
    if (entry.type != EntryType::kRegular) continue;
    std::string content;
    for (uint32_t i = 0; i < entry.chunk_count; ++i) {
      const Chunk& chunk = index->chunks[entry.first_chunk + i];
      EXPECT_EQ(chunk.codec, Codec::kGzip);
      std::string out(chunk.size, '\0');
      ASSERT_OK(DecodeChunk(chunk, AsBytes(made.blob).subspan(chunk.blob_offset, chunk.blob_size), {reinterpret_cast<uint8_t*>(out.data()), out.size()}));
      content += out;
    }
    EXPECT_EQ(content, made.files.at(entry.name)) << entry.name;
    ++seen;
  }
  EXPECT_EQ(seen, 4u);
}

// Goal: the footer of the time before subfields is read; anything else is refused.
TEST(EstargzTest, Footers) {
  const std::string legacy = std::string(100, 'x') + Footer(0x1234, true);
  auto footer = ParseEstargzFooter(legacy);
  ASSERT_OK(footer);
  EXPECT_EQ(footer->toc_offset, 0x1234u);
  EXPECT_EQ(footer->size, 47u);
  const std::string good = Footer(0xabcdef);
  ASSERT_EQ(good.size(), 51u);
  for (size_t i = 0; i < 38; ++i) {  // the empty block and its checksum say nothing
    if (i >= 4 && i < 10) continue;  // neither do time, flags and system of gzip
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x40);
    auto parsed = ParseEstargzFooter(bad);
    EXPECT_TRUE(!parsed.ok() || parsed->toc_offset != 0xabcdef) << i;
  }
  for (size_t n = 0; n < good.size(); ++n) EXPECT_CODE(ParseEstargzFooter(good.substr(0, n)), StatusCode::kInvalidArgument);
}

// Goal: damage at any place of the table is an error; it never gives another table.
TEST(EstargzTest, DamagedTable) {
  const Made made = MakeLayer();
  const auto table = made.Table();
  for (size_t i = 0; i < table.size(); i += 1 + i % 7) {
    std::vector<uint8_t> bad(table.begin(), table.end());
    bad[i] ^= 1;
    auto index = ReadEstargzToc(bad, made.toc, made.toc_offset, made.blob.size());
    if (index.ok()) {
      // Bits that say nothing (time in the header of the member, lengths of codes that are not used): the JSON is the one of the digest.
      EXPECT_EQ(index->entries.size(), 7u) << i;
    }
  }
  for (size_t n = 0; n < table.size(); n += 17) EXPECT_FALSE(ReadEstargzToc(table.first(n), made.toc, made.toc_offset, made.blob.size()).ok());
  EXPECT_CODE(ReadEstargzToc(table, Digest::Of("other"), made.toc_offset, made.blob.size()), StatusCode::kDataLoss);
}

// Goal: tables that are right by digest and wrong in what they say are refused, with the entry named, and cost nothing.
TEST(EstargzTest, HostileTables) {
  const std::string d = Digest::Of("x").ToString();
  const std::vector<std::pair<const char*, Json>> cases = {
      {"outside the blob", {{{"name", "f"}, {"type", "reg"}, {"size", 1}, {"offset", 1ull << 50}, {"chunkDigest", d}}}},
      {"no digest", {{{"name", "f"}, {"type", "reg"}, {"size", 1}, {"offset", 0}}}},
      {"huge", {{{"name", "f"}, {"type", "reg"}, {"size", 1ull << 59}, {"offset", 0}, {"chunkDigest", d}}}},
      {"inner offset", {{{"name", "f"}, {"type", "reg"}, {"size", 1}, {"offset", 0}, {"innerOffset", 1ull << 40}, {"chunkDigest", d}}}},
      {"climbs", {{{"name", "../f"}, {"type", "reg"}, {"size", 0}}}},
      {"chunks do not cover", {{{"name", "f"}, {"type", "reg"}, {"size", 10}, {"chunkSize", 3}, {"offset", 0}, {"chunkDigest", d}}}},
      {"twice", {{{"name", "f"}, {"type", "reg"}}, {{"name", "./f"}, {"type", "reg"}}}},
      {"negative", {{{"name", "f"}, {"type", "reg"}, {"size", -1}}}},
  };
  for (const auto& [name, entries] : cases) {
    Made made;
    made.blob = std::string(100, 'x');
    Close(made, entries);
    auto index = ReadEstargzToc(made.Table(), made.toc, made.toc_offset, made.blob.size());
    EXPECT_FALSE(index.ok()) << name;
  }
  // The table under another name, twice, or a bomb.
  const std::string json = R"({"version":1,"entries":[]})";
  EXPECT_FALSE(ReadEstargzToc(AsBytes(Member(TocTar(json, "index.json"))), Digest::Of(json), 0, 100).ok());
  EXPECT_CODE(ReadEstargzToc(AsBytes(Member(std::string(200 << 20, '\0'))), Digest::Of(json), 0, 100), StatusCode::kResourceExhausted);
}

// Goal: a chunk of a member is refused when the member is damaged before it, ends too soon, or holds other bytes.
TEST(EstargzTest, DamagedMembers) {
  const std::string before(1000, 'b'), content = "the content";
  const std::string member = Member(before + content + "after");
  Chunk chunk;
  chunk.size = content.size();
  chunk.blob_size = member.size();
  chunk.codec = Codec::kGzip;
  chunk.inner_offset = 1000;
  chunk.digest = Digest::Of(content);
  std::vector<uint8_t> out(content.size());
  EXPECT_OK(DecodeChunk(chunk, AsBytes(member), out));
  chunk.inner_offset = 1001;
  EXPECT_CODE(DecodeChunk(chunk, AsBytes(member), out), StatusCode::kDataLoss);
  chunk.inner_offset = 2000;
  EXPECT_CODE(DecodeChunk(chunk, AsBytes(member), out), StatusCode::kDataLoss);
  chunk.inner_offset = 1000;
  for (size_t i = 10; i + 16 < member.size(); ++i) {
    std::string bad = member;
    bad[i] = static_cast<char>(bad[i] ^ 4);
    if (DecodeChunk(chunk, AsBytes(bad), out).ok()) {
      EXPECT_EQ(AsText(std::span<const uint8_t>(out)), content);
    }
  }
}

// Goal: raw chunks are their bytes, compared with their digest.
TEST(EstargzTest, RawChunks) {
  Chunk chunk;
  chunk.size = chunk.blob_size = 5;
  chunk.codec = Codec::kRaw;
  chunk.digest = Digest::Of("hello");
  std::vector<uint8_t> out(5);
  EXPECT_OK(DecodeChunk(chunk, AsBytes(std::string_view("hello")), out));
  EXPECT_CODE(DecodeChunk(chunk, AsBytes(std::string_view("hellO")), out), StatusCode::kDataLoss);
  EXPECT_CODE(DecodeChunk(chunk, AsBytes(std::string_view("hell")), out), StatusCode::kDataLoss);
}

// Goal: annotations say which table there is; ours before others', and nonsense is an error instead of a guess.
TEST(LayerFormatsTest, ByAnnotation) {
  const std::string sum = Digest::Of("t").ToString();
  const std::string p = "io.github.containers.zstd-chunked.";
  using Map = std::map<std::string, std::string>;
  EXPECT_EQ(FormatOf({}, 100)->format, LayerFormat::kNone);
  EXPECT_EQ(FormatOf({{p + "manifest-checksum", sum}}, 100)->format, LayerFormat::kNone);
  Map chunked = {{p + "manifest-checksum", sum}, {p + "manifest-position", "50:10:20:1"}};
  auto hint = FormatOf(chunked, 100);
  ASSERT_OK(hint);
  EXPECT_EQ(hint->format, LayerFormat::kZstdChunked);
  EXPECT_EQ(hint->toc.ToString(), "v1," + sum + ",50,10,20,100");
  EXPECT_EQ(FormatOf({{"io.containers.zstd-chunked.manifest-checksum", sum}, {"io.containers.zstd-chunked.manifest-position", "50:10:20:1"}}, 100)->format,
            LayerFormat::kZstdChunked);
  chunked[std::string(kTocLabel)] = "v1," + sum + ",60,10,20,100";
  EXPECT_EQ(FormatOf(chunked, 100)->format, LayerFormat::kHeadrace);
  EXPECT_CODE(FormatOf(chunked, 101), StatusCode::kInvalidArgument);
  for (const char* bad : {"", "50:10:20", "50:10:20:2", "50:10:20:1:1", "-1:10:20:1", "95:10:20:1", "0:10:20:1", "50:0:20:1", "x"}) {
    EXPECT_FALSE(FormatOf({{p + "manifest-checksum", sum}, {p + "manifest-position", bad}}, 100).ok()) << bad;
  }
  EXPECT_FALSE(FormatOf({{p + "manifest-checksum", "md5:1"}, {p + "manifest-position", "50:10:20:1"}}, 100).ok());
  EXPECT_EQ(FormatOf({{std::string(kEstargzTocAnnotation), sum}}, 100)->estargz_toc, Digest::Of("t"));
  EXPECT_FALSE(FormatOf({{std::string(kEstargzTocAnnotation), "sha256:1"}}, 100).ok());
}

}  // namespace
}  // namespace headrace::format::test
