// What headrace-fused reads back from its disk: records of layers and mounts, learned tables, the slot counter. Input: which of them, the file.
#include <string>

#include "fusefs/base/file.h"
#include "fusefs/daemon/layer_store.h"
#include "fusefs/format/tar_indexer.h"
#include "test/fuzz/check_index.h"
#include "test/fuzz/fuzz_targets.h"
#include "test/support/temp_dir.h"

namespace headrace::fuzz {
namespace {

// The layer that the records of the corpus are of.
daemon::LayerAsk TheLayer() {
  daemon::LayerAsk ask;
  ask.blob = Digest::Of("blob");
  ask.image_ref = "registry.example/model:1";
  ask.manifest_digest = Digest::Of("manifest").ToString();
  return ask;
}

void Write(const std::string& path, std::string_view text) {
  HEADRACE_CHECK(WriteFileAtomic(path, text, 0600, Durability::kProcessCrash).ok());
}

void CheckLayer(const std::string& root, std::string_view text) {
  daemon::LayerStore store(root);
  const daemon::LayerAsk ask = TheLayer();
  HEADRACE_CHECK(MakeDirs(root + "/layers/" + ask.Key()).ok());
  Write(root + "/layers/" + ask.Key() + "/meta.json", text);
  auto layer = store.LoadLayer(ask.Key());
  if (!layer.ok()) return;
  HEADRACE_CHECK(layer->ask.Key() == ask.Key() && layer->slot > 0);
  // What was read is what a record of it says.
  HEADRACE_CHECK(store.SaveLayer(*layer, "").ok());
  auto again = store.LoadLayer(ask.Key());
  HEADRACE_CHECK(again.ok() && again->slot == layer->slot && again->kind == layer->kind && again->toc.ToString() == layer->toc.ToString());
  HEADRACE_CHECK(again->blob_size == layer->blob_size && again->table == layer->table && again->estargz_offset == layer->estargz_offset);
}

void CheckMount(const std::string& root, std::string_view text) {
  daemon::LayerStore store(root);
  Write(root + "/mounts/7.json", text);
  auto mount = store.LoadMount("7");
  if (!mount.ok()) return;
  HEADRACE_CHECK(mount->id == "7" && mount->view_slot > 0 && mount->layer_key.size() == 64);
  HEADRACE_CHECK(mount->parent_id.empty() || daemon::ValidMountId(mount->parent_id));
  HEADRACE_CHECK(store.SaveMount(*mount).ok());
  auto again = store.LoadMount("7");
  HEADRACE_CHECK(again.ok() && again->layer_key == mount->layer_key && again->view_slot == mount->view_slot && again->no_fill == mount->no_fill);
}

void CheckLearned(const std::string& root, std::string_view text) {
  daemon::LayerStore store(root);
  const daemon::LayerAsk ask = TheLayer();
  Write(root + "/learned/" + ask.blob.Hex(), text);
  std::string table;
  auto layer = store.LoadLearned(ask, &table);
  if (!layer.ok()) return;
  HEADRACE_CHECK(layer->kind == daemon::TableKind::kLearned);
  auto index = daemon::ReadTable(*layer, table);
  HEADRACE_CHECK(!index.ok() || layer->table == Digest::Of(table));  // nothing is believed without its digest
  if (index.ok()) CheckIndex(*index, index->blob_size);
  layer->table = Digest::Of(table);
  index = daemon::ReadTable(*layer, table);
  if (index.ok()) CheckIndex(*index, index->blob_size);
}

void CheckSlots(const std::string& root, std::string_view text) {
  Write(root + "/slots", text);
  daemon::LayerStore store(root);
  const Status status = store.Prepare();
  if (!status.ok()) return;
  auto slot = store.TakeSlot();
  if (slot.ok()) HEADRACE_CHECK(*slot > 0);
}

}  // namespace

void FuzzLayerRecords(Bytes data) {
  static const test::TempDir directory;  // one for the process: making one for each input would be most of the work
  Input input(data);
  const std::string& root = directory.path();
  static const bool prepared = daemon::LayerStore(root).Prepare().ok();
  HEADRACE_CHECK(prepared);
  switch (input.Choice(4)) {
    case 0: return CheckLayer(root, input.Text());
    case 1: return CheckMount(root, input.Text());
    case 2: return CheckLearned(root, input.Text());
    default: return CheckSlots(root, input.Text());
  }
}

}  // namespace headrace::fuzz
