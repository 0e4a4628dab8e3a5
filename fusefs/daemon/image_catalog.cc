#include "fusefs/daemon/image_catalog.h"

#include <chrono>
#include <utility>

#include "fusefs/format/image_documents.h"

namespace headrace::daemon {
namespace {

constexpr size_t kImagesMax = 64;
// Above every deadline of the registry client.
constexpr std::chrono::minutes kFetchWait{10};

Status NoSuchImage(const std::string& image_ref, const std::string& why) { return InvalidArgumentError("image " + image_ref + ": " + why); }

}  // namespace

struct ImageCatalog::Slot {
  bool done = false;
  std::shared_ptr<const Image> image;  // null: it failed
};

size_t Image::Find(const Digest& blob) const {
  size_t i = 0;
  while (i < layers.size() && layers[i].blob != blob) ++i;
  return i;
}

Result<std::shared_ptr<const Image>> ImageCatalog::Get(const std::string& image_ref, const std::string& manifest_digest) {
  auto manifest = Digest::Parse(manifest_digest);
  if (!manifest.ok()) return manifest.status().Annotate("image " + image_ref + ": digest of its manifest");
  std::shared_ptr<Slot> slot;
  {
    MutexLock lock(mu_);
    while (true) {
      auto it = images_.find(manifest_digest);
      if (it == images_.end()) break;
      slot = it->second;
      if (!fetched_.WaitFor(mu_, kFetchWait, [&] { return slot->done; })) {
        return DeadlineExceededError("image " + image_ref + ": another call still fetches its manifest");
      }
      if (slot->image) return slot->image;
    }
    slot = std::make_shared<Slot>();
    images_.emplace(manifest_digest, slot);
  }
  auto image = Fetch(image_ref, *manifest);
  MutexLock lock(mu_);
  slot->done = true;
  fetched_.NotifyAll();
  if (!image.ok()) {
    images_.erase(manifest_digest);  // whoever waited tries anew, one after the other
    return image.status();
  }
  slot->image = *image;
  order_.push_back(manifest_digest);
  if (order_.size() > kImagesMax) {
    images_.erase(order_.front());
    order_.pop_front();
  }
  return slot->image;
}

Result<std::shared_ptr<const Image>> ImageCatalog::Fetch(const std::string& image_ref, const Digest& manifest_digest) {
  HR_ASSIGN_OR_RETURN(std::string body, reader_.Manifest(image_ref, manifest_digest));
  HR_ASSIGN_OR_RETURN(format::DocumentKind kind, format::KindOf(body, ""));
  if (kind != format::DocumentKind::kImage) {
    return UnimplementedError("image " + image_ref + ": " + manifest_digest.ToString() + " is not the manifest of an image");
  }
  HR_ASSIGN_OR_RETURN(format::Manifest manifest, format::ParseManifest(body));
  if (manifest.config.size > format::kConfigBytesMax) return NoSuchImage(image_ref, "its config is too large");
  HR_ASSIGN_OR_RETURN(std::string config_text,
                      reader_.Range({image_ref, manifest.config.digest}, 0, manifest.config.size, [&](std::string_view bytes) {
                        if (Digest::Of(bytes) == manifest.config.digest) return OkStatus();
                        return DataLossError("config " + manifest.config.digest.ToString() + " has another digest");
                      }));
  HR_ASSIGN_OR_RETURN(format::ImageConfig config, format::ParseConfig(config_text));
  if (config.diff_ids.size() != manifest.layers.size()) {
    return NoSuchImage(image_ref, "its manifest has " + std::to_string(manifest.layers.size()) + " layers, its config " +
                                      std::to_string(config.diff_ids.size()));
  }
  auto image = std::make_shared<Image>();
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    format::Descriptor& layer = manifest.layers[i];
    const size_t before = image->Find(layer.digest);
    if (before < image->layers.size() && image->layers[before].diff_id != config.diff_ids[i]) {
      return NoSuchImage(image_ref, "layer " + layer.digest.ToString() + " stands in it twice, with two DiffIDs");
    }
    image->layers.push_back({layer.digest, layer.size, std::move(layer.annotations), config.diff_ids[i]});
  }
  return std::shared_ptr<const Image>(std::move(image));
}

}  // namespace headrace::daemon
