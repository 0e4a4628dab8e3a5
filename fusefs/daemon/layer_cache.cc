// LayerManager: which contents of the cache belong to the layers that are shown.
#include <set>
#include <utility>

#include "fusefs/daemon/layer_manager.h"
#include "fusefs/stream/content_id.h"

namespace headrace::daemon {

std::vector<Digest> LayerManager::MountedContents() const {
  std::set<std::shared_ptr<Layer>> layers;
  {
    MutexLock lock(mu_);
    for (const auto& [id, shown] : mounts_) layers.insert(shown.layer);
  }
  std::vector<Digest> all;
  for (const std::shared_ptr<Layer>& layer : layers) {
    const auto contents = ContentsOf(*layer);
    all.insert(all.end(), contents->begin(), contents->end());
  }
  return all;
}

std::shared_ptr<const std::vector<Digest>> LayerManager::ContentsOf(Layer& layer) const {
  {
    MutexLock lock(mu_);
    if (layer.contents) return layer.contents;
  }
  auto contents = std::make_shared<const std::vector<Digest>>(stream::ContentIds(*layer.source->index));
  MutexLock lock(mu_);
  layer.contents = contents;
  return contents;
}

}  // namespace headrace::daemon
