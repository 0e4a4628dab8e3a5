// LayerManager: how the layers that are shown stand, and which contents of the cache belong to them.
#include <set>
#include <string>
#include <utility>

#include "fusefs/daemon/layer_manager.h"
#include "fusefs/stream/content_id.h"

namespace headrace::daemon {
namespace {

constexpr std::string_view kLayerNote = "layer ";
constexpr std::chrono::seconds kAttachLook{1};

}  // namespace

std::vector<std::string> LayerNotes(const std::vector<std::string>& keys) {
  std::vector<std::string> notes;
  for (const std::string& key : keys) notes.push_back(std::string(kLayerNote) + key);
  return notes;
}

std::vector<std::string> LayersOfNotes(const std::vector<std::string>& notes) {
  std::vector<std::string> keys;
  for (const std::string& note : notes) {
    if (note.starts_with(kLayerNote)) keys.push_back(note.substr(kLayerNote.size()));
  }
  return keys;
}

std::set<std::string> KeptLayers(const cache::ContentStore& cache) {
  std::set<std::string> keys;
  for (const cache::PinRecord& pin : cache.Pinned()) {
    for (std::string& key : LayersOfNotes(pin.notes)) keys.insert(std::move(key));
  }
  return keys;
}

std::map<std::string, std::pair<std::shared_ptr<LayerManager::Layer>, std::vector<std::string>>> LayerManager::LayersByKey(const std::string& what) const {
  std::map<std::string, std::pair<std::shared_ptr<Layer>, std::vector<std::string>>> by_key;
  MutexLock lock(mu_);
  std::set<std::string> chain;  // a mount and what it stands on
  for (auto it = mounts_.find(what); it != mounts_.end() && chain.insert(it->first).second;) it = mounts_.find(it->second.record.parent_id);
  for (const auto& [id, shown] : mounts_) {
    const LayerAsk& ask = shown.layer->record.ask;
    if (!what.empty() && !chain.contains(id) && what != ask.image_ref && what != ask.blob.ToString() && what != shown.record.manifest_digest) continue;
    auto& [layer, ids] = by_key[shown.record.layer_key];
    layer = shown.layer;
    ids.push_back(id);
  }
  return by_key;
}

Result<LayerSelection> LayerManager::Select(const std::string& what) const {
  LayerSelection found;
  const auto by_key = LayersByKey(what);
  if (what.empty() || by_key.empty()) return NotFoundError("no image, layer or mount \"" + what + "\" is shown (headrace status lists them)");
  for (const auto& [key, value] : by_key) {
    found.keys.push_back(key);
    found.layers.push_back(value.first->source);
    const auto contents = ContentsOf(*value.first);
    found.contents.insert(found.contents.end(), contents->begin(), contents->end());
    found.unverified |= value.first->deferred.load() == Deferred::kUnknown;
  }
  found.name = ValidMountId(what) ? by_key.begin()->second.first->record.ask.image_ref : what;
  return found;
}

Result<std::vector<LayerState>> LayerManager::Layers(const std::string& what) const {
  std::vector<LayerState> states;
  for (auto& [key, value] : LayersByKey(what)) {
    auto& [layer, ids] = value;
    LayerState state;
    state.blob_digest = layer->ask.blob.ToString();
    state.image_ref = layer->record.ask.image_ref;
    state.manifest_digest = layer->record.ask.manifest_digest;
    state.format = FormatName(*layer);
    state.source = layer->source;
    for (const format::Entry& entry : layer->source->index->entries) {
      if (entry.type != format::EntryType::kRegular) continue;
      ++state.files;
      state.size += entry.size;
    }
    state.file_states = streamer_.FileStates(*layer->source);
    for (const stream::FileState& file : state.file_states) state.resident += file.resident;
    if (options_.is_pinned) state.pinned = options_.is_pinned(*ContentsOf(*layer));
    state.ids = std::move(ids);
    states.push_back(std::move(state));
  }
  if (!what.empty() && states.empty()) return NotFoundError("no image, layer or mount \"" + what + "\" is shown (headrace status lists them)");
  return states;
}

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

Result<LayerSelection> LayerManager::AttachImage(const std::string& image_ref, const std::string& manifest_digest) {
  HR_ASSIGN_OR_RETURN(const std::shared_ptr<const Image> image, catalog_.Get(image_ref, manifest_digest));
  std::map<std::string, std::shared_ptr<Layer>> layers;
  for (const ImageLayer& described : image->layers) {
    LayerAsk ask{described.blob, "", image_ref, manifest_digest};
    if (auto label = described.annotations.find(std::string(format::kTocLabel)); label != described.annotations.end()) {
      HR_ASSIGN_OR_RETURN(const format::TocLocation location, format::TocLocation::Parse(label->second));
      ask.label = location.ToString();
    }
    if (!layers.contains(ask.Key())) layers.emplace(ask.Key(), Begin(ask));
  }
  LayerSelection found;
  found.name = image_ref;
  for (const auto& [key, layer] : layers) {
    {
      MutexLock lock(mu_);
      while (!layer->done && !stopping_.load()) attached_.WaitUntil(mu_, std::chrono::steady_clock::now() + kAttachLook, [&] { return layer->done; });
      if (!layer->done) return CancelledError("the manager stops");
      HR_RETURN_IF_ERROR(layer->failure);
    }
    found.keys.push_back(key);
    found.layers.push_back(layer->source);
    const auto contents = ContentsOf(*layer);
    found.contents.insert(found.contents.end(), contents->begin(), contents->end());
  }
  return found;
}

}  // namespace headrace::daemon
