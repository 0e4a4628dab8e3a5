// CredentialChain: asks the sources of credentials in order, on threads of its own.
//
// Ask never blocks: `done` is called once, on a chain's thread (or at once, by the caller, after Stop). The first source with credentials that
// are not among the refused ones wins; if none has any, the answer says for each source why. Each source is asked once for each Ask.
// Stop kills running programs, answers what waits with "stopped", and joins; further questions are answered at once. Call it before what
// `done` uses goes away.
// Questions wait in order for one of kCredentialThreads threads: a program that hangs delays others only when so many hang.
#ifndef HEADRACE_FUSEFS_REGISTRY_CREDENTIAL_CHAIN_H_
#define HEADRACE_FUSEFS_REGISTRY_CREDENTIAL_CHAIN_H_

#include <functional>
#include <memory>
#include <vector>

#include "fusefs/base/executor.h"
#include "fusefs/base/mutex.h"
#include "fusefs/registry/credential_source.h"

namespace headrace::registry {

class CredentialChain {
 public:
  using Done = std::function<void(CredentialAnswer answer)>;
  explicit CredentialChain(std::vector<std::shared_ptr<CredentialSource>> sources);
  ~CredentialChain();
  CredentialChain(const CredentialChain&) = delete;
  CredentialChain& operator=(const CredentialChain&) = delete;

  void Ask(CredentialQuery query, Done done);
  void Stop();
  // What Ask answers; blocks.
  CredentialAnswer Walk(const CredentialQuery& query) const;

 private:
  const std::vector<std::shared_ptr<CredentialSource>> sources_;
  StopSignal stop_;
  Mutex mu_;
  std::unique_ptr<ThreadPool> threads_ HR_GUARDED_BY(mu_);  // made by the first question; empty again after Stop
  bool stopped_ HR_GUARDED_BY(mu_) = false;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_CREDENTIAL_CHAIN_H_
