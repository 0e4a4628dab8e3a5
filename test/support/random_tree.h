// Random layers for tests of the file system: what a tar can hold, odd names and all, stacked so that the
// upper layers hide, replace, merge and extend what the lower ones have. The same seed and options give the
// same layers. Not thread-safe, pure.
#ifndef HEADRACE_TEST_SUPPORT_RANDOM_TREE_H_
#define HEADRACE_TEST_SUPPORT_RANDOM_TREE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/format/layer_index.h"

namespace headrace::test {

// One tar entry: `meta` without chunks and digests (meta.size is set), and the bytes of a regular file.
// Whiteouts are regular files named ".wh.<name>", opaque markers ".wh..wh..opq", as OCI image-spec layer.md has them.
struct TreeEntry {
  format::Entry meta;
  std::string content;
};
using TreeLayer = std::vector<TreeEntry>;  // in tar order

struct RandomTreeOptions {
  size_t layers = 4;
  size_t entries_per_layer = 60;
  size_t file_bytes_max = 5000;
  bool implied_directories = true;  // leave out the entries of some directories
};

// Bottom to top. Every layer can be extracted by tar, in order, on top of the ones below.
std::vector<TreeLayer> RandomLayers(uint64_t seed, const RandomTreeOptions& options);

// Entries for tests that write their trees by hand.
TreeEntry Dir(const std::string& name, uint32_t mode = 0755);
TreeEntry File(const std::string& name, const std::string& content = "", uint32_t mode = 0644);
TreeEntry Symlink(const std::string& name, const std::string& target);
TreeEntry Hardlink(const std::string& name, const std::string& target);
TreeEntry Device(const std::string& name, format::EntryType type, uint32_t major, uint32_t minor);

// What a table of contents of the layer would say: one stored chunk for each file that is not empty, real
// digests; chunks lie side by side in a blob that does not exist.
format::LayerIndex ToIndex(const TreeLayer& layer);
// The uncompressed tar.
Result<std::string> ToTar(const TreeLayer& layer);

}  // namespace headrace::test

#endif  // HEADRACE_TEST_SUPPORT_RANDOM_TREE_H_
