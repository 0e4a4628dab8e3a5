#include "fusefs/registry/remembered_credentials.h"

#include <algorithm>

#include "fusefs/registry/docker_config.h"
#include "fusefs/registry/limits.h"
#include "fusefs/registry/reference.h"

namespace headrace::registry {
namespace {

std::string KeyOf(const std::string& host, const std::string& repository) {
  return DockerConfig::NormaliseHost(host) + "/" + repository;
}

}  // namespace

Status RememberedCredentials::Remember(const std::string& image, Credentials credentials) {
  HR_ASSIGN_OR_RETURN(Reference reference, Reference::Parse(image));
  if (credentials == Credentials{}) return InvalidArgumentError("empty credentials");
  for (const std::string* text : {&credentials.username, &credentials.password, &credentials.identity_token}) {
    if (text->size() > kSecretBytesMax) return InvalidArgumentError("a user, password or token of more than 64 KiB");
  }
  const std::string key = KeyOf(reference.host, reference.repository);
  MutexLock lock(mu_);
  if (entries_.size() >= kRememberedMax && !entries_.contains(key)) {
    entries_.erase(std::min_element(entries_.begin(), entries_.end(),
                                    [](const auto& a, const auto& b) { return a.second.turn < b.second.turn; }));
  }
  Entry& entry = entries_[key];
  entry.turn = ++turn_;
  std::erase(entry.newest_first, credentials);
  entry.newest_first.insert(entry.newest_first.begin(), std::move(credentials));
  if (entry.newest_first.size() > kRememberedForOneMax) entry.newest_first.pop_back();
  return OkStatus();
}

CredentialAnswer RememberedCredentials::Find(const CredentialQuery& query, const StopSignal&) {
  MutexLock lock(mu_);
  auto found = entries_.find(KeyOf(query.host, query.repository));
  if (found == entries_.end()) return {};  // most registries need none: no reason to tell anybody
  for (const Credentials& credentials : found->second.newest_first) {
    if (!query.Refused(credentials)) return {credentials, ""};
  }
  return {std::nullopt, "the credentials of the last PullImage were refused"};
}

size_t RememberedCredentials::size() const {
  MutexLock lock(mu_);
  return entries_.size();
}

}  // namespace headrace::registry
