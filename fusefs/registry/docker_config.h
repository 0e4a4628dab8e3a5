// Docker's config.json: which credentials belong to which registry.
//
// Read: "auths" with "auth" (base64 of "user:password"), "username" and "password", "identitytoken" (a refresh token). Keys are hosts in any
// of the forms that docker has written: "host[:port]", "https://host/v1/", "https://index.docker.io/v1/" for docker.io.
// Not supported yet: "credHelpers" and "credsStore" (programs to be asked); where only those know a host, why_none says so.
// CredentialStore re-reads its file when its size, time or inode changed; it touches the local disk only. Thread-safe.
// Secrets: Credentials are never logged and never part of an error.
#ifndef HEADRACE_FUSEFS_REGISTRY_DOCKER_CONFIG_H_
#define HEADRACE_FUSEFS_REGISTRY_DOCKER_CONFIG_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"

namespace headrace::registry {

struct Credentials {
  std::string username;
  std::string password;
  std::string identity_token;  // if not "": exchanged for tokens, instead of the password
  bool operator==(const Credentials&) const = default;
};

struct DockerConfig {
  std::map<std::string, Credentials> auths;          // by normalised host
  std::map<std::string, std::string> helpers;        // credHelpers, by normalised host
  std::string default_helper;                        // credsStore
  std::map<std::string, std::string> broken;         // by normalised host: what is wrong with its entry

  static Result<DockerConfig> Parse(std::string_view json);
  // "https://index.docker.io/v1/" -> "docker.io", "https://host:5000/v1/" -> "host:5000".
  static std::string NormaliseHost(std::string_view key);
};

class CredentialStore {
 public:
  struct Answer {
    std::optional<Credentials> credentials;
    std::string why_none;  // for people: "no credentials for this host in /root/.docker/config.json; log in ..."
  };
  explicit CredentialStore(std::string path);  // "" = never any credentials
  Answer Find(const std::string& host);

 private:
  struct FileState {
    int64_t size = -1, mtime_ns = 0;
    uint64_t inode = 0;
    bool operator==(const FileState&) const = default;
  };
  void ReloadIfChanged() HR_REQUIRES(mu_);

  const std::string path_;
  Mutex mu_;
  FileState loaded_ HR_GUARDED_BY(mu_);
  Status load_error_ HR_GUARDED_BY(mu_);
  DockerConfig config_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_DOCKER_CONFIG_H_
