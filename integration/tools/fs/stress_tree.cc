#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "integration/tools/fs/stress.h"

namespace headrace::fs {
namespace {

// Of a directory with very many entries only so many are drawn by themselves: the others want their turn.
constexpr size_t kDrawnOfOneMax = 30;

// Directories below `path` are read after it, so nothing is open meanwhile.
void ReadDirectory(const std::string& path, std::vector<TreeEntry>& found, std::vector<std::string>& later) {
  DIR* stream = ::opendir(path.c_str());
  if (stream == nullptr) Die("cannot list " + path);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream)) {
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) names.emplace_back(entry->d_name);
  }
  ::closedir(stream);
  std::sort(names.begin(), names.end());
  if (names.size() > 10 * kDrawnOfOneMax) names.resize(kDrawnOfOneMax);
  for (const std::string& name : names) {
    const std::string below = path == "." ? name : path + "/" + name;
    struct stat st {};
    if (::lstat(below.c_str(), &st) != 0) Die("cannot stat " + below);
    found.push_back({below, st.st_mode & S_IFMT, static_cast<uint64_t>(st.st_size)});
    if (S_ISDIR(st.st_mode)) later.push_back(below);
  }
}

}  // namespace

Tree ReadTree(const std::string& skip) {
  Tree tree;
  tree.all.push_back({".", S_IFDIR, 0});
  std::vector<std::string> directories{"."};
  for (size_t i = 0; i < directories.size(); ++i) {
    const std::string path = directories[i];
    ReadDirectory(path, tree.all, directories);
    std::erase_if(tree.all, [&](const TreeEntry& entry) { return entry.path == skip; });
    std::erase(directories, skip);
  }
  for (size_t i = 0; i < tree.all.size(); ++i) {
    const TreeEntry& entry = tree.all[i];
    if (S_ISREG(entry.type) && entry.size > 0) tree.files.push_back(i);
    if (S_ISDIR(entry.type)) tree.directories.push_back(i);
    if (S_ISLNK(entry.type)) tree.links.push_back(i);
  }
  if (tree.files.empty() || tree.links.empty()) Die("a tree without files or links");
  return tree;
}

}  // namespace headrace::fs
