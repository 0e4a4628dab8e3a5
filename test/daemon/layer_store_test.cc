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
    layer.blob = Digest::Of("blob");
    layer.toc = {Digest::Of("toc"), 1000, 3, 30, 2000};
    layer.image_ref = "registry.test/a \"quoted\" \xff name";
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
  layer.image_ref = "registry.test/a:b";
  ASSERT_OK(store.SaveLayer(layer, "TOC"));
  auto read = store.LoadLayer(layer.Key());
  ASSERT_OK(read);
  EXPECT_EQ(read->blob, layer.blob);
  EXPECT_EQ(read->toc.ToString(), layer.toc.ToString());
  EXPECT_EQ(read->image_ref, layer.image_ref);
  EXPECT_EQ(read->slot, 17u);
  EXPECT_EQ(*store.LoadToc(layer), "TOC");
  MountRecord mount{"12", "11", true, layer.Key(), "sha256:m", 18};
  ASSERT_OK(store.SaveMount(mount));
  auto mount_read = store.LoadMount("12");
  ASSERT_OK(mount_read);
  EXPECT_EQ(mount_read->parent_id, "11");
  EXPECT_TRUE(mount_read->above_foreign);
  EXPECT_EQ(mount_read->layer_key, layer.Key());
  EXPECT_EQ(mount_read->view_slot, 18u);
  EXPECT_EQ(*store.ListMounts(), std::vector<std::string>{"12"});
  EXPECT_EQ(*store.ListLayers(), std::vector<std::string>{layer.Key()});
  ASSERT_OK(store.DeleteMount("12"));
  ASSERT_OK(store.DeleteMount("12"));
  ASSERT_OK(store.DeleteLayer(layer.Key()));
  EXPECT_TRUE(store.ListMounts()->empty());
  EXPECT_TRUE(store.ListLayers()->empty());
  EXPECT_CODE(store.LoadMount("12"), StatusCode::kNotFound);
}

// Goal: bytes in a reference that are not UTF-8 are no reason to fail or to throw.
TEST_F(LayerStoreTest, OddReference) {
  ASSERT_OK(store.Prepare());
  ASSERT_OK(store.SaveLayer(Layer(), "TOC"));
  EXPECT_OK(store.LoadLayer(Layer().Key()));
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
