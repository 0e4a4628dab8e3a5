// Credentials in a CRI PullImage request. Input: the serialised request.
#include <string>

#include "fusefs/base/status.h"
#include "snapshotter/keychain/pull_secret.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {

void FuzzPullSecret(Bytes data) {
  const std::string message(TextOf(data));
  const auto secret = snapshotter::ParsePullSecret(message);
  if (!secret) return;
  HEADRACE_CHECK(!secret->image.empty() && secret->image.size() <= 4096);
  HEADRACE_CHECK(secret->username.empty() != secret->identity_token.empty());
  HEADRACE_CHECK(snapshotter::ParsePullSecret(message) == secret);
}

}  // namespace headrace::fuzz
