#include "snapshotter/cli/node/containerd_setup.h"

#include <unistd.h>

#include <cctype>

#include "fusefs/base/text.h"
#include "fusefs/registry/program.h"

namespace headrace::cli {
namespace {

using config::TomlDocument;
using config::TomlPath;

constexpr char kStandardConfig[] = "/etc/containerd/config.toml";
constexpr const char* kGeneratedConfigs[] = {"/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"};
constexpr const char* kPrograms[] = {"/usr/local/bin/containerd", "/usr/bin/containerd", "/usr/sbin/containerd", "/var/lib/rancher/k3s/data/current/bin/containerd",
                                     "/var/lib/rancher/rke2/bin/containerd"};
constexpr std::chrono::seconds kVersionTimeout{10};
constexpr size_t kImportsMax = 1000;

std::string AskVersion(const NodeRoot& root) {
  for (const char* program : kPrograms) {
    const std::string path = root.At(program);
    if (::access(path.c_str(), X_OK) != 0) continue;
    auto answer = registry::RunProgram({.path = path, .arguments = {"--version"}, .environment = {}, .input = "", .timeout = kVersionTimeout}, registry::StopSignal());
    if (answer.ok() && answer->exit_code == 0) return answer->output;
  }
  return "";
}

std::string FindConfig(const NodeRoot& root, ContainerdLayout* layout) {
  for (const char* path : kGeneratedConfigs) {
    if (!root.Exists(path)) continue;
    *layout = ContainerdLayout::kGenerated;
    return path;
  }
  return kStandardConfig;
}

// Imports are relative to the file that has them.
std::string Absolute(const std::string& pattern, const std::string& file) {
  return pattern.starts_with('/') ? pattern : DirectoryOf(file) + "/" + pattern;
}

// 1.x: sections of plugins and proxy plugins are taken whole from the last file that has them, as is everything else.
void MergeAsOne(const TomlDocument& file, TomlDocument* merged) {
  for (const std::string& key : file.Keys({})) {
    if (key != "plugins" && key != "proxy_plugins") merged->Replace(file, {key});
  }
  for (const char* table : {"plugins", "proxy_plugins"}) {
    for (const std::string& key : file.Keys({table})) merged->Replace(file, {table, key});
  }
}

Status ReadImports(const NodeRoot& root, ContainerdSetup* setup) {
  setup->merged.Merge(setup->main);
  setup->version3_file = setup->config_version >= 3;
  size_t count = 0;
  for (const std::string& pattern : setup->imports) {
    for (const std::string& path : root.Glob(pattern)) {
      if (path == setup->config_path || ++count > kImportsMax) continue;
      HR_ASSIGN_OR_RETURN(std::optional<std::string> text, root.Read(path));
      if (!text) continue;
      HR_ASSIGN_OR_RETURN(TomlDocument file, TomlDocument::Parse(*text, path));
      setup->version3_file = setup->version3_file || file.Number({"version"}).value_or(0) >= 3;
      if (setup->IsTwo()) {
        setup->merged.Merge(file);
      } else {
        MergeAsOne(file, &setup->merged);
      }
    }
  }
  return OkStatus();
}

}  // namespace

std::optional<ContainerdVersion> ContainerdVersion::Parse(const std::string& words) {
  for (std::string_view line : Split(words, '\n')) {
    for (std::string_view word : Split(line, ' ')) {
      if (word.starts_with('v')) word.remove_prefix(1);
      const size_t end = word.find_first_not_of("0123456789.");
      const std::string_view number = word.substr(0, end);
      const std::vector<std::string_view> parts = Split(number, '.');
      if (parts.size() < 2 || (end != std::string_view::npos && word[end] == '/')) continue;
      const auto major = ParseU64(parts[0]), minor = ParseU64(parts[1]);
      if (major.ok() && minor.ok() && *major < 100 && *minor < 100) {
        return ContainerdVersion{static_cast<int>(*major), static_cast<int>(*minor), std::string(number)};
      }
    }
  }
  return std::nullopt;
}

TomlPath ContainerdSetup::CriImages(const TomlPath& key) const {
  TomlPath newer = kCriImages;
  newer.insert(newer.end(), key.begin(), key.end());
  TomlPath older = kCriOfVersion2;
  if (key.size() == 1) older.push_back("containerd");  // version 2 has these one table deeper
  older.insert(older.end(), key.begin(), key.end());
  if (!IsTwo()) return older;
  TomlPath runtimes = kCriOfVersion2;
  runtimes.insert(runtimes.end(), {"containerd", "runtimes"});
  const bool counts = !version3_file && merged.Has(older) && (key.size() > 1 || merged.Has(runtimes));
  return counts ? older : newer;
}

bool ContainerdSetup::HasCriOfVersion2() const { return main.Has(kCriOfVersion2); }

Result<ContainerdSetup> ReadContainerdSetup(const NodeRoot& root, const ContainerdQuestion& question) {
  ContainerdSetup setup;
  setup.config_path = question.config_path.empty() ? FindConfig(root, &setup.layout) : question.config_path;
  setup.version = ContainerdVersion::Parse(question.version.empty() ? AskVersion(root) : question.version);
  if (!question.version.empty() && !setup.version) return InvalidArgumentError("\"" + question.version + "\" is no version of containerd (1.7, 2.1 ...)");
  setup.nodeadm = root.Exists("/usr/bin/nodeadm") && root.IsDirectory("/etc/eks");
  HR_ASSIGN_OR_RETURN(setup.text, root.Read(setup.config_path));
  if (setup.text) {
    HR_ASSIGN_OR_RETURN(setup.main, TomlDocument::Parse(*setup.text, setup.config_path));
    setup.config_version = setup.main.Number({"version"}).value_or(0);
  }
  for (const std::string& pattern : setup.main.Texts({"imports"})) setup.imports.push_back(Absolute(pattern, setup.config_path));
  HR_RETURN_IF_ERROR(ReadImports(root, &setup));
  return setup;
}

}  // namespace headrace::cli
