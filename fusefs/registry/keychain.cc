#include "fusefs/registry/keychain.h"

#include "fusefs/registry/docker_config.h"
#include "fusefs/registry/kubelet_providers.h"
#include "fusefs/registry/static_credentials.h"

namespace headrace::registry {

std::vector<std::shared_ptr<CredentialSource>> MakeCredentialSources(const KeychainOptions& options) {
  std::vector<std::shared_ptr<CredentialSource>> out;
  if (options.remembered) out.push_back(options.remembered);
  if (!options.provider_config.empty()) {
    out.push_back(std::make_shared<KubeletProviders>(options.provider_config, options.provider_programs, options.program_timeout));
  }
  if (!options.docker_config.empty()) out.push_back(std::make_shared<CredentialStore>(options.docker_config, options.program_timeout));
  if (!options.credentials_file.empty()) out.push_back(std::make_shared<StaticCredentials>(options.credentials_file));
  return out;
}

Status CheckKeychain(const KeychainOptions& options, std::vector<std::string>* warnings) {
  if (options.provider_config.empty() != options.provider_programs.empty()) {
    return InvalidArgumentError(
        "keychain.credential_provider_config and keychain.credential_provider_bin_dir belong together: set both to the kubelet's "
        "--image-credential-provider-config and --image-credential-provider-bin-dir, or none");
  }
  for (const std::string* path : {&options.provider_config, &options.provider_programs, &options.credentials_file}) {
    if (!path->empty() && path->front() != '/') return InvalidArgumentError("[keychain]: \"" + *path + "\" must be an absolute path");
  }
  auto warn = [&](const Status& status) {
    if (!status.ok()) warnings->push_back(status.message());
  };
  if (!options.provider_config.empty()) {
    warn(KubeletProviders(options.provider_config, options.provider_programs, options.program_timeout).Check());
  }
  if (!options.credentials_file.empty()) warn(StaticCredentials(options.credentials_file).Check());
  return OkStatus();
}

}  // namespace headrace::registry
