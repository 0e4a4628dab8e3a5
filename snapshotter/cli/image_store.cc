#include "snapshotter/cli/image_store.h"

#include <cstdlib>

#include "fusefs/base/text.h"
#include "snapshotter/cli/layout_store.h"
#include "snapshotter/cli/registry_store.h"

namespace headrace::cli {

Result<std::unique_ptr<ImageReader>> OpenReader(const Location& location, const StoreOptions& options) {
  if (const LayoutLocation* layout = location.layout()) return OpenLayoutReader(*layout);
  return OpenRegistryReader(*location.reference(), options);
}

Result<std::unique_ptr<ImageWriter>> OpenWriter(const Location& location, const StoreOptions& options) {
  if (const LayoutLocation* layout = location.layout()) return OpenLayoutWriter(*layout, options);
  return OpenRegistryWriter(*location.reference(), options);
}

Result<std::string> ReadBlob(ImageReader& reader, const Descriptor& descriptor, uint64_t limit) {
  if (descriptor.size > limit) {
    return ResourceExhaustedError("blob " + descriptor.digest.ToString() + " is " + HumanBytes(descriptor.size) +
                                  ", more than the " + HumanBytes(limit) + " allowed here");
  }
  std::string out;
  HR_RETURN_IF_ERROR(reader.Blob(descriptor, ImageReader::Verified::kHere, [&](std::span<const uint8_t> data) -> Status {
    if (out.size() + data.size() > limit) {
      return ResourceExhaustedError("blob " + descriptor.digest.ToString() + " is larger than its descriptor says");
    }
    out.append(reinterpret_cast<const char*>(data.data()), data.size());
    return {};
  }));
  return out;
}

std::string DefaultTmpDir() {
  const char* dir = std::getenv("TMPDIR");
  // Not /tmp: that is memory on many machines, and layers are large.
  return dir != nullptr && *dir != '\0' ? dir : "/var/tmp";
}

}  // namespace headrace::cli
