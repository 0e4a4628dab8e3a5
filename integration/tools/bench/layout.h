// The layers of an image in an OCI layout directory, as the tools need them. Blocks on the disk.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_LAYOUT_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_LAYOUT_H_

#include <string>
#include <vector>

#include "snapshotter/cli/image_model.h"

namespace headrace::bench {

struct LayoutImage {
  Digest manifest_digest;
  std::vector<cli::Descriptor> layers;  // the lowest first
};

// The image with this tag; without one, or if no image has it, the only image there. Of an index the image for this machine.
LayoutImage ReadLayout(const std::string& directory, const std::string& tag);

// Where the layout keeps a blob.
std::string BlobPath(const std::string& directory, const Digest& digest);

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_LAYOUT_H_
