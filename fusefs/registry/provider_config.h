// The kubelet's files and messages about image credential providers; pure parsers.
//
// CredentialProviderConfig (kubelet.config.k8s.io/v1, also v1beta1 and v1alpha1), YAML or JSON: the file of the kubelet's
// --image-credential-provider-config. Fields: providers[].name, matchImages, defaultCacheDuration, apiVersion, args, env; a provider with
// tokenAttributes needs tokens of a pod's service account, which only the kubelet can ask for: it is left out, and `left_out` says so.
// CredentialProviderRequest and -Response (credentialprovider.kubelet.k8s.io/v1, also v1beta1 and v1alpha1): JSON on the program's standard
// input and output. Source of both: kubernetes.io/docs/reference/config-api/kubelet-config.v1 and kubelet-credentialprovider.v1.
// Errors name the key ("providers[1].matchImages[0]") and what is allowed. They never quote a value of env, args, or an answer.
#ifndef HEADRACE_FUSEFS_REGISTRY_PROVIDER_CONFIG_H_
#define HEADRACE_FUSEFS_REGISTRY_PROVIDER_CONFIG_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/registry/credential_source.h"
#include "fusefs/registry/program_answers.h"

namespace headrace::registry {

struct Provider {
  std::string name;                      // of the program in the directory of programs
  std::vector<std::string> match_images;
  std::chrono::seconds default_cache_duration{0};
  std::string api_version;
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // "NAME=value"
};

struct ProviderConfig {
  std::vector<Provider> providers;
  std::vector<Provider> left_out;  // those with tokenAttributes

  static Result<ProviderConfig> Parse(std::string_view yaml_or_json);
};

// Go's durations: "12h", "1h30m", "90s", "1.5h", "0", "100ms". Negative ones and overflow are errors; cut to whole seconds.
Result<std::chrono::seconds> ParseGoDuration(std::string_view text);

// "host/repository" without tag, as the kubelet asks.
std::string ProviderRequest(const Provider& provider, const std::string& image);
// The keys under which an answer for the image may be kept: the image's, its registry's, the global one.
std::vector<std::string> ProviderCacheKeys(const Provider& provider, const std::string& image);
// An answer to a request for `image`. Errors quote nothing of it.
Result<ProgramAnswer> ParseProviderResponse(const Provider& provider, const std::string& image, const std::string& output);
// The credentials of an answer in the order in which the kubelet tries them for the image: longest patterns first.
std::vector<Credentials> CredentialsFor(const ProgramAnswer& answer, const std::string& image);

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_PROVIDER_CONFIG_H_
