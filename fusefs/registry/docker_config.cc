#include "fusefs/registry/docker_config.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "fusefs/base/file.h"
#include "fusefs/base/text.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

using Json = nlohmann::json;

std::string StringField(const Json& object, const char* name) {
  auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// "" if the entry is fine. An entry without anything in it (docker writes those beside a credsStore) leaves `out` empty.
std::string ParseEntry(const Json& entry, Credentials& out) {
  if (!entry.is_object()) return "the entry is not an object";
  out.username = StringField(entry, "username");
  out.password = StringField(entry, "password");
  out.identity_token = StringField(entry, "identitytoken");
  std::string auth = StringField(entry, "auth");
  if (!auth.empty()) {
    Result<std::string> plain = Base64Decode(auth);
    size_t colon = plain.ok() ? plain->find(':') : std::string::npos;
    if (colon == std::string::npos) return "\"auth\" is not the base64 of user:password";
    out.username = plain->substr(0, colon);
    out.password = plain->substr(colon + 1);
    while (!out.password.empty() && out.password.back() == '\0') out.password.pop_back();
  }
  if (!StringField(entry, "registrytoken").empty() && out.password.empty() && out.identity_token.empty()) {
    return "\"registrytoken\" is not supported";
  }
  return "";
}

}  // namespace

std::string DockerConfig::NormaliseHost(std::string_view key) {
  for (std::string_view scheme : {"https://", "http://"}) {
    if (key.starts_with(scheme)) key.remove_prefix(scheme.size());
  }
  std::string host(key.substr(0, key.find('/')));
  for (char& c : host) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return host == "index.docker.io" || host == "registry-1.docker.io" ? "docker.io" : host;
}

Result<DockerConfig> DockerConfig::Parse(std::string_view json) {
  if (json.size() > kDockerConfigBytesMax) return InvalidArgumentError("larger than 1 MiB");
  Json root = Json::parse(json, nullptr, false);
  if (!root.is_object()) return InvalidArgumentError("not a JSON object");
  DockerConfig config;
  auto auths = root.find("auths");
  if (auths != root.end() && auths->is_object()) {
    for (const auto& [key, entry] : auths->items()) {
      const std::string host = NormaliseHost(key);
      Credentials credentials;
      std::string problem = ParseEntry(entry, credentials);
      if (!problem.empty()) {
        config.broken.emplace(host, problem);
      } else if (!(credentials == Credentials{})) {
        bool exact = key == host;  // "host" is preferred to "https://host/v1/"
        if (exact) config.auths[host] = std::move(credentials);
        else config.auths.emplace(host, std::move(credentials));
      }
    }
  }
  auto helpers = root.find("credHelpers");
  if (helpers != root.end() && helpers->is_object()) {
    for (const auto& [key, helper] : helpers->items()) {
      if (helper.is_string()) config.helpers[NormaliseHost(key)] = helper.get<std::string>();
    }
  }
  config.default_helper = StringField(root, "credsStore");
  return config;
}

CredentialStore::CredentialStore(std::string path) : path_(std::move(path)) {}

void CredentialStore::ReloadIfChanged() {
  struct stat info{};
  FileState now;
  if (::stat(path_.c_str(), &info) == 0) {
    now = {info.st_size, info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec, info.st_ino};
  }
  if (now == loaded_ && now.size >= 0) return;
  loaded_ = now;
  config_ = {};
  load_error_ = {};
  if (now.size < 0) return;  // no file is as good as an empty one
  Result<std::string> text = ReadFile(path_, kDockerConfigBytesMax);
  Result<DockerConfig> parsed = text.ok() ? DockerConfig::Parse(*text) : Result<DockerConfig>(text.status());
  if (parsed.ok()) {
    config_ = std::move(*parsed);
  } else {
    load_error_ = parsed.status();
  }
}

CredentialStore::Answer CredentialStore::Find(const std::string& host) {
  if (path_.empty()) return {std::nullopt, "no credentials are configured (no docker config.json is set)"};
  const std::string key = DockerConfig::NormaliseHost(host);
  MutexLock lock(mu_);
  ReloadIfChanged();
  if (!load_error_.ok()) return {std::nullopt, path_ + " could not be used: " + load_error_.message()};
  if (auto found = config_.auths.find(key); found != config_.auths.end()) return {found->second, ""};
  if (auto found = config_.broken.find(key); found != config_.broken.end()) {
    return {std::nullopt, "the credentials for this host in " + path_ + " could not be used: " + found->second};
  }
  auto helper = config_.helpers.find(key);
  std::string program = helper != config_.helpers.end() ? helper->second : config_.default_helper;
  if (!program.empty()) {
    return {std::nullopt, path_ + " leaves this host to the credential helper '" + program.substr(0, 100) +
                              "': credential helpers are not supported yet; put the credentials under \"auths\""};
  }
  return {std::nullopt, "no credentials for this host in " + path_ + "; log in (docker login " + key.substr(0, 256) +
                            ") or put them there"};
}

}  // namespace headrace::registry
