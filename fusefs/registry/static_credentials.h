// StaticCredentials: credentials that somebody wrote into a file of ours, for nodes without any of the other sources.
//
//   {"credentials": [
//     {"match": "registry.example.com/team", "username": "u", "password": "p"},
//     {"match": "*.example.com", "username": "u", "password_file": "/etc/headrace/password"},
//     {"match": "ghcr.example.com", "identity_token_file": "/etc/headrace/token"}]}
//
// `match` is a pattern as the kubelet's matchImages (image_match.h); the first entry that matches and was not refused wins. *_file names a file
// with the secret (an absolute path; a newline at its end does not count). Unknown keys are errors, and so is a file (this or a *_file) that
// others than its owner can read. The file is read for every question (they are rare): a changed one counts at once.
// Errors name the file, the entry and the key, never a value. Any thread; blocks on the local disk.
#ifndef HEADRACE_FUSEFS_REGISTRY_STATIC_CREDENTIALS_H_
#define HEADRACE_FUSEFS_REGISTRY_STATIC_CREDENTIALS_H_

#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/registry/credential_source.h"

namespace headrace::registry {

struct StaticEntry {
  std::string match;
  Credentials credentials;
  std::string password_file, identity_token_file;
};

// Pure.
Result<std::vector<StaticEntry>> ParseStaticCredentials(std::string_view json);

class StaticCredentials : public CredentialSource {
 public:
  explicit StaticCredentials(std::string path) : path_(std::move(path)) {}
  CredentialAnswer Find(const CredentialQuery& query, const StopSignal& stop) override;
  Status Check() const;  // what is wrong with the file now

 private:
  const std::string path_;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_STATIC_CREDENTIALS_H_
