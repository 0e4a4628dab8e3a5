// KubeletProviders: the kubelet's image credential providers as a source of credentials, with the kubelet's own file and programs.
//
// The configuration is a file or a directory (its *.json, *.yaml and *.yml in order of their names); it is read again when one of them changes.
// All providers whose matchImages match are asked, in order, as the kubelet does. Answers are kept by their cacheKeyType for their
// cacheDuration (or defaultCacheDuration); refused ones are asked anew. Programs run with `timeout` (program.h), as the user of this process.
// Differences to the kubelet: no service account tokens (provider_config.h); of this process's environment a program gets only CleanEnvironment().
// Find blocks on the local disk and on programs. Any thread, several at once.
#ifndef HEADRACE_FUSEFS_REGISTRY_KUBELET_PROVIDERS_H_
#define HEADRACE_FUSEFS_REGISTRY_KUBELET_PROVIDERS_H_

#include <chrono>
#include <memory>
#include <string>

#include "fusefs/base/mutex.h"
#include "fusefs/registry/credential_source.h"
#include "fusefs/registry/program_answers.h"
#include "fusefs/registry/provider_config.h"

namespace headrace::registry {

class KubeletProviders : public CredentialSource {
 public:
  // `config`: the kubelet's --image-credential-provider-config, `programs`: its --image-credential-provider-bin-dir.
  KubeletProviders(std::string config, std::string programs, std::chrono::milliseconds timeout);
  CredentialAnswer Find(const CredentialQuery& query, const StopSignal& stop) override;
  // What is wrong with the configuration now, for the start of a daemon to say; OK if nothing.
  Status Check();

 private:
  std::shared_ptr<const ProviderConfig> Load(Status& error);
  Result<ProgramAnswer> Run(const Provider& provider, const std::string& image, const StopSignal& stop);

  const std::string config_, programs_;
  const std::chrono::milliseconds timeout_;
  ProgramAnswers answers_;
  Mutex mu_;
  std::string loaded_state_ HR_GUARDED_BY(mu_);  // names, sizes, times of the files
  std::shared_ptr<const ProviderConfig> loaded_ HR_GUARDED_BY(mu_);  // shared with who is asking while it is replaced
  Status error_ HR_GUARDED_BY(mu_);
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_KUBELET_PROVIDERS_H_
