// Images in OCI layout directories (image-spec image-layout.md): oci-layout, index.json, blobs/sha256/<hex>. See image_store.h.
// Writers of one layout may run at the same time, in several processes: blobs are renamed into place, index.json is replaced under
// a lock on the directory.
#ifndef HEADRACE_SNAPSHOTTER_CLI_LAYOUT_STORE_H_
#define HEADRACE_SNAPSHOTTER_CLI_LAYOUT_STORE_H_

#include <memory>

#include "snapshotter/cli/image_store.h"

namespace headrace::cli {

Result<std::unique_ptr<ImageReader>> OpenLayoutReader(const LayoutLocation& location);
Result<std::unique_ptr<ImageWriter>> OpenLayoutWriter(const LayoutLocation& location, const StoreOptions& options);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_LAYOUT_STORE_H_
