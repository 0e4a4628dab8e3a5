// WWW-Authenticate: what a registry says about how to authenticate (RFC 7235 section 4.1; the Bearer parameters of the distribution
// project's token specification), and the answer of a token server. Pure functions; any input is fine, what is not understood is skipped.
#ifndef HEADRACE_FUSEFS_REGISTRY_AUTH_CHALLENGE_H_
#define HEADRACE_FUSEFS_REGISTRY_AUTH_CHALLENGE_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"

namespace headrace::registry {

struct AuthChallenge {
  enum class Scheme { kBearer, kBasic };
  Scheme scheme = Scheme::kBearer;
  std::string realm;    // Bearer: URL of the token endpoint
  std::string service;
  std::string scope;    // space-separated
};

// Challenges of the schemes that we know in one header value, in order.
std::vector<AuthChallenge> ParseChallenges(std::string_view header);
// The best of several header values: Bearer with a realm, else Basic.
std::optional<AuthChallenge> ChooseChallenge(const std::vector<std::string>& headers);

struct AuthToken {
  std::string value;  // visible ASCII: it becomes a header line
  std::chrono::seconds lifetime{};
};
// The answer of a token server. Errors quote nothing of it.
Result<AuthToken> ParseTokenAnswer(std::string_view body);

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_AUTH_CHALLENGE_H_
