// PlanLayers: which entries of a tree go into which layer. The rule (README.md of this folder): everything but large files first, in
// one layer; then one layer for each large file with its hard links, in the order of their names. Every layer repeats the
// directories that lead to its files, with the same metadata, so that the order of layers does not matter to them.
// If there were more layers than `layers_max`, neighbouring large files share one.
// Pure; the plan points into the tree.
#ifndef HEADRACE_SNAPSHOTTER_CLI_LAYER_PLAN_H_
#define HEADRACE_SNAPSHOTTER_CLI_LAYER_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "snapshotter/cli/tree_scan.h"

namespace headrace::cli {

struct PlannedLayer {
  std::string title;                        // for people: the file, or how many
  std::vector<const ScannedFile*> entries;  // in the order of the tar
  uint64_t bytes = 0;                       // of regular files
};

struct PlanOptions {
  uint64_t large_file = 64ull << 20;  // a regular file of this size or more is large
  size_t layers_max = 100;            // at least 2
};

std::vector<PlannedLayer> PlanLayers(const Tree& tree, const PlanOptions& options);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_LAYER_PLAN_H_
