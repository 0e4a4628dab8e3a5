// CredentialSource: somewhere that knows users and passwords of registries. The chain (credential_chain.h) asks the sources in order.
//
// Ownership: sources are shared by the chain and by who feeds them (the control API feeds RememberedCredentials).
// Threads: Find is called by the chain's own threads, by several at once. It may block (files, programs) until `deadline`, and returns soon
// after `stop` was called; never call it from a network, FUSE or gRPC thread.
// Secrets: Credentials are never logged, never part of an error or a metric, never an argument of a program. `why_none` is for people and
// names the source, the file, the key and what to do; it never holds anything that a program or a file said as a secret.
#ifndef HEADRACE_FUSEFS_REGISTRY_CREDENTIAL_SOURCE_H_
#define HEADRACE_FUSEFS_REGISTRY_CREDENTIAL_SOURCE_H_

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "fusefs/registry/program.h"

namespace headrace::registry {

struct Credentials {
  std::string username;
  std::string password;
  std::string identity_token;  // if not "": exchanged for tokens, instead of the password
  bool operator==(const Credentials&) const = default;
};

struct CredentialQuery {
  std::string host;        // as in the reference, or a mirror's
  std::string repository;
  std::vector<Credentials> refused;  // by the registry just now: they are no answer
  bool Refused(const Credentials& found) const { return std::find(refused.begin(), refused.end(), found) != refused.end(); }
};

struct CredentialAnswer {
  std::optional<Credentials> credentials;
  std::string why_none;
  bool temporary = false;  // it may be otherwise a moment later (a program that hung)
};

class CredentialSource {
 public:
  virtual ~CredentialSource() = default;
  virtual CredentialAnswer Find(const CredentialQuery& query, const StopSignal& stop) = 0;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_CREDENTIAL_SOURCE_H_
