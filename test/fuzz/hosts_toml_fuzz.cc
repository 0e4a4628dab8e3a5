// containerd's hosts.toml. Input: the file.
#include <algorithm>
#include <string>

#include "fusefs/registry/hosts_toml.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

void CheckEntry(const registry::HostEntry& entry) {
  for (const std::string& file : entry.ca) HEADRACE_CHECK(file.starts_with('/'));
  for (const auto& [certificate, key] : entry.client) HEADRACE_CHECK(certificate.starts_with('/') && (key.empty() || key.starts_with('/')));
  for (const std::string& header : entry.headers) {
    HEADRACE_CHECK(header.find(": ") != std::string::npos && header.find(": ") > 0);
    HEADRACE_CHECK(header.find_first_of("\r\n") == std::string::npos && header.find('\0') == std::string::npos);
  }
  if (entry.dial_timeout) HEADRACE_CHECK(entry.dial_timeout->count() >= 0 && *entry.dial_timeout <= std::chrono::hours(1));
  if (entry.url) HEADRACE_CHECK(registry::Url::Parse(entry.url->ToString()).ok() && entry.url->target.find('?') == std::string::npos);
}

}  // namespace

void FuzzHostsToml(Bytes data) {
  auto file = registry::ParseHostsToml(TextOf(data), "/d");
  if (!file.ok()) {
    HEADRACE_CHECK(file.status().code() == StatusCode::kInvalidArgument);
    return;
  }
  CheckEntry(file->server);
  for (const registry::HostEntry& mirror : file->mirrors) {
    HEADRACE_CHECK(mirror.url.has_value());
    CheckEntry(mirror);
  }
}

}  // namespace headrace::fuzz
