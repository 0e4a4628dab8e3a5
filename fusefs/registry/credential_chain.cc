#include "fusefs/registry/credential_chain.h"

#include <exception>

#include "fusefs/registry/limits.h"
#include "fusefs/registry/url.h"

namespace headrace::registry {

CredentialChain::CredentialChain(std::vector<std::shared_ptr<CredentialSource>> sources) : sources_(std::move(sources)) {}

CredentialChain::~CredentialChain() { Stop(); }

CredentialAnswer CredentialChain::Walk(const CredentialQuery& query) const {
  CredentialAnswer none;
  for (const std::shared_ptr<CredentialSource>& source : sources_) {
    if (stop_.stopped()) return {std::nullopt, "the registry client is being shut down", true};
    CredentialAnswer answer = source->Find(query, stop_);
    if (answer.credentials && !query.Refused(*answer.credentials)) return answer;
    none.temporary = none.temporary || answer.temporary;
    if (answer.why_none.empty()) continue;
    if (none.why_none.size() + answer.why_none.size() > kWhyNoneBytesMax) continue;
    none.why_none += (none.why_none.empty() ? "" : "; ") + answer.why_none;
  }
  if (none.why_none.empty()) {
    none.why_none = "no source of credentials is configured; log in (docker login " + CleanText(query.host, kErrorDetailBytesMax) +
                    ") and name that file in registry.docker_config, or set another source (section keychain)";
  }
  return none;
}

void CredentialChain::Ask(CredentialQuery query, Done done) {
  {
    MutexLock lock(mu_);
    if (!stopped_) {
      if (!threads_) threads_ = std::make_unique<ThreadPool>("credentials", kCredentialThreads);
      threads_->Post([this, asked = std::move(query), answer = std::move(done)] {
        CredentialAnswer found;
        try {
          found = Walk(asked);
        } catch (const std::exception&) {  // what() may quote what a source said
          found = {std::nullopt, "a source of credentials failed unexpectedly", true};
        }
        answer(std::move(found));
      });
      return;
    }
  }
  done({std::nullopt, "the registry client is being shut down", true});
}

void CredentialChain::Stop() {
  std::unique_ptr<ThreadPool> threads;
  {
    MutexLock lock(mu_);
    stopped_ = true;
    threads = std::move(threads_);
  }
  stop_.Stop();
}

}  // namespace headrace::registry
