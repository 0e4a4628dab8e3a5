// Docker's config.json: which credentials belong to which registry.
//
// Read: "auths" with "auth" (base64 of "user:password"), "username" and "password", "identitytoken" (a refresh token); "credHelpers" and
// "credsStore" (programs docker-credential-NAME of $PATH, asked with `get`; docker-credential-helpers protocol). Keys are hosts in any of the
// forms that docker has written: "host[:port]", "https://host/v1/", "https://index.docker.io/v1/" for docker.io.
// Order for a host, as docker's: its credHelpers entry, credsStore, auths; a program that does not know the host leaves it to the next.
// CredentialStore re-reads its file when its size, time or inode changed. Thread-safe; Find blocks on the local disk and on programs
// (their answers are kept for kHelperLifetime; see program_answers.h for single flight and pauses).
// Secrets: Credentials are never logged and never part of an error; nothing that a program writes is.
#ifndef HEADRACE_FUSEFS_REGISTRY_DOCKER_CONFIG_H_
#define HEADRACE_FUSEFS_REGISTRY_DOCKER_CONFIG_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/credential_source.h"
#include "fusefs/registry/program_answers.h"

namespace headrace::registry {

struct DockerConfig {
  std::map<std::string, Credentials> auths;          // by normalised host
  std::map<std::string, std::string> helpers;        // credHelpers, by normalised host
  std::string default_helper;                        // credsStore
  std::map<std::string, std::string> broken;         // by normalised host: what is wrong with its entry

  static Result<DockerConfig> Parse(std::string_view json);
  // "https://index.docker.io/v1/" -> "docker.io", "https://host:5000/v1/" -> "host:5000".
  static std::string NormaliseHost(std::string_view key);
};

// "host[:port]" or "docker.io" as programs of docker want to hear it: docker.io is "https://index.docker.io/v1/" to them.
std::string HelperServer(const std::string& normalised_host);
// What `docker-credential-NAME get` printed. NotFound: it has none. No error quotes the output.
Result<Credentials> ParseHelperOutput(const ProgramResult& result);

class CredentialStore : public CredentialSource {
 public:
  // "" = never any credentials.
  explicit CredentialStore(std::string path, std::chrono::milliseconds program_timeout = std::chrono::seconds(30));
  CredentialAnswer Find(const CredentialQuery& query, const StopSignal& stop) override;

 private:
  struct FileState {
    int64_t size = -1, mtime_ns = 0;
    uint64_t inode = 0;
    bool operator==(const FileState&) const = default;
  };
  // What the file says about one host.
  struct Lookup {
    std::vector<std::string> helpers;  // names, in order
    std::optional<Credentials> credentials;
    std::string problem;               // with its own entry or the file
  };
  void ReloadIfChanged() HR_REQUIRES(mu_);
  Lookup LookUp(const std::string& key);
  // Adds to `reasons` if it has none.
  std::optional<Credentials> AskHelper(const std::string& name, const std::string& key, const CredentialQuery& query,
                                       const StopSignal& stop, CredentialAnswer& reasons);

  const std::string path_;
  const std::chrono::milliseconds program_timeout_;
  ProgramAnswers answers_;
  Mutex mu_;
  FileState loaded_ HR_GUARDED_BY(mu_);
  Status load_error_ HR_GUARDED_BY(mu_);
  DockerConfig config_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_DOCKER_CONFIG_H_
