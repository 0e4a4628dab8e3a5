// LayerWriter: the blob decodes to the tar, the table of contents leads to every file's bytes, whatever the tar looks like.
#include "fusefs/format/layer_writer.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace headrace::format::test
