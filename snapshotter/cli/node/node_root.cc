#include "snapshotter/cli/node/node_root.h"

#include <dirent.h>
#include <fnmatch.h>
#include <sys/stat.h>

#include <set>

#include "fusefs/base/file.h"

namespace headrace::cli {
namespace {

constexpr size_t kListMax = 10'000;

mode_t ModeOf(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0 ? st.st_mode : 0;
}

}  // namespace

NodeRoot::NodeRoot(std::string root) : root_(std::move(root)) {
  while (root_.ends_with('/')) root_.pop_back();
}

NodeRoot NodeRoot::With(std::map<std::string, std::optional<std::string>> files) const {
  NodeRoot other(root_);
  other.instead_ = std::move(files);
  return other;
}

bool NodeRoot::Exists(const std::string& path) const {
  const auto instead = instead_.find(path);
  return instead != instead_.end() ? instead->second.has_value() : ModeOf(At(path)) != 0;
}
bool NodeRoot::IsDirectory(const std::string& path) const { return S_ISDIR(ModeOf(At(path))); }
bool NodeRoot::IsSocket(const std::string& path) const { return S_ISSOCK(ModeOf(At(path))); }

Result<std::optional<std::string>> NodeRoot::Read(const std::string& path) const {
  if (const auto instead = instead_.find(path); instead != instead_.end()) return instead->second;
  Result<std::string> text = ReadFile(At(path), kFileMax);
  if (text.ok()) return std::optional<std::string>(std::move(*text));
  if (text.status().code() == StatusCode::kNotFound) return std::optional<std::string>();
  return text.status();
}

std::string NodeRoot::Line(const std::string& path) const {
  Result<std::string> text = ReadFile(At(path), kFileMax);
  if (!text.ok()) return "";
  text->erase(text->find_last_not_of(" \t\n") + 1);
  return *text;
}

std::vector<std::string> NodeRoot::List(const std::string& directory) const {
  std::set<std::string> names;
  if (DIR* dir = ::opendir(At(directory).c_str()); dir != nullptr) {
    while (const dirent* entry = ::readdir(dir)) {
      const std::string name = entry->d_name;
      if (name != "." && name != ".." && names.size() < kListMax) names.insert(name);
    }
    ::closedir(dir);
  }
  for (const auto& [path, text] : instead_) {
    const std::string name = path.substr(path.rfind('/') + 1);
    if (DirectoryOf(path) != directory) continue;
    if (text) {
      names.insert(name);
    } else {
      names.erase(name);
    }
  }
  return {names.begin(), names.end()};
}

std::vector<std::string> NodeRoot::Glob(const std::string& pattern) const {
  const std::string directory = DirectoryOf(pattern);
  const std::string last = pattern.substr(pattern.rfind('/') + 1);
  std::vector<std::string> found;
  for (const std::string& name : List(directory)) {
    if (::fnmatch(last.c_str(), name.c_str(), FNM_PERIOD) == 0) found.push_back((directory == "/" ? "" : directory) + "/" + name);
  }
  return found;
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace headrace::cli
