// Keychain: which sources of credentials there are and in which order they are asked (registry/README.md tells it to people):
// PullImage (remembered), kubelet credential providers, docker's config.json with its helpers, a static file.
// Pure but for CheckKeychain, which reads the files.
#ifndef HEADRACE_FUSEFS_REGISTRY_KEYCHAIN_H_
#define HEADRACE_FUSEFS_REGISTRY_KEYCHAIN_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "fusefs/registry/credential_source.h"
#include "fusefs/registry/remembered_credentials.h"

namespace headrace::registry {

// Each source is left out where its setting is empty.
struct KeychainOptions {
  std::shared_ptr<RememberedCredentials> remembered;  // shared with the control API, which feeds it
  std::string provider_config, provider_programs;     // the kubelet's; both or none
  std::string docker_config;
  std::string credentials_file;
  std::chrono::milliseconds program_timeout{30'000};
};

std::vector<std::shared_ptr<CredentialSource>> MakeCredentialSources(const KeychainOptions& options);

// What is wrong with the settings themselves (an error that ends the start), and with what they name now (for the log: it may be mended
// while we run, and the other sources work).
Status CheckKeychain(const KeychainOptions& options, std::vector<std::string>* warnings);

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_KEYCHAIN_H_
