#include "fusefs/daemon/layer_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <set>

#include "fusefs/base/file.h"
#include "test/support/matchers.h"
#include "test/support/temp_dir.h"

namespace headrace::daemon {
namespace {

class LayerStoreTest : public ::testing::Test {
 protected:
  LayerRecord Layer() const {
    LayerRecord layer;
    layer.ask.blob = Digest::Of("blob");
    layer.toc = {Digest::Of("toc"), 1000, 3, 30, 2000};
    layer.ask.label = layer.toc.ToString();
    layer.ask.image_ref = "registry.test/a \"quoted\" \xff name";
    layer.slot = 17;
    return layer;
  }
  test::TempDir dir;
  LayerStore store{dir.path()};
};

// Goal: what is saved is read back, and gone when deleted.
TEST_F(LayerStoreTest, RoundTrip) {
  ASSERT_OK(store.Prepare());
  LayerRecord layer = Layer();
  layer.ask.image_ref = "registry.test/a:b";
  ASSERT_OK(store.SaveLayer(layer, "TOC"));
  auto read = store.LoadLayer(layer.ask.Key());
  ASSERT_OK(read);
  EXPECT_EQ(read->ask.blob, layer.ask.blob);
  EXPECT_EQ(read->kind, TableKind::kHeadrace);
  EXPECT_EQ(read->toc.ToString(), layer.toc.ToString());
  EXPECT_EQ(read->ask.image_ref, layer.ask.image_ref);
  EXPECT_EQ(read->slot, 17u);
  EXPECT_EQ(*store.LoadToc(layer), "TOC");
  MountRecord mount{"12", "11", true, layer.ask.Key(), "sha256:m", true, 18, "other.test/b:c"};
  ASSERT_OK(store.SaveMount(mount));
  auto mount_read = store.LoadMount("12");
  ASSERT_OK(mount_read);
  EXPECT_EQ(mount_read->parent_id, "11");
  EXPECT_TRUE(mount_read->above_foreign);
  EXPECT_EQ(mount_read->layer_key, layer.ask.Key());
  EXPECT_EQ(mount_read->view_slot, 18u);
  EXPECT_TRUE(mount_read->no_fill);
  EXPECT_EQ(mount_read->image_ref, "other.test/b:c");
  EXPECT_EQ(*store.ListMounts(), std::vector<std::string>{"12"});
  EXPECT_EQ(*store.ListLayers(), std::vector<std::string>{layer.ask.Key()});
  ASSERT_OK(store.DeleteMount("12"));
  ASSERT_OK(store.DeleteMount("12"));
  ASSERT_OK(store.DeleteLayer(layer.ask.Key()));
  EXPECT_TRUE(store.ListMounts()->empty());
  EXPECT_TRUE(store.ListLayers()->empty());
  EXPECT_CODE(store.LoadMount("12"), StatusCode::kNotFound);
}

// Goal: what each format needs to find and to verify its table survives; layers of one blob without a label differ by their manifest.
TEST_F(LayerStoreTest, EveryFormat) {
  ASSERT_OK(store.Prepare());
  LayerRecord estargz;
  estargz.ask = {Digest::Of("blob"), "", "registry.test/a:b", "sha256:m1"};
  estargz.slot = 1;
  estargz.kind = TableKind::kEstargz;
  estargz.estargz_toc = Digest::Of("json");
  estargz.estargz_offset = 12345;
  estargz.blob_size = 1ull << 40;
  LayerRecord learned;
  learned.ask = {Digest::Of("blob"), "", "registry.test/a:b", "sha256:m2"};
  learned.slot = 2;
  learned.kind = TableKind::kLearned;
  learned.table = Digest::Of("table");
  learned.diff_id = Digest::Of("tar");
  learned.decoded = true;
  ASSERT_NE(estargz.ask.Key(), learned.ask.Key());
  ASSERT_OK(store.SaveLayer(estargz, "1"));
  ASSERT_OK(store.SaveLayer(learned, "2"));
  auto read = store.LoadLayer(estargz.ask.Key());
  ASSERT_OK(read);
  EXPECT_EQ(read->kind, TableKind::kEstargz);
  EXPECT_EQ(read->estargz_toc, estargz.estargz_toc);
  EXPECT_EQ(read->estargz_offset, 12345u);
  EXPECT_EQ(read->blob_size, 1ull << 40);
  EXPECT_EQ(read->ask.manifest_digest, "sha256:m1");
  read = store.LoadLayer(learned.ask.Key());
  ASSERT_OK(read);
  EXPECT_EQ(read->kind, TableKind::kLearned);
  EXPECT_EQ(read->table, learned.table);
  EXPECT_EQ(read->diff_id, learned.diff_id);
  EXPECT_TRUE(read->decoded);
  EXPECT_EQ(*store.LoadToc(*read), "2");
}

// Goal: a learned table is kept by blob, for whatever image; a thousand of them at most; damage is an error, not a table.
TEST_F(LayerStoreTest, LearnedTables) {
  ASSERT_OK(store.Prepare());
  LayerRecord learned;
  learned.ask = {Digest::Of("blob"), "", "registry.test/a:b", "sha256:m1"};
  learned.kind = TableKind::kLearned;
  learned.table = Digest::Of("table\nwith a line");
  learned.diff_id = Digest::Of("tar");
  const LayerAsk other{learned.ask.blob, "", "registry.test/c:d", "sha256:m2"};
  std::string table;
  EXPECT_CODE(store.LoadLearned(other, &table), StatusCode::kNotFound);
  ASSERT_OK(store.KeepLearned(learned, "table\nwith a line"));
  auto read = store.LoadLearned(other, &table);
  ASSERT_OK(read);
  EXPECT_EQ(table, "table\nwith a line");
  EXPECT_EQ(read->table, learned.table);
  EXPECT_EQ(read->diff_id, learned.diff_id);
  EXPECT_EQ(read->ask.image_ref, "registry.test/c:d");
  const std::string path = dir / ("learned/" + learned.ask.blob.Hex());
  for (const char* damage : {"", "{}", "{}\n", "{\"version\":2}\ntable", "nonsense\ntable"}) {
    ASSERT_OK(WriteFileAtomic(path, damage));
    EXPECT_CODE(store.LoadLearned(other, &table), StatusCode::kDataLoss);
  }
  for (int i = 0; i < 1010; ++i) {
    learned.ask.blob = Digest::Of(std::to_string(i));
    ASSERT_OK(store.KeepLearned(learned, "t"));
  }
  size_t kept = 0;
  for (int i = 0; i < 1010; ++i) {
    learned.ask.blob = Digest::Of(std::to_string(i));
    if (store.LoadLearned(learned.ask, &table).ok()) ++kept;
  }
  EXPECT_LE(kept, 1000u);
  EXPECT_GE(kept, 990u);
}

// Goal: bytes in a reference that are not UTF-8 are no reason to fail or to throw.
TEST_F(LayerStoreTest, OddReference) {
  ASSERT_OK(store.Prepare());
  ASSERT_OK(store.SaveLayer(Layer(), "TOC"));
  EXPECT_OK(store.LoadLayer(Layer().ask.Key()));
}

// Goal: no slot is given twice, whatever restarts come between.
TEST_F(LayerStoreTest, SlotsAreNeverReused) {
  std::set<uint32_t> seen;
  for (int start = 0; start < 5; ++start) {
    LayerStore again(dir.path());
    ASSERT_OK(again.Prepare());
    for (int i = 0; i < 100 + start; ++i) {
      auto slot = again.TakeSlot();
      ASSERT_OK(slot);
      EXPECT_GT(*slot, 0u);
      EXPECT_TRUE(seen.insert(*slot).second) << *slot;
    }
  }
}

// Goal: slots that are in use count even when the counter's file was lost.
TEST_F(LayerStoreTest, LostCounter) {
  ASSERT_OK(store.Prepare());
  store.RaiseSlots(500);
  store.RaiseSlots(3);
  EXPECT_EQ(*store.TakeSlot(), 501u);
}

// Goal: the end of the numbers is an error, not slot 0.
TEST_F(LayerStoreTest, SlotsEnd) {
  ASSERT_OK(WriteFileAtomic(dir / "slots", "4294967295\n"));
  ASSERT_OK(store.Prepare());
  EXPECT_EQ(*store.TakeSlot(), 4294967295u);
  EXPECT_CODE(store.TakeSlot(), StatusCode::kResourceExhausted);
}

// Goal: damaged files are refused with an error that names them; nothing is guessed.
TEST_F(LayerStoreTest, DamagedFiles) {
  ASSERT_OK(store.Prepare());
  const std::string path = dir / "mounts/5.json";
  const std::string key(64, 'a');
  const std::vector<std::string> bad = {
      "", "{", "[]", "{\"version\":1}", "{\"version\":\"x\"}",
      R"({"version":1,"id":"6","parent_id":"","above_foreign":false,"layer":")" + key + R"(","manifest_digest":"","view_slot":1})",
      R"({"version":1,"id":"5","parent_id":"../x","above_foreign":false,"layer":")" + key + R"(","manifest_digest":"","view_slot":1})",
      R"({"version":1,"id":"5","parent_id":"","above_foreign":false,"layer":"../../etc","manifest_digest":"","view_slot":1})",
      R"({"version":1,"id":"5","parent_id":"","above_foreign":false,"layer":")" + key + R"(","manifest_digest":"","view_slot":0})",
      R"({"version":1,"id":"5","parent_id":"","above_foreign":false,"layer":")" + key + R"(","manifest_digest":"","view_slot":4294967296})",
      R"({"version":1,"id":"5","parent_id":"","above_foreign":false,"layer":")" + key + R"(","manifest_digest":"","view_slot":-1})",
      R"({"version":1,"id":"5","parent_id":"","above_foreign":false,"layer":")" + key + R"(","manifest_digest":"","view_slot":1.5})",
      R"({"version":1,"id":"5","parent_id":"","above_foreign":false,"layer":")" + key + R"(","manifest_digest":"","view_slot":1e300})",
      R"({"version":1e300,"id":"5"})",
      std::string(10'000, '['),
  };
  for (const std::string& text : bad) {
    ASSERT_OK(WriteFileAtomic(path, text));
    EXPECT_CODE(store.LoadMount("5"), StatusCode::kDataLoss);
  }
  ASSERT_OK(WriteFileAtomic(path, "{\"version\":2}"));
  EXPECT_CODE(store.LoadMount("5"), StatusCode::kFailedPrecondition);
  for (const char* text : {"", "x", "-1", "0", "99999999999999999999"}) {
    ASSERT_OK(WriteFileAtomic(dir / "slots", text));
    EXPECT_CODE(LayerStore(dir.path()).Prepare(), StatusCode::kDataLoss);
  }
}

// Goal: files of others in the directories, and what a crash left, are not taken for mounts.
TEST_F(LayerStoreTest, ForeignFiles) {
  ASSERT_OK(store.Prepare());
  for (const std::string name : {"mounts/x.json", "mounts/5", "mounts/5.json.tmp.1.2", "layers/short", "mounts/..json"}) {
    ASSERT_OK(WriteFileAtomic(dir / name, "?"));
  }
  ASSERT_OK(store.Prepare());
  EXPECT_TRUE(store.ListMounts()->empty());
  EXPECT_TRUE(store.ListLayers()->empty());
  struct stat st;
  EXPECT_NE(::stat((dir / "mounts/5.json.tmp.1.2").c_str(), &st), 0);
}

}  // namespace
}  // namespace headrace::daemon
