// docker's config.json, what its helpers print, our own file of static credentials. Input: which of them, the text.
#include <string>

#include "fusefs/registry/docker_config.h"
#include "fusefs/registry/image_match.h"
#include "fusefs/registry/limits.h"
#include "fusefs/registry/static_credentials.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

// What becomes the name of a program must not become a path.
void CheckHelper(const std::string& name) { HEADRACE_CHECK(!name.empty() && name.find_first_of(std::string_view("/ \n\0", 4)) == std::string::npos); }

void CheckDocker(std::string_view text) {
  auto config = registry::DockerConfig::Parse(text);
  if (!config.ok()) return;
  for (const auto& [host, credentials] : config->auths) {
    HEADRACE_CHECK(registry::DockerConfig::NormaliseHost(host) == host && !(credentials == registry::Credentials{}));
  }
  for (const auto& [host, helper] : config->helpers) CheckHelper(helper);
  if (!config->default_helper.empty()) CheckHelper(config->default_helper);
}

void CheckHelperOutput(std::string_view text, int exit_code) {
  registry::ProgramResult result;
  result.exit_code = exit_code;
  result.output = text;
  auto credentials = registry::ParseHelperOutput(result);
  if (!credentials.ok()) {
    HEADRACE_CHECK(credentials.status().message().size() < 200);  // quotes nothing
    return;
  }
  HEADRACE_CHECK(exit_code == 0 && !(credentials->password.empty() && credentials->identity_token.empty()));
  HEADRACE_CHECK(credentials->password.size() <= registry::kSecretBytesMax && credentials->identity_token.size() <= registry::kSecretBytesMax);
}

void CheckStatic(std::string_view text) {
  auto entries = registry::ParseStaticCredentials(text);
  if (!entries.ok()) return;
  HEADRACE_CHECK(entries->size() <= registry::kMatchesMax);
  for (const registry::StaticEntry& entry : *entries) {
    HEADRACE_CHECK(registry::CheckImagePattern(entry.match).ok());
    const bool password = !entry.credentials.password.empty() || !entry.password_file.empty();
    const bool token = !entry.credentials.identity_token.empty() || !entry.identity_token_file.empty();
    HEADRACE_CHECK(password != token && password == !entry.credentials.username.empty());
    HEADRACE_CHECK(entry.password_file.empty() || entry.password_file.starts_with('/'));
    (void)registry::ImageMatches(entry.match, "registry.example:5000/team/model");
  }
}

}  // namespace

void FuzzCredentialFiles(Bytes data) {
  Input input(data);
  switch (input.Choice(4)) {
    case 0: return CheckDocker(input.Text());
    case 1: return CheckHelperOutput(input.Text(), 0);
    case 2: return CheckHelperOutput(input.Text(), 1);
    default: return CheckStatic(input.Text());
  }
}

}  // namespace headrace::fuzz
