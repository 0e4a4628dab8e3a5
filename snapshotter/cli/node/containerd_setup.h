// What containerd is on a node, and how it is configured: its version, its file, what that imports, and the settings that come out.
// Blocks on the disk and, on this machine, on `containerd --version`. Values; any thread.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_CONTAINERD_SETUP_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_CONTAINERD_SETUP_H_

#include <optional>
#include <string>
#include <vector>

#include "config/toml_document.h"
#include "fusefs/base/status.h"
#include "snapshotter/cli/node/node_root.h"

namespace headrace::cli {

struct ContainerdVersion {
  int major = 0;
  int minor = 0;
  std::string text;  // "2.1.9"
  bool AtLeast(int a, int b) const { return major > a || (major == a && minor >= b); }
  // "containerd github.com/containerd/containerd/v2 2.1.9+unknown" or "1.7": the first word with two numbers.
  static std::optional<ContainerdVersion> Parse(const std::string& words);
};

// Who writes containerd's file. kGenerated: k3s and RKE2 write it anew at each start and import drop-ins of a directory beside it.
enum class ContainerdLayout { kStandard, kGenerated };

struct ContainerdQuestion {
  std::string config_path;  // "": found by itself
  std::string version;      // "": the program is asked
};

struct ContainerdSetup {
  ContainerdLayout layout = ContainerdLayout::kStandard;
  std::string config_path;
  std::optional<std::string> text;            // of that file; none: containerd runs with its defaults
  std::optional<ContainerdVersion> version;   // none: no program was found
  int64_t config_version = 0;                 // of that file; 0: it does not say (version 1)
  std::vector<std::string> imports;           // patterns, absolute
  config::TomlDocument main;
  // The file and what it imports, as containerd of that version puts them together: 2.x key by key, 1.x with a plugin's whole section from the last file.
  config::TomlDocument merged;
  bool version3_file = false;  // one of the files is of version 3 or later
  bool nodeadm = false;  // Amazon EKS: its nodeadm writes the file anew at each boot

  bool IsTwo() const { return version && version->major >= 2; }
  // Where a setting of the CRI plugin's images is that counts, e.g. {"snapshotter"} or {"registry", "config_path"}: under the plugin's name of 2.x, or under that of version 2.
  // 2.x reads the latter only if all files are of version 2, and of [containerd] only if that has runtimes, too.
  config::TomlPath CriImages(const config::TomlPath& key) const;
  bool HasCriOfVersion2() const;  // the main file itself has version 2's CRI section
};

// Errors: a file that cannot be read or parsed (it is named).
Result<ContainerdSetup> ReadContainerdSetup(const NodeRoot& root, const ContainerdQuestion& question);

inline const config::TomlPath kCriOfVersion2{"plugins", "io.containerd.grpc.v1.cri"};
inline const config::TomlPath kCriImages{"plugins", "io.containerd.cri.v1.images"};
inline const config::TomlPath kUnpackConfig{"plugins", "io.containerd.transfer.v1.local", "unpack_config"};

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_CONTAINERD_SETUP_H_
