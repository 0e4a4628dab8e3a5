// TarIndexer: the table of contents that is learned from a tar is the one that our writer would have made of it, and its contents come out on the way.
#include "fusefs/format/tar_indexer.h"

#include <gtest/gtest.h>

#include "fusefs/format/bytes.h"
#include "fusefs/format/layer_writer.h"
#include "fusefs/format/limits.h"
#include "fusefs/format/seek_points.h"
#include "fusefs/format/tar_writer.h"
#include "fusefs/format/toc.h"
#include "test/format/layer_fixture.h"
#include "test/support/matchers.h"
#include "test/support/random_tree.h"
#include "test/support/temp_dir.h"

namespace headrace::format::test {
namespace {

class Collect : public ContentSink {
 public:
  Status BeginFile(uint64_t size) override {
    open_.assign(size, '\0');
    return fail_at_begin;
  }
  Status Content(uint64_t offset, std::span<const uint8_t> bytes) override {
    EXPECT_LE(offset + bytes.size(), open_.size());
    open_.replace(offset, bytes.size(), AsText(bytes));
    return OkStatus();
  }
  Status EndFile(std::span<const Chunk> chunks) override {
    uint64_t covered = 0;
    for (const Chunk& chunk : chunks) {
      EXPECT_EQ(chunk.file_offset, covered);
      covered += chunk.size;
    }
    EXPECT_EQ(covered, open_.size());
    contents.push_back(open_);
    return OkStatus();
  }
  std::vector<std::string> contents;
  Status fail_at_begin;

 private:
  std::string open_;
};

Result<TarIndexer::Learned> Learn(const std::string& tar, size_t piece, Collect& sink) {
  TarIndexer indexer(sink);
  for (size_t at = 0; at < tar.size(); at += piece) {
    HR_RETURN_IF_ERROR(indexer.Write(AsBytes(tar).subspan(at, std::min(piece, tar.size() - at))));
  }
  return indexer.Finish();
}

// What the chunks of an entry say, read from the tar.
std::string FromTar(const LayerIndex& index, const Entry& entry, const std::string& tar) {
  std::string out;
  for (uint32_t i = 0; i < entry.chunk_count; ++i) {
    const Chunk& chunk = index.chunks[entry.first_chunk + i];
    if (chunk.kind == ChunkKind::kZeros) {
      out.append(chunk.size, '\0');
      continue;
    }
    std::string bytes(chunk.size, '\0');
    EXPECT_OK(DecodeChunk(chunk, AsBytes(tar).subspan(chunk.blob_offset, chunk.blob_size), {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
    out += bytes;
  }
  return out;
}

// Goal: entries and attributes are those that LayerWriter's table has, contents those of the tar, whatever the pieces.
TEST(TarIndexerTest, LikeTheWriter) {
  const uint64_t seed = headrace::test::TestSeed();
  for (uint64_t round = 0; round < 8; ++round) {
    SCOPED_TRACE("HEADRACE_TEST_SEED=" + std::to_string(seed + round));
    for (const auto& layer : headrace::test::RandomLayers(seed + round, {.layers = 3, .entries_per_layer = 80, .file_bytes_max = 40'000})) {
      auto tar = headrace::test::ToTar(layer);
      ASSERT_OK(tar);
      std::string blob;
      auto writer = LayerWriter::Create({}, [&](std::span<const uint8_t> bytes) {
        blob += AsText(bytes);
        return OkStatus();
      });
      ASSERT_OK((*writer)->Write(AsBytes(*tar)));
      auto summary = (*writer)->Finish();
      ASSERT_OK(summary);
      auto wanted = ReadToc(AsBytes(blob).subspan(summary->toc.offset, summary->toc.compressed_size), summary->toc);
      ASSERT_OK(wanted);
      for (size_t piece : {size_t{1000}, size_t{1} << 20}) {
        Collect sink;
        auto learned = Learn(*tar, piece, sink);
        ASSERT_OK(learned);
        EXPECT_EQ(learned->diff_id, summary->diff_id);
        EXPECT_EQ(learned->tar_size, tar->size());
        auto index = ReadLearnedTable(learned->table);
        ASSERT_OK(index);
        ASSERT_EQ(index->entries.size(), wanted->entries.size());
        for (size_t i = 0; i < index->entries.size(); ++i) {
          const Entry &a = index->entries[i], &b = wanted->entries[i];
          EXPECT_EQ(a.name, b.name);
          EXPECT_EQ(a.type, b.type);
          EXPECT_EQ(a.link_target, b.link_target);
          EXPECT_EQ(a.mode, b.mode);
          EXPECT_EQ(a.uid, b.uid);
          EXPECT_EQ(a.gid, b.gid);
          EXPECT_EQ(a.mtime_s, b.mtime_s);
          EXPECT_EQ(a.mtime_ns, b.mtime_ns);
          EXPECT_EQ(a.size, b.size);
          EXPECT_EQ(a.xattrs, b.xattrs);
          if (!a.file_digest.empty()) {
            EXPECT_EQ(Digest::Of(FromTar(*index, a, *tar)), a.file_digest);
          }
        }
      }
    }
  }
}

// Goal: large files are cut at multiples of 4 MiB; each chunk has its digest.
TEST(TarIndexerTest, LargeFiles) {
  std::mt19937_64 random(headrace::test::TestSeed());
  const std::string big = RandomWeights(random, (9u << 20) + 123);
  auto tar = headrace::test::ToTar({headrace::test::File("small", "s"), headrace::test::File("big", big)});
  ASSERT_OK(tar);
  Collect sink;
  auto learned = Learn(*tar, 100'000, sink);
  ASSERT_OK(learned);
  ASSERT_EQ(sink.contents.size(), 2u);
  EXPECT_EQ(sink.contents[1], big);
  auto index = ReadLearnedTable(learned->table);
  ASSERT_OK(index);
  const Entry& entry = index->entries[1];
  ASSERT_EQ(entry.chunk_count, 3u);
  EXPECT_EQ(index->chunks[entry.first_chunk + 1].file_offset, 4u << 20);
  EXPECT_EQ(index->chunks[entry.first_chunk + 2].size, (1u << 20) + 123);
  EXPECT_EQ(FromTar(*index, entry, *tar), big);
}

// How many bytes of the tar were taken before it was refused; 0 if it was not.
size_t RefusedAfter(const std::string& tar, Status* why) {
  Collect sink;
  TarIndexer indexer(sink);
  for (size_t at = 0; at < tar.size(); at += 512) {
    *why = indexer.Write(AsBytes(tar).subspan(at, std::min<size_t>(512, tar.size() - at)));
    if (!why->ok()) return at + 512;
  }
  return 0;
}

// Goal: what no table can say is refused when its header comes, by name, and not after the whole layer was read.
TEST(TarIndexerTest, RefusesAtTheEntry) {
  using headrace::test::Device, headrace::test::File, headrace::test::Hardlink, headrace::test::Symlink;
  headrace::test::TempDir dir;
  ASSERT_OK(Shell("cd " + dir.path() + " && echo x > bad"));
  std::vector<std::string> tars;
  for (const char* option : {"uid:=4294967295", "uid:=5000000000", "gid:=4294967296"}) {
    auto tar = Shell("cd " + dir.path() + " && tar --format=posix --pax-option=" + option + " -cf - bad");
    ASSERT_OK(tar);
    tars.push_back(*tar + std::string(100'000, '\0'));
  }
  headrace::test::TreeLayer cases = {Device("bad", EntryType::kCharDevice, 5000, 1), Device("bad", EntryType::kBlockDevice, 1, 1u << 20), Symlink("bad", std::string(4096, 't')),
                         Hardlink("bad", "bad"), Hardlink("bad", "."), Hardlink("bad", "../up")};
  cases.push_back(File("bad", "x"));
  cases.back().meta.xattrs = {{"user.a", std::string(70'000, 'v')}};
  cases.push_back(File("bad", "x"));
  cases.back().meta.xattrs = {{"user.\xf0", "1"}, {"user.\xf1", "2"}};  // one name in the table
  for (const auto& bad : cases) {
    auto tar = headrace::test::ToTar({bad, File("rest", std::string(100'000, 'r'))});
    ASSERT_OK(tar);
    tars.push_back(*tar);
  }
  for (const std::string& tar : tars) {
    Status why;
    const size_t after = RefusedAfter(tar, &why);
    EXPECT_GT(after, 0u) << tar.substr(0, 200);
    EXPECT_LE(after, 80'000u);  // xattrs stand in the headers
    EXPECT_NE(why.message().find("entry 0 ('bad')"), std::string::npos) << why.ToString();
  }
  Status why;
  EXPECT_EQ(RefusedAfter(*headrace::test::ToTar({File("good", "x"), Device("d", EntryType::kCharDevice, 4095, (1u << 20) - 1)}), &why), 0u) << why.ToString();
}

// Goal: a table that would be larger than any that can be read is refused when it is known to be, not at the end.
TEST(TarIndexerTest, RefusesATableThatGrowsTooLarge) {
  headrace::test::TreeLayer some;
  for (int i = 0; i < 16; ++i) {
    some.push_back(headrace::test::File("f" + std::to_string(i), "x"));
    some.back().meta.xattrs = {{"user.a", std::string(60'000, 'v')}};
  }
  auto tar = headrace::test::ToTar(some);
  ASSERT_OK(tar);
  tar->resize(tar->size() - 1024);  // without its end, so that it can be repeated
  Collect sink;
  TarIndexer indexer(sink);
  Status status;
  uint64_t tables = 0;
  while (status.ok() && tables <= limits::kTocSizeMax) {
    status = indexer.Write(AsBytes(*tar));
    tables += 16 * 60'000;
  }
  EXPECT_CODE(status, StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("table of contents"), std::string::npos) << status.ToString();
  EXPECT_GT(tables, limits::kTocSizeMax / 2);
}

// Goal: a sparse file's holes are zeros chunks, also at its end; what is cut short or no tar is an error; an error of the sink comes back.
TEST(TarIndexerTest, SparseAndBroken) {
  headrace::test::TempDir dir;
  ASSERT_OK(Shell("cd " + dir.path() + " && truncate -s 300000 s && printf data | dd of=s bs=1 seek=100000 conv=notrunc status=none"));
  for (const char* format : {"--format=gnu", "--format=posix --sparse-version=0.1", "--format=posix --sparse-version=1.0"}) {
    auto sparse = Shell("cd " + dir.path() + " && tar --sparse " + format + " -cf - s");
    ASSERT_OK(sparse);
    Collect sink;
    auto learned = Learn(*sparse, 512, sink);
    ASSERT_OK(learned);
    auto index = ReadLearnedTable(learned->table);
    ASSERT_OK(index);
    ASSERT_EQ(index->entries.size(), 1u);
    ASSERT_EQ(sink.contents.size(), 1u);
    EXPECT_EQ(sink.contents[0].size(), 300'000u);
    EXPECT_EQ(sink.contents[0].substr(100'000, 4), "data");
    EXPECT_EQ(FromTar(*index, index->entries[0], *sparse), sink.contents[0]);
    EXPECT_GE(index->entries[0].chunk_count, 3u) << format;
  }
  auto tar = headrace::test::ToTar({headrace::test::File("f", std::string(2000, 'f'))});
  for (size_t n : {size_t{100}, size_t{513}, size_t{1500}}) {
    Collect other;
    EXPECT_CODE(Learn(tar->substr(0, n), 100, other), StatusCode::kInvalidArgument);
  }
  Collect failing;
  failing.fail_at_begin = UnavailableError("disk");
  EXPECT_CODE(Learn(*tar, 100, failing), StatusCode::kUnavailable);
  EXPECT_FALSE(ReadLearnedTable("").ok());
  EXPECT_FALSE(ReadLearnedTable("123\n{").ok());
  EXPECT_FALSE(ReadLearnedTable("x\n{\"version\":1,\"entries\":[]}").ok());
}

// Walks a tar in windows; adds to `read` what it looked at.
Result<std::string> Walk(const std::string& tar, size_t window, size_t* read) {
  TarWalk walk;
  while (!walk.at_end() && walk.position() < tar.size()) {
    const auto bytes = AsBytes(tar).subspan(walk.position(), std::min(window, tar.size() - walk.position()));
    *read += bytes.size();
    HR_RETURN_IF_ERROR(walk.Write(bytes));
  }
  return walk.Finish(tar.size());
}

// Goal: a walk finds the table that learning finds, but for the digests, which are those of nothing; contents are not looked at.
TEST(TarWalkTest, LikeLearning) {
  const uint64_t seed = headrace::test::TestSeed();
  SCOPED_TRACE("HEADRACE_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::vector<std::string> tars;
  for (const auto& layer : headrace::test::RandomLayers(seed, {.layers = 3, .entries_per_layer = 80, .file_bytes_max = 40'000})) tars.push_back(*headrace::test::ToTar(layer));
  tars.push_back(*headrace::test::ToTar({headrace::test::File("a", RandomWeights(random, (9u << 20) + 123)), headrace::test::File("b", "b"),
                                          headrace::test::File("c", RandomWeights(random, 5u << 20))}));
  headrace::test::TempDir dir;
  ASSERT_OK(Shell("cd " + dir.path() + " && truncate -s 30000000 s && printf data | dd of=s bs=1 seek=100000 conv=notrunc status=none && cp s t && echo x > n && echo y > m"));
  for (const char* format : {"--format=gnu", "--format=posix --sparse-version=0.1", "--format=posix --sparse-version=1.0"}) {
    tars.push_back(*Shell("cd " + dir.path() + " && tar --sparse " + format + " -cf - n s t m"));
  }
  for (const std::string& tar : tars) {
    Collect sink;
    auto learned = Learn(tar, 1 << 20, sink);
    ASSERT_OK(learned);
    auto wanted = ReadLearnedTable(learned->table);
    ASSERT_OK(wanted);
    for (const size_t window : {size_t{511}, size_t{512}, size_t{20'000}, size_t{64} << 20}) {
      size_t read = 0;
      auto walked = Walk(tar, window, &read);
      ASSERT_OK(walked);
      auto index = ReadLearnedTable(*walked);
      ASSERT_OK(index);
      EXPECT_EQ(CompareShapes(*index, *wanted), "");
      for (const Chunk& chunk : index->chunks) EXPECT_TRUE(chunk.kind == ChunkKind::kZeros || chunk.digest == UnknownDigest());
      if (window == 20'000 && tar.size() > (10u << 20)) {
        EXPECT_LT(read, size_t{100'000});
      }
    }
  }
}

// Goal: what differs is found; what is cut short, longer than its blob or no tar is refused.
TEST(TarWalkTest, WrongOnes) {
  auto tar = headrace::test::ToTar({headrace::test::File("f", std::string(2000, 'f')), headrace::test::File("g", "g")});
  ASSERT_OK(tar);
  size_t read = 0;
  auto index = ReadLearnedTable(*Walk(*tar, 600, &read));
  ASSERT_OK(index);
  for (size_t n : {size_t{100}, size_t{513}, size_t{1500}}) EXPECT_CODE(Walk(tar->substr(0, n), 600, &read), StatusCode::kInvalidArgument);
  EXPECT_CODE(Walk(std::string(5000, 'x'), 600, &read), StatusCode::kInvalidArgument);
  LayerIndex other = *index;
  other.entries[1].mode ^= 1;
  EXPECT_NE(CompareShapes(*index, other), "");
  other = *index;
  other.chunks[0].blob_offset += 512;
  EXPECT_NE(CompareShapes(*index, other), "");
  other = *index;
  other.entries.pop_back();
  EXPECT_NE(CompareShapes(*index, other), "");
}

// Goal: seek points come back with the table; tables of before, without them, are good; lists that nobody could have written are refused.
TEST(TarIndexerTest, SeekPointsOfATable) {
  Collect sink;
  auto learned = Learn(*headrace::test::ToTar({headrace::test::File("f", std::string(5'000'000, 'f'))}), 1 << 20, sink);
  ASSERT_OK(learned);
  auto before = ReadLearnedTable(learned->table);
  ASSERT_OK(before);
  EXPECT_TRUE(before->seek_points.empty());
  const SeekPoints points = {{100, 1'048'576}, {250, 3'000'000}, {900, 5'000'000}};
  auto with = ReadLearnedTable(WithSeekPoints(learned->table, points));
  ASSERT_OK(with);
  EXPECT_EQ(with->seek_points, points);
  EXPECT_EQ(with->entries.size(), before->entries.size());
  EXPECT_EQ(with->blob_size, before->blob_size);
  for (const char* hostile : {" ", " 1", " 1:", " :1", " 1:2:3", "  1:2", " 0:5", " 5:0", " -1:5", " 1:x", " 1:5000000000", " 1:18446744073709551615 1:2", " 1:4000000 18446744073709551615:1",
                              " 1152921504606846976:5", "\t1:2", " 1:2 ", "1:2"}) {
    std::string table = learned->table;
    table.insert(table.find('\n'), hostile);
    EXPECT_FALSE(ReadLearnedTable(table).ok()) << hostile;
  }
  std::string many;
  for (uint64_t i = 0; i <= limits::kSeekPointsMax; ++i) many += " 1:1";
  EXPECT_CODE(ReadSeekPoints(many, 1u << 30), StatusCode::kDataLoss);
  EXPECT_OK(ReadSeekPoints(many.substr(4), 1u << 30));
}

// Goal: points are a megabyte apart, further when there would be too many, and none is where nothing follows.
TEST(SeekPointCollectorTest, ThinsOut) {
  constexpr uint64_t kMiB = 1u << 20;
  SeekPointCollector few;
  for (uint64_t i = 1; i <= 100; ++i) few.Add({i * 10, i * kMiB / 4});
  ASSERT_EQ(few.Below(25 * kMiB + 1).size(), 25u);
  EXPECT_EQ(few.Below(25 * kMiB + 1).front(), (SeekPoint{40, kMiB}));
  EXPECT_EQ(few.Below(25 * kMiB).size(), 24u);
  SeekPointCollector many;
  const uint64_t count = 5 * limits::kSeekPointsMax;
  for (uint64_t i = 1; i <= count; ++i) many.Add({i, i * kMiB});
  const SeekPoints points = many.Below(UINT64_MAX);
  EXPECT_LE(points.size(), limits::kSeekPointsMax);
  EXPECT_GE(points.size(), limits::kSeekPointsMax / 2);
  SeekPoint before;
  for (const SeekPoint& point : points) {
    EXPECT_EQ(point.blob_offset * kMiB, point.decoded_offset);
    EXPECT_LE(point.decoded_offset - before.decoded_offset, 16 * kMiB);
    EXPECT_GE(point.decoded_offset - before.decoded_offset, 4 * kMiB);
    before = point;
  }
  EXPECT_GE(before.decoded_offset, (count - 16) * kMiB);
}

}  // namespace
}  // namespace headrace::format::test
