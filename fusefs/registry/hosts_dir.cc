#include "fusefs/registry/hosts_dir.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/base/text.h"

namespace headrace::registry {
namespace {

constexpr uint64_t kHostsTomlBytesMax = 1 << 20;
constexpr uint64_t kCertificateBytesMax = 4 << 20;
constexpr size_t kCertificatesMax = 64;
constexpr size_t kRegistriesMax = 4096;
constexpr std::chrono::seconds kLookAgain{2};

bool IsDirectory(const std::string& path) {
  struct stat st;
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

std::string StateOf(const std::string& path) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return path + " -\n";
  return path + " " + std::to_string(st.st_ino) + " " + std::to_string(st.st_size) + " " + std::to_string(st.st_mtim.tv_sec) + "." +
         std::to_string(st.st_mtim.tv_nsec) + "\n";
}

// The directory (names of certificate files), hosts.toml, and the files that were read for it.
std::string StateOfAll(const std::string& directory, const std::vector<std::string>& files) {
  if (directory.empty()) return "";
  std::string state = StateOf(directory) + StateOf(directory + "/hosts.toml");
  for (const std::string& file : files) state += StateOf(file);
  return state;
}

// A name is part of a path here.
bool CanBeDirectory(const std::string& host) { return !host.empty() && host.find('/') == std::string::npos && host[0] != '.'; }

std::string UpstreamOf(const std::string& host) { return host == "docker.io" ? "registry-1.docker.io" : host; }

// What containerd takes from a directory without hosts.toml.
HostEntry FromCertificates(const std::string& directory) {
  HostEntry entry;
  std::error_code ignored;
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(directory, ignored)) {
    if (names.size() < kCertificatesMax) names.push_back(file.path().filename());
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string path = directory + "/" + name;
    if (name.ends_with(".crt")) entry.ca.push_back(path);
    if (!name.ends_with(".cert")) continue;
    const std::string key = name.substr(0, name.size() - 5) + ".key";
    const bool has_key = std::find(names.begin(), names.end(), key) != names.end();
    entry.client.emplace_back(path, has_key ? directory + "/" + key : "");  // or it is in the same file
  }
  return entry;
}

}  // namespace

HostsDir::HostsDir(const std::string& config_path) {
  for (const std::string_view part : Split(config_path, ':')) {
    if (!part.empty()) directories_.emplace_back(part);
  }
}

std::string HostsDir::DirectoryFor(const std::string& host) const {
  std::vector<std::string> names;
  if (const size_t colon = host.rfind(':'); colon != std::string::npos) names.push_back(host.substr(0, colon) + "_" + host.substr(colon + 1) + "_");
  names.push_back(host);
  for (const std::string& directory : directories_) {
    for (const std::string& name : names) {
      if (CanBeDirectory(name) && IsDirectory(directory + "/" + name)) return directory + "/" + name;
    }
    if (IsDirectory(directory + "/_default")) return directory + "/_default";
  }
  return "";
}

std::shared_ptr<const Endpoints> HostsDir::Find(const std::string& host) {
  static const auto none = std::make_shared<const Endpoints>();
  if (directories_.empty()) return none;
  const auto now = std::chrono::steady_clock::now();
  MutexLock lock(mu_);
  Known& known = known_[host];
  if (known.endpoints && now - known.looked < kLookAgain) return known.endpoints;
  known.looked = now;
  const std::string directory = DirectoryFor(host);
  if (!known.endpoints || known.state != StateOfAll(directory, known.endpoints->files)) {
    known.endpoints = directory.empty() ? none : Load(host, directory);
    known.state = StateOfAll(directory, known.endpoints->files);
  }
  auto found = known.endpoints;
  if (known_.size() > kRegistriesMax) known_.clear();
  return found;
}

std::shared_ptr<const Endpoints> HostsDir::Load(const std::string& host, const std::string& directory) {
  auto out = std::make_shared<Endpoints>();
  const std::string path = directory + "/hosts.toml";
  HostsFile file;
  auto text = ReadFile(path, kHostsTomlBytesMax);
  Status broken = text.status();
  if (text.ok()) {
    auto parsed = ParseHostsToml(*text, directory);
    broken = parsed.status();
    if (parsed.ok()) file = std::move(*parsed);
  }
  if (!broken.ok() || text->empty()) file.server = FromCertificates(directory);
  if (!broken.ok() && broken.errno_override() != ENOENT) {
    out->note = path + ": " + broken.message();
    log::Error("hosts.toml is not used, the registry is asked without mirrors until it is mended registry={} error=\"{}\"", host, out->note);
  }
  for (const std::string& unknown : file.unknown) log::Warn("unknown key in hosts.toml is ignored file={} key=\"{}\"", path, unknown);
  out->registry = Make(file.server, host, /*mirror=*/false, *out);
  for (const HostEntry& entry : file.mirrors) {
    out->mirrors.push_back(Make(entry, host, /*mirror=*/true, *out));
  }
  return out;
}

uint64_t HostsDir::IdOf(const std::string& name) { return ids_.emplace(name, ids_.size() + 1).first->second; }

// What cannot be read of its certificates is left out, and said.
std::shared_ptr<const Endpoint> HostsDir::Make(const HostEntry& entry, const std::string& host, bool mirror, Endpoints& out) {
  auto endpoint = std::make_shared<Endpoint>();
  if (entry.url) {
    endpoint->base = *entry.url;
  } else {
    const std::string upstream = UpstreamOf(host);
    endpoint->base = {IsLoopbackHost(upstream) ? "http" : "https", upstream, "/"};
  }
  std::string& path = endpoint->base.target;
  while (path.ends_with('/')) path.pop_back();
  if (!entry.override_path && !path.ends_with("/v2")) path += "/v2";
  endpoint->pull = entry.pull;
  endpoint->resolve = entry.resolve;
  endpoint->push = entry.push;
  endpoint->headers = entry.headers;
  endpoint->connect_timeout = entry.dial_timeout.value_or(std::chrono::milliseconds(0));
  if (mirror) endpoint->id = IdOf(host + "\n" + endpoint->base.ToString());
  if (endpoint->base.host != host && endpoint->base.host != UpstreamOf(host)) endpoint->ns = host;
  if (entry.ca.empty() && entry.client.empty() && !entry.skip_verify) return endpoint;
  auto tls = std::make_shared<TlsSettings>();
  tls->skip_verify = entry.skip_verify;
  for (const std::string& ca : entry.ca) {
    out.files.push_back(ca);
    auto pem = ReadFile(ca, kCertificateBytesMax);
    if (!pem.ok()) {
      const std::string what = "ca: " + pem.status().message() + " (" + DirectoryFor(host) + "/hosts.toml)";
      log::Error("certificate authority is not used registry={} error=\"{}\"", host, what);
      out.note += (out.note.empty() ? "" : "; ") + what;
      continue;
    }
    tls->ca_pem += *pem + "\n";
  }
  if (!entry.client.empty()) {
    tls->client_certificate = entry.client.front().first;
    tls->client_key = entry.client.front().second;
    for (const std::string& needed : {tls->client_certificate, tls->client_key}) {
      struct stat st;
      if (!needed.empty()) out.files.push_back(needed);
      if (needed.empty() || ::stat(needed.c_str(), &st) == 0) continue;
      const std::string what = "client: " + needed + " is not there (" + DirectoryFor(host) + "/hosts.toml)";
      log::Error("client certificate is missing registry={} error=\"{}\"", host, what);
      out.note += (out.note.empty() ? "" : "; ") + what;
    }
  }
  endpoint->tls = std::move(tls);
  return endpoint;
}

}  // namespace headrace::registry
