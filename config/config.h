// Configuration of the two daemons, made from params.h: values with defaults, a strict TOML reader, and the printed forms.
// An unknown section or key is an error that names the nearest known one. Pure but for LoadConfig's read of the file. Immutable after loading.
#ifndef HEADRACE_CONFIG_CONFIG_H_
#define HEADRACE_CONFIG_CONFIG_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/params.h"
#include "fusefs/base/status.h"

namespace headrace::config {

using Text = std::string;
using TextList = std::vector<std::string>;
using Size = uint64_t;                      // bytes
using Duration = std::chrono::nanoseconds;
using Count = uint64_t;

#define HEADRACE_CONFIG_FIELD(group, section, key, kind, fallback, min, max, help) kind key;
struct FusedConfig {
  FusedConfig();  // the defaults
  HEADRACE_FUSED_PARAMS(HEADRACE_CONFIG_FIELD)
};
struct SnapshotterConfig {
  SnapshotterConfig();
  HEADRACE_SNAPSHOTTER_PARAMS(HEADRACE_CONFIG_FIELD)
};
#undef HEADRACE_CONFIG_FIELD

struct Config {
  FusedConfig fused;
  SnapshotterConfig snapshotter;
};

// One file configures both daemons. InvalidArgument says file, line, key and what is allowed.
Result<Config> LoadConfig(const std::string& path);
Result<Config> ParseConfig(std::string_view toml, const std::string& name_for_errors);

// "section.key" of every setting of headrace-fused that differs.
std::vector<std::string> ChangedSettings(const FusedConfig& before, const FusedConfig& after);
// Whether a running headrace-fused takes the setting over on SIGHUP.
bool IsReloadable(std::string_view section_and_key);

// The shipped headrace.toml: every key with its help and default, commented out.
std::string DefaultToml();
// The table of config/README.md.
std::string DocumentationTable();

}  // namespace headrace::config

#endif  // HEADRACE_CONFIG_CONFIG_H_
