// WWW-Authenticate and answers of token servers. Input: '0' and header values, one a line; '1' and the answer.
#include <algorithm>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/registry/auth_challenge.h"
#include "fusefs/registry/limits.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

void CheckToken(std::string_view body) {
  auto token = registry::ParseTokenAnswer(body);
  if (!token.ok()) {
    HEADRACE_CHECK(token.status().message().size() < 200);  // quotes nothing
    return;
  }
  HEADRACE_CHECK(!token->value.empty() && token->value.size() <= registry::kTokenBytesMax);
  HEADRACE_CHECK(std::all_of(token->value.begin(), token->value.end(), [](char c) { return c > ' ' && c <= '~'; }));
  HEADRACE_CHECK(token->lifetime.count() >= 0 && token->lifetime <= registry::kTokenLifetimeMax);
}

}  // namespace

void FuzzAuthChallenge(Bytes data) {
  Input input(data);
  if (input.Choice(2) == 1) return CheckToken(input.Text());
  std::vector<std::string> headers;
  bool bearer = false, basic = false;
  while (!input.empty()) {
    const std::string_view header = input.Line();
    headers.emplace_back(header);
    size_t bytes = 0;
    for (const registry::AuthChallenge& challenge : registry::ParseChallenges(header)) {
      bytes += challenge.realm.size() + challenge.service.size() + challenge.scope.size() + 5;  // and the scheme's name
      if (challenge.scheme == registry::AuthChallenge::Scheme::kBasic) basic = true;
      else bearer = bearer || !challenge.realm.empty();
    }
    HEADRACE_CHECK(bytes <= header.size());  // nothing is made up
  }
  const auto chosen = registry::ChooseChallenge(headers);
  HEADRACE_CHECK(chosen.has_value() == (bearer || basic));
  if (!chosen) return;
  HEADRACE_CHECK((chosen->scheme == registry::AuthChallenge::Scheme::kBearer) == bearer);
  HEADRACE_CHECK(!bearer || !chosen->realm.empty());
}

}  // namespace headrace::fuzz
