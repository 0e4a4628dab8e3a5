// Limits of tree/: what a layer or a chain of layers may be at most. Beyond them: ResourceExhausted (or
// InvalidArgument where the thing is malformed rather than big). Chosen far above every image seen, low enough
// to bound memory.
#ifndef HEADRACE_FUSEFS_TREE_LIMITS_H_
#define HEADRACE_FUSEFS_TREE_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace headrace::tree::limits {

// Names of a layer, implied directories and whiteouts included: about 64 bytes each while the tree is built.
inline constexpr size_t kLayerNodesMax = size_t{1} << 22;
// Names of a merged view: 16 bytes each.
inline constexpr size_t kViewNamesMax = size_t{1} << 24;
// PATH_MAX of Linux; it bounds the depth to 2048.
inline constexpr size_t kPathBytesMax = 4096;
inline constexpr size_t kNameBytesMax = 255;
// overlayfs takes 500 lower directories; an image has 127 layers at most in practice.
inline constexpr size_t kChainMax = 512;
// Directory searches that hard links into lower layers may cost in one merge.
inline constexpr uint64_t kLinkSearchesMax = 20'000'000;

}  // namespace headrace::tree::limits

#endif  // HEADRACE_FUSEFS_TREE_LIMITS_H_
