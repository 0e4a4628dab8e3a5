// Authenticator: from a 401 to an Authorization header: Basic, or Bearer tokens of the registry's token server (distribution project's token
// specification: GET with basic credentials or none, POST with a refresh token), kept until they expire.
//
// Single flight: all requests that need a token for one (host, repository, scope) wait for the one token request under way.
// Threads: network thread only; never blocks (it may stat and read the local credentials file when a 401 came).
// Credentials go to the registry's own origin and to the token server that it names, there only over https, or if the registry itself is
// spoken to by plain http. Errors and logs never hold credentials or tokens.
#ifndef HEADRACE_FUSEFS_REGISTRY_AUTHENTICATOR_H_
#define HEADRACE_FUSEFS_REGISTRY_AUTHENTICATOR_H_

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/registry/auth_challenge.h"
#include "fusefs/registry/docker_config.h"
#include "fusefs/registry/http_engine.h"

namespace headrace::registry {

// What a request needs to be allowed to do.
struct AuthTarget {
  std::string host;                 // as in the reference
  std::string repository;
  std::string actions = "pull";     // "pull" or "pull,push"
  std::string mount_from;           // another repository that must be readable, or ""
  bool plain_http = false;          // the registry is spoken to without TLS

  std::string Key() const { return host + "\n" + repository + "\n" + actions + "\n" + mount_from; }
};

class Authenticator {
 public:
  // An Authorization value, or why there is none.
  using Done = std::function<void(Result<std::string> authorization)>;

  Authenticator(HttpEngine& engine, CredentialStore& credentials) : engine_(engine), credentials_(credentials) {}
  Authenticator(const Authenticator&) = delete;
  Authenticator& operator=(const Authenticator&) = delete;

  // What is known to work; "" if nothing is.
  std::string Cached(const AuthTarget& target);
  // After a 401 to a request that was sent with `used` ("" = none): a better value. `done` may be called at once.
  void Authorize(const AuthTarget& target, const std::vector<std::string>& challenges, const std::string& used, Done done);

 private:
  struct Entry {
    std::string authorization;
    std::chrono::steady_clock::time_point expiry;
  };
  friend class TokenRequest;
  Result<std::string> BasicHeader(const AuthTarget& target, const std::string& used);
  Result<HttpRequest> MakeTokenRequest(const AuthTarget& target, const AuthChallenge& challenge,
                                       const CredentialStore::Answer& found, std::string& form) const;
  void Store(const std::string& key, std::string authorization, std::chrono::seconds lifetime);
  void FinishFlight(const std::string& key, const Result<std::string>& result);

  HttpEngine& engine_;
  CredentialStore& credentials_;
  std::map<std::string, Entry> cache_;
  std::map<std::string, std::vector<Done>> flights_;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_AUTHENTICATOR_H_
