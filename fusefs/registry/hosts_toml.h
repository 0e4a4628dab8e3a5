// hosts.toml: containerd's file about one registry: mirrors that are asked first, certificates, headers (containerd docs/hosts.md).
//
// Pure: text in, values out; the paths in it are not looked at. Hostile input is bounded by the caller's size of file and toml++'s depth.
// Errors (InvalidArgument) name the key, the line, and what is allowed there. Keys that nobody knows are no error, as in containerd: `unknown` has them for the log.
#ifndef HEADRACE_FUSEFS_REGISTRY_HOSTS_TOML_H_
#define HEADRACE_FUSEFS_REGISTRY_HOSTS_TOML_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/registry/url.h"

namespace headrace::registry {

// One place that speaks the registry API, as the file has it.
struct HostEntry {
  std::optional<Url> url;  // root entry: "server", nothing if that is absent
  bool pull = true;
  bool resolve = true;
  bool push = true;
  std::vector<std::string> ca;                                // files; relative ones are below the directory of hosts.toml
  std::vector<std::pair<std::string, std::string>> client;    // certificate, key ("": in the same file)
  bool skip_verify = false;
  std::vector<std::string> headers;                           // "Name: value"
  bool override_path = false;
  std::optional<std::chrono::milliseconds> dial_timeout;
};

struct HostsFile {
  HostEntry server;
  std::vector<HostEntry> mirrors;  // in the order of the file
  std::vector<std::string> unknown;  // "key (line n)"
};

// `directory`: that of the file, for relative paths.
Result<HostsFile> ParseHostsToml(std::string_view text, const std::string& directory);

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_HOSTS_TOML_H_
