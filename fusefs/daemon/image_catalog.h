// ImageCatalog: what an image's manifest and config say of its layers, fetched once for each image and verified by digest.
//
// Threads: any; Get blocks on the registry. Calls for one image at a time share one fetch (the second finds it done, or tries itself).
// Limits: the last 64 images are remembered; documents are bounded by format/image_documents.h.
// Errors: registry trouble as the reader gives it; InvalidArgument: a manifest that contradicts itself; Unimplemented: not the manifest of an image.
#ifndef HEADRACE_FUSEFS_DAEMON_IMAGE_CATALOG_H_
#define HEADRACE_FUSEFS_DAEMON_IMAGE_CATALOG_H_

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/daemon/registry_reader.h"

namespace headrace::daemon {

struct ImageLayer {
  Digest blob;
  uint64_t size = 0;
  std::map<std::string, std::string> annotations;
  Digest diff_id;  // of the tar, from the config
};

struct Image {
  std::vector<ImageLayer> layers;  // bottom first

  // Its place, or layers.size().
  size_t Find(const Digest& blob) const;
};

class ImageCatalog {
 public:
  // `reader` outlives the catalog.
  explicit ImageCatalog(RegistryReader& reader) : reader_(reader) {}
  Result<std::shared_ptr<const Image>> Get(const std::string& image_ref, const std::string& manifest_digest);

 private:
  struct Slot;
  Result<std::shared_ptr<const Image>> Fetch(const std::string& image_ref, const Digest& manifest);

  RegistryReader& reader_;
  Mutex mu_;
  CondVar fetched_;
  std::map<std::string, std::shared_ptr<Slot>> images_ HR_GUARDED_BY(mu_);  // by manifest digest
  std::list<std::string> order_ HR_GUARDED_BY(mu_);                         // of fetching, oldest first
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_IMAGE_CATALOG_H_
