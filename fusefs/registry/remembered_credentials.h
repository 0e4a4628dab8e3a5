// RememberedCredentials: what pods' pull secrets were in PullImage, told by the snapshotter's image-service proxy (control API SetCredentials).
//
// Kept in memory only: a restart forgets them. The proxy tells them again when only this process was restarted; after a restart of both
// the next PullImage does, and until then the sources after this one must do.
// They are for exactly the host and repository that were pulled: another pod's secret never opens another repository. Of several
// secrets for one repository the last ones are kept (kRememberedForOneMax), newest first; refused ones are skipped.
// Any thread; nothing blocks.
#ifndef HEADRACE_FUSEFS_REGISTRY_REMEMBERED_CREDENTIALS_H_
#define HEADRACE_FUSEFS_REGISTRY_REMEMBERED_CREDENTIALS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fusefs/base/mutex.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/credential_source.h"

namespace headrace::registry {

class RememberedCredentials : public CredentialSource {
 public:
  // `image` is a reference (normalised: "docker.io/library/x:1"); tag and digest do not matter. InvalidArgument: no reference, or empty or
  // absurdly large credentials. The oldest repository goes when there are more than kRememberedMax.
  Status Remember(const std::string& image, Credentials credentials);
  CredentialAnswer Find(const CredentialQuery& query, const StopSignal& stop) override;
  size_t size() const;

 private:
  struct Entry {
    std::vector<Credentials> newest_first;
    uint64_t turn = 0;
  };
  mutable Mutex mu_;
  std::map<std::string, Entry> entries_ HR_GUARDED_BY(mu_);  // "host/repository"
  uint64_t turn_ HR_GUARDED_BY(mu_) = 0;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_REMEMBERED_CREDENTIALS_H_
