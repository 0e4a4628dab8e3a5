// Whether a layer is one of ours, and its table of contents if so. Shared by convert, inspect and verify.
#ifndef HEADRACE_SNAPSHOTTER_CLI_LAZY_LAYER_H_
#define HEADRACE_SNAPSHOTTER_CLI_LAZY_LAYER_H_

#include "fusefs/base/status.h"
#include "fusefs/format/toc.h"
#include "snapshotter/cli/image_store.h"

namespace headrace::cli {

struct LazyLayer {
  format::TocLocation location;
  format::LayerIndex index;
};

// True if the descriptor has our annotation, right or wrong.
bool HasTocAnnotation(const Descriptor& layer);
// Reads and verifies the table of contents by two facts of the manifest: where it is and its digest. NotFound: no annotation.
// Blocks on the reader. The rest of the layer is not looked at.
Result<LazyLayer> ReadLazyLayer(ImageReader& reader, const Descriptor& layer);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_LAZY_LAYER_H_
