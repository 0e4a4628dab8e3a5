// LayerWriter: the blob decodes to the tar, the table of contents leads to every file's bytes, whatever the tar looks like.
#include "fusefs/format/layer_writer.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <cstdlib>

#include "fusefs/base/file.h"
#include "fusefs/format/bytes.h"
#include "fusefs/format/footer.h"
#include "fusefs/format/seek_table.h"
#include "test/format/layer_fixture.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::format::test {
namespace {

// What must hold for every layer that is written.
void ExpectSound(const std::string& tar, const Layer& layer, LayerIndex* out = nullptr) {
  auto decoded = DecodeBlob(layer.blob);
  ASSERT_OK(decoded);
  EXPECT_TRUE(*decoded == tar) << "the blob does not decode to the tar";
  EXPECT_EQ(layer.summary.diff_id, Digest::Of(tar));
  EXPECT_EQ(layer.summary.tar_size, tar.size());
  EXPECT_EQ(layer.summary.blob_digest, Digest::Of(layer.blob));
  EXPECT_EQ(layer.summary.blob_size, layer.blob.size());
  EXPECT_EQ(layer.summary.annotations.at(std::string(kTocLabel)), layer.summary.toc.ToString());
  auto location = TocLocation::Parse(layer.summary.toc.ToString());
  ASSERT_OK(location);
  auto index = ReadToc(layer.Toc(), *location);
  ASSERT_OK(index);
  for (const Entry& entry : index->entries) {
    if (entry.type != EntryType::kRegular) continue;
    auto content = ReadEntry(layer, *index, entry);
    ASSERT_OK(content);
    if (!entry.file_digest.empty()) {
      EXPECT_EQ(Digest::Of(*content), entry.file_digest) << entry.name;
    }
  }
  uint64_t wanted = 0;
  auto footer = ChunkedFooter::Find(AsBytes(layer.blob), layer.blob.size(), wanted);
  ASSERT_OK(footer);
  EXPECT_EQ(footer->toc_offset, layer.summary.toc.offset);
  auto table_size = SeekTable::FrameSize(AsBytes(layer.blob).last(9));
  ASSERT_OK(table_size);
  auto table = SeekTable::Parse(AsBytes(layer.blob).last(*table_size), layer.blob.size());
  ASSERT_OK(table);
  uint64_t total = 0;
  for (const SeekFrame& frame : table->frames) total += frame.decompressed_size;
  EXPECT_EQ(total, tar.size());
  if (out != nullptr) *out = std::move(*index);
}

// Goal: a real archive of GNU tar with files around the chunk size goes in and comes out to the byte, also through zstd(1).
TEST(LayerWriterTest, SystemTarComesBackThroughZstd) {
  headrace::test::TempDir dir;
  std::mt19937_64 random(headrace::test::TestSeed());
  std::map<std::string, std::string> files;
  for (size_t size : {0, 1, 511, 512, 513, 65535, 65536, 65537, 300000}) {
    files["w" + std::to_string(size)] = RandomWeights(random, size);
    files["r" + std::to_string(size)] = RandomBytes(random, size);
    files["z" + std::to_string(size)] = std::string(size, '\0');
  }
  ASSERT_OK(MakeDirs(dir / "in/sub/deep"));
  for (const auto& [name, content] : files) ASSERT_OK(WriteFileAtomic(dir / ("in/sub/deep/" + name), content));
  ASSERT_OK(Shell("cd " + (dir / "in") + " && ln sub/deep/w513 hard && ln -s sub/deep soft && mkfifo pipe && tar -cf ../t.tar ."));
  auto tar = ReadFile(dir / "t.tar", 1 << 30);
  ASSERT_OK(tar);
  for (size_t piece : {size_t{1} << 20, size_t{777}}) {
    auto layer = MakeLayer(*tar, SmallChunks(), piece);
    ASSERT_OK(layer);
    LayerIndex index;
    ASSERT_NO_FATAL_FAILURE(ExpectSound(*tar, *layer, &index));
    for (const auto& [name, content] : files) {
      const Entry* entry = Find(index, "sub/deep/" + name);
      ASSERT_NE(entry, nullptr) << name;
      if (entry->type == EntryType::kHardlink) continue;  // w513, if tar met "hard" first
      auto back = ReadEntry(*layer, index, *entry);
      ASSERT_OK(back);
      EXPECT_TRUE(*back == content) << name;
    }
    EXPECT_EQ(Find(index, "soft")->link_target, "sub/deep");
    EXPECT_EQ(Find(index, "pipe")->type, EntryType::kFifo);
    EXPECT_EQ(Find(index, "")->type, EntryType::kDirectory);
    ASSERT_OK(WriteFileAtomic(dir / "blob.zst", layer->blob));
    auto plain = Shell("zstd -dcq " + (dir / "blob.zst"));
    ASSERT_OK(plain);
    EXPECT_TRUE(*plain == *tar);
  }
}

// Goal: the same tar gives the same bytes, whatever the number of threads and the pieces.
TEST(LayerWriterTest, OutputDoesNotDependOnThreads) {
  std::mt19937_64 random(headrace::test::TestSeed());
  std::string tar;
  for (int i = 0; i < 20; ++i) tar += TarFile("f" + std::to_string(i), RandomWeights(random, random() % 400000));
  tar += TarEnd();
  auto first = MakeLayer(tar, SmallChunks(1));
  ASSERT_OK(first);
  ASSERT_NO_FATAL_FAILURE(ExpectSound(tar, *first));
  for (unsigned threads : {2u, 3u, 8u}) {
    auto other = MakeLayer(tar, SmallChunks(threads), 100000 + threads);
    ASSERT_OK(other);
    EXPECT_TRUE(other->blob == first->blob) << threads;
    EXPECT_EQ(other->summary.annotations, first->summary.annotations);
  }
}

// Goal: the head of a large file is in small chunks, which come in the first round trip; a file of one chunk is not cut.
TEST(LayerWriterTest, TheHeadOfALargeFileIsCutSmall) {
  std::mt19937_64 random(headrace::test::TestSeed());
  const std::string tar = TarFile("large", RandomBytes(random, 9 << 20)) + TarFile("one", RandomBytes(random, 4 << 20)) + TarEnd();
  auto layer = MakeLayer(tar, {.chunk_size = 4 << 20, .zstd_level = 3, .threads = 2});
  ASSERT_OK(layer);
  LayerIndex index;
  ASSERT_NO_FATAL_FAILURE(ExpectSound(tar, *layer, &index));
  std::vector<uint64_t> offsets;
  for (const Chunk& chunk : index.chunks) offsets.push_back(chunk.file_offset);
  std::vector<uint64_t> expected;
  for (uint64_t i = 0; i < 16; ++i) expected.push_back(i << 16);
  expected.insert(expected.end(), {1 << 20, 4 << 20, 8 << 20, 0});
  EXPECT_EQ(offsets, expected);
}

// Goal: data that does not shrink by a tenth is stored in raw blocks: size + header + 3 bytes for each 128 KiB.
TEST(LayerWriterTest, IncompressibleChunksAreRaw) {
  std::mt19937_64 random(headrace::test::TestSeed());
  const std::string tar = TarFile("r", RandomBytes(random, 1 << 20)) + TarEnd();
  auto layer = MakeLayer(tar, {.chunk_size = 1 << 20, .zstd_level = 3, .threads = 2});
  ASSERT_OK(layer);
  LayerIndex index;
  ASSERT_NO_FATAL_FAILURE(ExpectSound(tar, *layer, &index));
  ASSERT_EQ(index.chunks.size(), 1u);
  for (const Chunk& chunk : index.chunks) {
    EXPECT_EQ(chunk.blob_size, (1u << 20) + 9 + 8 * 3);
    EXPECT_EQ(static_cast<uint8_t>(layer->blob[chunk.blob_offset + 9]) & 6, 0);  // block type: raw
  }
}

// Goal: names and values beyond ustar: PAX, GNU long names, base-256 numbers, bytes that are not UTF-8.
TEST(LayerWriterTest, LongNamesAndOddHeaders) {
  const std::string deep = std::string(100, 'a') + "/" + std::string(200, 'b');
  const std::string other = "x/" + std::string(130, 'y');
  std::string tar = PaxHeader("path", deep) + TarFile("short", "pax");
  tar += TarBlock('L', "././@LongLink", other.size() + 1) + Padded(other + '\0') + TarFile("short", "gnu");
  tar += TarBlock('K', "././@LongLink", deep.size() + 1) + Padded(deep + '\0') + TarBlock('1', "hard", 0, "short");
  tar += Patched(TarBlock('0', "big-uid", 0), 108, std::string("\x80\0\0\0\0\x11\x22\x33", 8));
  tar += TarFile("caf\xe9", "latin1");
  tar += PaxHeader("SCHILY.xattr.user.k", std::string("\0\xff\n", 3)) + TarFile("xattr", "x");
  tar += PaxHeader("mtime", "1714521600.123456789") + TarFile("time", "x");
  tar += TarBlock('\0', "olddir/", 0) + TarBlock('5', "dir", 0) + TarEnd();
  auto layer = MakeLayer(tar, SmallChunks(), 333);
  ASSERT_OK(layer);
  LayerIndex index;
  ASSERT_NO_FATAL_FAILURE(ExpectSound(tar, *layer, &index));
  EXPECT_EQ(*ReadEntry(*layer, index, *Find(index, deep)), "pax");
  EXPECT_EQ(*ReadEntry(*layer, index, *Find(index, other)), "gnu");
  EXPECT_EQ(Find(index, "hard")->link_target, deep);
  EXPECT_EQ(Find(index, "big-uid")->uid, 0x112233u);
  EXPECT_EQ(*ReadEntry(*layer, index, *Find(index, "caf\xe9")), "latin1");
  EXPECT_EQ(Find(index, "xattr")->xattrs[0].first, "user.k");
  EXPECT_EQ(Find(index, "xattr")->xattrs[0].second, std::string("\0\xff\n", 3));
  EXPECT_EQ(Find(index, "time")->mtime_ns, 123456789u);
  EXPECT_EQ(Find(index, "olddir")->type, EntryType::kDirectory);
  // A name that JSON cannot say: other tools must not go by the table.
  EXPECT_EQ(layer->summary.annotations.size(), 1u);
}

// Goal: every form of sparse file that GNU tar writes reads as the file it was.
TEST(LayerWriterTest, SparseFiles) {
  headrace::test::TempDir dir;
  std::string content(400000, '\0');
  content.replace(100000, 5, "hello");
  content.replace(300000, 70000, std::string(70000, 'x'));
  ASSERT_OK(WriteFileAtomic(dir / "plain", content));
  ASSERT_OK(Shell("cd " + dir.path() + " && cp --sparse=always plain s && truncate -s 1M hole && cp s t && "
                  "for i in $(seq 0 2 60); do printf x | dd of=many bs=1 seek=$((i*65536)) conv=notrunc status=none; done"));
  for (const char* format : {"--format=gnu", "--format=posix --sparse-version=0.0", "--format=posix --sparse-version=0.1",
                             "--format=posix --sparse-version=1.0"}) {
    ASSERT_OK(Shell("cd " + dir.path() + " && tar -cSf t.tar " + format + " s hole many plain"));
    auto tar = ReadFile(dir / "t.tar", 1 << 30);
    ASSERT_OK(tar);
    auto layer = MakeLayer(*tar, SmallChunks(), 1000);
    ASSERT_OK(layer);
    LayerIndex index;
    ASSERT_NO_FATAL_FAILURE(ExpectSound(*tar, *layer, &index)) << format;
    for (const char* name : {"s", "hole", "many"}) {
      auto want = ReadFile(dir / name, 1 << 30);
      ASSERT_NE(Find(index, name), nullptr) << format;
      EXPECT_TRUE(*ReadEntry(*layer, index, *Find(index, name)) == *want) << format << " " << name;
    }
    EXPECT_EQ(layer->summary.annotations.size(), 1u);
  }
}

// Goal: of several entries of one name the last one counts, as when unpacking; other names of the first keep its content.
TEST(LayerWriterTest, LastEntryOfANameWins) {
  const std::string tar = TarFile("a", "one") + TarBlock('1', "b", 0, "a") + TarBlock('1', "c", 0, "a") + TarFile("a", "two") +
                          TarBlock('5', "d/", 0) + TarFile("d/x", "x") + TarFile("d", "file now") +
                          TarBlock('5', "e", 0) + TarFile("e/y", "y") + TarBlock('5', "./e/", 0) + TarEnd();
  auto layer = MakeLayer(tar);
  ASSERT_OK(layer);
  LayerIndex index;
  ASSERT_NO_FATAL_FAILURE(ExpectSound(tar, *layer, &index));
  EXPECT_EQ(*ReadEntry(*layer, index, *Find(index, "a")), "two");
  EXPECT_EQ(*ReadEntry(*layer, index, *Find(index, "b")), "one");
  EXPECT_EQ(Find(index, "c")->link_target, "b");
  EXPECT_EQ(*ReadEntry(*layer, index, *Find(index, "d")), "file now");
  EXPECT_EQ(Find(index, "d/x"), nullptr);
  EXPECT_NE(Find(index, "e/y"), nullptr);
  EXPECT_EQ(index.entries.size(), 6u);
  EXPECT_EQ(layer->summary.annotations.size(), 1u);
}

// Goal: odd ends are kept: none, one block, garbage behind, padding cut off; an empty tar is a layer too.
TEST(LayerWriterTest, EndsOfATar) {
  const std::string file = TarFile("a", "hello");
  for (const std::string& tar : {std::string(), TarEnd(), file, file + std::string(512, '\0'), file + TarEnd(),
                                 file + std::string(10240, '\0'), file + TarEnd() + "garbage", file.substr(0, 600),
                                 file + TarEnd() + std::string(300000, 'g')}) {
    auto layer = MakeLayer(tar, SmallChunks(), 100);
    ASSERT_OK(layer);
    ASSERT_NO_FATAL_FAILURE(ExpectSound(tar, *layer));
    EXPECT_EQ(layer->summary.annotations.size(), 4u);
  }
}

// Goal: a tar that is cut off anywhere else is refused.
TEST(LayerWriterTest, TruncatedTarsAreRefused) {
  const std::string tar = PaxHeader("path", "p") + TarFile("a", std::string(600, 'x')) + TarFile("b", "y");
  const size_t entry_ends = 1024 + 512;  // headers of "p" end here, its content 600 bytes later
  for (size_t size = 1; size < tar.size(); size += size % 512 > 508 || size % 512 < 4 ? 1 : 37) {
    auto layer = MakeLayer(tar.substr(0, size));
    const bool whole_a = size >= entry_ends + 600 && size <= entry_ends + 1024;
    const bool whole_b = size >= tar.size() - 511;
    EXPECT_EQ(layer.ok(), whole_a || whole_b) << size;
  }
}

// Goal: what is no tar, or cannot be a lazy layer, is refused with a message that names the entry.
TEST(LayerWriterTest, WhatCannotBeALayer) {
  const auto refuse = [](const std::string& tar, const std::string& part) {
    auto layer = MakeLayer(tar);
    ASSERT_FALSE(layer.ok()) << part;
    EXPECT_NE(layer.status().message().find(part), std::string::npos) << layer.status().ToString();
  };
  refuse(std::string(2000, 'x'), "checksum");
  std::string damaged = TarFile("a", "hello");
  damaged[10] = 'z';
  refuse(damaged, "checksum");
  refuse(TarFile("../a", "x"), "'..'");
  refuse(TarBlock('V', "label", 0), "'label'");
  refuse(TarFile("a", "x") + std::string(512, '\0') + TarFile("b", "x"), "single block of zeros");
  refuse(TarBlock('1', "a", 0, "a"), "hard link to itself");
  refuse(Patched(TarBlock('0', "neg", 0), 108, std::string(8, '\xff')), "this tar cannot be a lazy layer");
  refuse(Patched(TarBlock('0', "a", 0), 124, std::string(12, '\xff')), "negative size");
  refuse(TarBlock('x', "pax", 2 << 20), "extended header");
  refuse(TarBlock('x', "pax", 10) + Padded("99 a=b\n...") + TarFile("a", "x"), "PAX");
  refuse(PaxHeader("size", "1152921504606846977") + TarFile("a", "x"), "1152921504606846977 bytes");
}

// Goal: an error of the sink stops the writer and is what the caller gets; work under way is dropped.
TEST(LayerWriterTest, SinkErrorIsReturned) {
  for (int fail_at : {1, 2, 5}) {
    int calls = 0;
    auto writer = LayerWriter::Create(SmallChunks(), [&](std::span<const uint8_t>) {
      return ++calls == fail_at ? UnavailableError("registry went away") : OkStatus();
    });
    ASSERT_OK(writer);
    const std::string tar = TarFile("a", std::string(1 << 20, 'x')) + TarEnd();
    Status status = (*writer)->Write(AsBytes(tar));
    if (status.ok()) status = (*writer)->Finish().status();
    EXPECT_CODE(status, StatusCode::kUnavailable);
    EXPECT_EQ((*writer)->Write(AsBytes(tar)).code(), StatusCode::kUnavailable);
  }
}

TEST(LayerWriterTest, OptionsAreChecked) {
  const auto sink = [](std::span<const uint8_t>) { return OkStatus(); };
  EXPECT_FALSE(LayerWriter::Create({.chunk_size = 1000}, sink).ok());
  EXPECT_FALSE(LayerWriter::Create({.chunk_size = 32 << 20}, sink).ok());
  EXPECT_FALSE(LayerWriter::Create({.zstd_level = 0}, sink).ok());
  EXPECT_FALSE(LayerWriter::Create({.threads = 0}, sink).ok());
}

// Goal: the bytes of the format do not change unnoticed: a small tar, its blob and its table of contents are kept in test/corpus.
// What zstd makes of the data may differ between its versions; the rest may not, so other versions compare only the table's text
// without offsets. HEADRACE_UPDATE_GOLDEN=1 writes the files anew.
TEST(LayerWriterTest, Golden) {
  const std::string corpus = std::string(HEADRACE_TESTDATA) + "/format/";
  std::mt19937_64 random(1);
  std::string tar = TarBlock('5', "./", 0) + TarFile("./a.bin", RandomBytes(random, 70000)) +
                    TarFile("./text", "hello\n") + TarFile("./empty", "") + TarBlock('1', "./hard", 0, "./text") +
                    TarBlock('2', "./soft", 0, "text") + PaxHeader("SCHILY.xattr.user.k", "v") + TarFile("./x", "x") + TarEnd();
  auto layer = MakeLayer(tar);
  ASSERT_OK(layer);
  auto toc = DecodeBlob(AsText(layer->Toc()));
  ASSERT_OK(toc);
  if (std::getenv("HEADRACE_UPDATE_GOLDEN") != nullptr) {
    ASSERT_OK(MakeDirs(corpus, 0755));
    ASSERT_OK(WriteFileAtomic(corpus + "golden.blob", layer->blob, 0644));
    ASSERT_OK(WriteFileAtomic(corpus + "golden.toc.json", *toc, 0644));
  }
  auto blob = ReadFile(corpus + "golden.blob", 1 << 20);
  ASSERT_OK(blob);
  auto golden_toc = ReadFile(corpus + "golden.toc.json", 1 << 20);
  ASSERT_OK(golden_toc);
  if (std::string_view(ZSTD_versionString()) == "1.5.4") {
    EXPECT_TRUE(layer->blob == *blob) << "the format changed";
    EXPECT_EQ(*toc, *golden_toc);
  }
  // What was written once must be read for ever.
  auto decoded = DecodeBlob(*blob);
  ASSERT_OK(decoded);
  EXPECT_TRUE(*decoded == tar);
  uint64_t wanted = 0;
  auto footer = ChunkedFooter::Find(AsBytes(*blob), blob->size(), wanted);
  ASSERT_OK(footer);
  auto index = ParseTocJson(*golden_toc, footer->toc_offset - 8, blob->size());
  ASSERT_OK(index);
  const Layer old{*blob, {}};
  EXPECT_EQ(*ReadEntry(old, *index, *Find(*index, "text")), "hello\n");
  EXPECT_EQ(index->entries.size(), 7u);
}

}  // namespace
}  // namespace headrace::format::test
