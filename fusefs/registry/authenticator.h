// Authenticator: from a 401 to an Authorization header: Basic, or Bearer tokens of the registry's token server (distribution project's token
// specification: GET with basic credentials or none, POST with a refresh token), kept until they expire.
//
// Single flight: all requests that need an authorization for one (host, repository, scope) wait for the one renewal under way. A renewal asks
// the chain of credential sources (on its threads) and, for Bearer, the token server. Credentials that were refused are skipped for
// kRefusedFor, so the next source gets its turn; at most kAuthorizationsMax are tried in one renewal.
// Threads: network thread only; never blocks.
// Credentials go to the registry's own origin and to the token server that it names, there only over https, or if the registry itself is
// spoken to by plain http. Errors and logs never hold credentials or tokens.
#ifndef HEADRACE_FUSEFS_REGISTRY_AUTHENTICATOR_H_
#define HEADRACE_FUSEFS_REGISTRY_AUTHENTICATOR_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/registry/auth_challenge.h"
#include "fusefs/registry/credential_chain.h"
#include "fusefs/registry/http_engine.h"

namespace headrace::registry {

// What a request needs to be allowed to do.
struct AuthTarget {
  std::string host;                 // as in the reference
  std::string repository;
  std::string actions = "pull";     // "pull" or "pull,push"
  std::string mount_from;           // another repository that must be readable, or ""
  bool plain_http = false;          // the registry is spoken to without TLS
  std::shared_ptr<const TlsSettings> tls;  // counts for its token server as well; may be null

  std::string Key() const { return host + "\n" + repository + "\n" + actions + "\n" + mount_from; }
};

// Why a request needs another authorization.
enum class Renewal {
  kUnauthorized,  // 401: what was sent may have expired, or is wrong
  kFreshRefused,  // 401 although this very attempt had renewed it: its credentials are wrong
  kForbidden,     // 403: some registries say so of what has expired; helps only if there are other credentials, or a new token
};

class Authenticator {
 public:
  // An Authorization value, or why there is none.
  using Done = std::function<void(Result<std::string> authorization)>;

  Authenticator(HttpEngine& engine, CredentialChain& credentials) : engine_(engine), credentials_(credentials) {}
  Authenticator(const Authenticator&) = delete;
  Authenticator& operator=(const Authenticator&) = delete;

  // What is known to work; "" if nothing is.
  std::string Cached(const AuthTarget& target);
  // After a refusal of a request that was sent with `used` ("" = none): a better value. `challenges` may be empty if an earlier answer had some.
  // `done` may be called at once; else when the sources of credentials and the token server have answered.
  void Authorize(const AuthTarget& target, const std::vector<std::string>& challenges, const std::string& used, Renewal why, Done done);

 private:
  using Clock = std::chrono::steady_clock;
  struct Refusal {
    Credentials credentials;
    Clock::time_point until;
  };
  // What is known of one target.
  struct Entry {
    std::string authorization;  // "" = none
    Clock::time_point expiry;
    std::optional<Credentials> behind;  // what authorization was made of
    std::optional<AuthChallenge> challenge;
    std::vector<Refusal> refused;
    bool anonymous_refused = false;  // the token that anybody gets does not do
  };
  // One renewal under way, and who waits for it.
  struct Flight {
    AuthTarget target;
    AuthChallenge challenge;
    std::string used;
    std::vector<Credentials> avoid;  // beside those of Entry::refused
    int tries = 0;
    std::vector<Done> waiting;
  };
  friend class TokenRequest;
  Entry& EntryOf(const std::string& key);
  void NoteRefusal(const std::string& key, const std::optional<Credentials>& refused);
  void AskChain(const std::string& key);
  void OnCredentials(const std::string& key, CredentialAnswer found);
  void UseBasic(const std::string& key, const CredentialAnswer& found);
  void RequestToken(const std::string& key, CredentialAnswer found);
  Result<HttpRequest> MakeTokenRequest(const AuthTarget& target, const AuthChallenge& challenge, const CredentialAnswer& found,
                                       std::string& form) const;
  void OnToken(const std::string& key, const CredentialAnswer& found, std::string authorization, std::chrono::seconds lifetime);
  void OnTokenRefused(const std::string& key, const CredentialAnswer& found, Status status);
  void Store(const std::string& key, std::string authorization, std::chrono::seconds lifetime, const std::optional<Credentials>& behind);
  void FinishFlight(const std::string& key, const Result<std::string>& result);

  HttpEngine& engine_;
  CredentialChain& credentials_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, Flight> flights_;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_AUTHENTICATOR_H_
