// LayerStore: what headrace-fused must remember of layers and mounts, as files (README.md has the layout). Values in, files out.
//
// When a call returns, what it wrote survives a crash of the process. A crash of the machine survive removals and the slot counter;
// records of layers and mounts may be lost or torn then, like the mounts themselves. One instance for a root; the caller serialises calls that change the
// same thing. Blocks on the local disk. Errors name the path.
// What is read back is treated as foreign: bounded, checked, and refused with DataLoss if it does not make sense.
#ifndef HEADRACE_FUSEFS_DAEMON_LAYER_STORE_H_
#define HEADRACE_FUSEFS_DAEMON_LAYER_STORE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/daemon/layer_record.h"

namespace headrace::daemon {

struct MountRecord {
  std::string id;
  std::string parent_id;
  bool above_foreign = false;
  std::string layer_key;
  std::string manifest_digest;
  bool no_fill = false;
  uint32_t view_slot = 0;
  std::string image_ref;  // of the image that it was mounted for; "" in records of older versions: the layer's
};

class LayerStore {
 public:
  explicit LayerStore(std::string root) : root_(std::move(root)) {}

  // Makes the directories and throws away what a crash left half written.
  Status Prepare();

  Status SaveLayer(const LayerRecord& layer, std::string_view toc);
  Result<LayerRecord> LoadLayer(const std::string& key) const;
  Result<std::string> LoadToc(const LayerRecord& layer) const;
  Status DeleteLayer(const std::string& key);
  Result<std::vector<std::string>> ListLayers() const;

  // Tables that were learned, by blob: for the next attach of the layer, whatever became of its mounts. The last thousand are kept.
  Status KeepLearned(const LayerRecord& layer, std::string_view table);
  // The record for `ask` without a slot; NotFound if its table is not kept. The table is not verified yet.
  Result<LayerRecord> LoadLearned(const LayerAsk& ask, std::string* table) const;

  Status SaveMount(const MountRecord& mount);
  Result<MountRecord> LoadMount(const std::string& id) const;
  Status DeleteMount(const std::string& id);
  Result<std::vector<std::string>> ListMounts() const;

  // A number that no layer or mount of this root ever had (> 0). Durably taken before it is returned; numbers may be skipped.
  Result<uint32_t> TakeSlot();
  // Slots up to and including `slot` are in use: TakeSlot goes on above. (For a counter file that was lost.)
  void RaiseSlots(uint32_t slot);

 private:
  std::string LayerDir(const std::string& key) const { return root_ + "/layers/" + key; }
  std::string LearnedFile(const Digest& blob) const { return root_ + "/learned/" + blob.Hex(); }
  Status DropOldLearned();
  std::string MountFile(const std::string& id) const { return root_ + "/mounts/" + id + ".json"; }
  Status ReserveSlots() HR_REQUIRES(mu_);

  const std::string root_;
  Mutex mu_;  // held across the write of the counter file: control calls only
  uint64_t next_slot_ HR_GUARDED_BY(mu_) = 1;
  uint64_t reserved_end_ HR_GUARDED_BY(mu_) = 1;
};

// 1 to 20 decimal digits: what a mount may be called.
bool ValidMountId(std::string_view id);

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_LAYER_STORE_H_
