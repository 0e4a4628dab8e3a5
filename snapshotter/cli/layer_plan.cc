#include "snapshotter/cli/layer_plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

namespace headrace::cli {
namespace {

using format::EntryType;

class Planner {
 public:
  Planner(const Tree& tree, const PlanOptions& options) : tree_(tree), options_(options) {
    for (const ScannedFile& file : tree.files) by_name_[file.entry.name] = &file;
  }

  std::vector<PlannedLayer> Run() {
    std::map<std::string, std::vector<const ScannedFile*>> large;  // by the name of the file: it and its links
    std::vector<const ScannedFile*> rest;
    for (const ScannedFile& file : tree_.files) {
      const format::Entry& e = file.entry;
      if (e.type == EntryType::kRegular && e.size >= options_.large_file) {
        large[e.name].push_back(&file);
      } else if (auto it = large.find(e.link_target); e.type == EntryType::kHardlink && it != large.end()) {
        it->second.push_back(&file);  // the tree is sorted and the file is the first of its names
      } else {
        rest.push_back(&file);
      }
    }
    std::vector<PlannedLayer> out;
    std::vector<PlannedLayer> large_layers = PlanLarge(large);
    if (large_layers.empty() || HasMoreThanParents(rest, large_layers)) out.push_back(Small(rest));
    std::move(large_layers.begin(), large_layers.end(), std::back_inserter(out));
    return out;
  }

 private:
  std::vector<PlannedLayer> PlanLarge(const std::map<std::string, std::vector<const ScannedFile*>>& large) const {
    std::vector<PlannedLayer> out;
    const size_t layers = std::min(large.size(), std::max<size_t>(options_.layers_max, 2) - 1);
    size_t i = 0;
    std::vector<const ScannedFile*> group;
    size_t files = 0;
    for (const auto& [name, members] : large) {
      group.insert(group.end(), members.begin(), members.end());
      ++files;
      // The group of file i is i * layers / n; it ends where the next file's is another one.
      const bool last = i + 1 == large.size() || (i + 1) * layers / large.size() != i * layers / large.size();
      if (last) {
        std::string title = files == 1 ? name : std::to_string(files) + " large files up to " + name;
        out.push_back(WithParents(std::move(title), group));
        group.clear();
        files = 0;
      }
      ++i;
    }
    return out;
  }

  PlannedLayer WithParents(std::string title, const std::vector<const ScannedFile*>& members) const {
    PlannedLayer layer;
    layer.title = std::move(title);
    std::set<std::string_view> parents;
    for (const ScannedFile* file : members) {
      const std::string_view name = file->entry.name;
      for (size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1)) {
        parents.insert(name.substr(0, slash));
      }
      layer.bytes += file->entry.size;
    }
    for (std::string_view parent : parents) layer.entries.push_back(by_name_.at(parent));
    layer.entries.insert(layer.entries.end(), members.begin(), members.end());
    // A link follows its file, which has a smaller name.
    std::sort(layer.entries.begin(), layer.entries.end(),
              [](const ScannedFile* a, const ScannedFile* b) { return a->entry.name < b->entry.name; });
    return layer;
  }

  static bool HasMoreThanParents(const std::vector<const ScannedFile*>& rest, const std::vector<PlannedLayer>& layers) {
    std::set<const ScannedFile*> elsewhere;
    for (const PlannedLayer& layer : layers) elsewhere.insert(layer.entries.begin(), layer.entries.end());
    return std::any_of(rest.begin(), rest.end(), [&](const ScannedFile* f) { return !elsewhere.contains(f); });
  }

  static PlannedLayer Small(const std::vector<const ScannedFile*>& rest) {
    PlannedLayer layer;
    layer.entries = rest;
    size_t files = 0;
    for (const ScannedFile* file : rest) {
      layer.bytes += file->entry.size;
      files += file->entry.type == EntryType::kDirectory ? 0 : 1;
    }
    layer.title = std::to_string(files) + (files == 1 ? " small file" : " small files");
    return layer;
  }

  const Tree& tree_;
  const PlanOptions& options_;
  std::unordered_map<std::string_view, const ScannedFile*> by_name_;
};

}  // namespace

std::vector<PlannedLayer> PlanLayers(const Tree& tree, const PlanOptions& options) {
  return Planner(tree, options).Run();
}

}  // namespace headrace::cli
