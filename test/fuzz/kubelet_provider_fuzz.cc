// The kubelet's credential providers: configuration, answers, durations, patterns. Input: which of them, the text (a pattern and an image: one a line).
#include <set>
#include <string>

#include "fusefs/registry/image_match.h"
#include "fusefs/registry/limits.h"
#include "fusefs/registry/provider_config.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

constexpr char kImage[] = "registry.example:5000/team/model";

void CheckProvider(const registry::Provider& provider) {
  HEADRACE_CHECK(!provider.name.empty() && provider.name != ".." && provider.name.find('/') == std::string::npos);
  HEADRACE_CHECK(!provider.match_images.empty() && provider.match_images.size() <= registry::kMatchesMax);
  for (const std::string& pattern : provider.match_images) HEADRACE_CHECK(registry::CheckImagePattern(pattern).ok());
  HEADRACE_CHECK(provider.default_cache_duration.count() >= 0 && provider.default_cache_duration <= registry::kCacheDurationMax);
  for (const std::string& variable : provider.environment) HEADRACE_CHECK(variable.find('=') != 0 && variable.find('=') != std::string::npos);
  HEADRACE_CHECK(!registry::ProviderRequest(provider, kImage).empty());
}

void CheckConfig(std::string_view text) {
  auto config = registry::ProviderConfig::Parse(text);
  if (!config.ok()) return;
  HEADRACE_CHECK(config->providers.size() + config->left_out.size() <= registry::kProvidersMax);
  std::set<std::string> names;
  for (const registry::Provider& provider : config->providers) {
    HEADRACE_CHECK(names.insert(provider.name).second);
    CheckProvider(provider);
  }
}

void CheckAnswer(std::string_view text) {
  registry::Provider provider;
  provider.name = "p";
  provider.api_version = "credentialprovider.kubelet.k8s.io/v1";
  auto answer = registry::ParseProviderResponse(provider, kImage, std::string(text));
  if (!answer.ok()) {
    HEADRACE_CHECK(answer.status().message().size() < 200);  // quotes nothing
    return;
  }
  HEADRACE_CHECK(answer->lifetime.count() >= 0 && answer->lifetime <= registry::kCacheDurationMax);
  HEADRACE_CHECK(answer->key.starts_with("p\n") && answer->credentials.size() <= registry::kMatchesMax);
  for (const auto& [pattern, credentials] : answer->credentials) HEADRACE_CHECK(!credentials.username.empty());
  HEADRACE_CHECK(registry::CredentialsFor(*answer, kImage).size() <= answer->credentials.size());
  (void)registry::CredentialsFor(*answer, "docker.io/library/busybox").size();
}

}  // namespace

void FuzzKubeletProvider(Bytes data) {
  Input input(data);
  switch (input.Choice(4)) {
    case 0: return CheckConfig(input.Text());
    case 1: return CheckAnswer(input.Text());
    case 2: {
      auto duration = registry::ParseGoDuration(input.Text());
      if (duration.ok()) HEADRACE_CHECK(duration->count() >= 0 && duration->count() <= 9'300'000'000);
      return;
    }
    default: {
      const std::string_view pattern = input.Line();
      (void)registry::ImageMatches(pattern, input.Text());
      (void)registry::CheckImagePattern(pattern).ok();
      auto glob = registry::GlobMatches(pattern, input.Text());
      // Without any special character a pattern matches itself only.
      if (pattern.find_first_of("*?[\\") == std::string_view::npos) HEADRACE_CHECK(glob.ok() && *glob == (pattern == input.Text()));
    }
  }
}

}  // namespace headrace::fuzz
