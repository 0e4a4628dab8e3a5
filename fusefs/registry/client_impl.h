// ClientImpl: Client over Exchange. client.cc has what reads, push.cc what writes.
#ifndef HEADRACE_FUSEFS_REGISTRY_CLIENT_IMPL_H_
#define HEADRACE_FUSEFS_REGISTRY_CLIENT_IMPL_H_

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fusefs/registry/blocking.h"
#include "fusefs/registry/client.h"
#include "fusefs/registry/credential_chain.h"
#include "fusefs/registry/exchange.h"
#include "fusefs/registry/hosts_dir.h"

namespace headrace::registry {

class ClientImpl : public Client {
 public:
  ClientImpl(const ClientOptions& options, Metrics& metrics, std::unique_ptr<HttpEngine> engine);
  ~ClientImpl() override;

  void Fetch(const BlobRef& blob, uint64_t offset, uint64_t size, std::shared_ptr<RangeSink> sink) override;
  void Warm(const BlobRef& blob, unsigned connections) override;
  Result<ManifestResponse> GetManifest(const Reference& ref) override;
  Status GetBlob(const Reference& ref, const Digest& digest,
                 const std::function<Status(std::span<const uint8_t>)>& sink, Verified by) override;
  Result<std::string> GetBlobRange(const Reference& ref, const Digest& digest, uint64_t offset, uint64_t size,
                                   const BytesCheck& check) override;
  void ReportWrongBytes(const BlobRef& blob, uint64_t source) override;
  Result<uint64_t> StatBlob(const Reference& ref, const Digest& digest) override;
  Status PushBlobFile(const Reference& ref, const Digest& digest, const std::string& path,
                      const std::function<void(uint64_t)>& progress) override;
  Status PushBlob(const Reference& ref, const Digest& digest, std::string_view content) override;
  Result<bool> MountBlob(const Reference& ref, const Digest& digest, const std::string& from_repository) override;
  Status PutManifest(const Reference& ref, const std::string& media_type, std::string_view body) override;

 private:
  // One attempt of a blocking call.
  struct Attempt {
    Deadline deadline;
    std::set<uint64_t> sources;  // that bytes are from (ExchangeResult::source)
    bool progress = false;  // bytes that need not be moved again were moved: the deadline starts anew
  };
  struct Upload;

  void MirrorIsWrong(uint64_t source, const std::string& what);
  ExchangeRequest NewRequest(const Reference& ref, const std::string& method, const std::string& path,
                             const std::string& what);
  ExchangeRequest NewBlobRequest(const Reference& ref, const Digest& digest, const std::string& method);
  std::string Prefix(const Reference& ref) const;
  std::chrono::milliseconds request_deadline() const { return options_.request_deadline; }

  // Runs `once` until it succeeds, fails for good, or the deadline or `attempts_max` is reached.
  Status WithRetries(int attempts_max, const std::function<ExchangeResult(Attempt&)>& once);
  // Starts the exchange, lets `use` work with it, awaits its end.
  ExchangeResult Run(ExchangeRequest request, const std::shared_ptr<WaitingHandler>& handler, const Attempt& attempt,
                     const std::function<void(Exchange&)>& use = nullptr);
  ExchangeResult DownloadOnce(const Reference& ref, const Digest& digest, uint64_t& offset,
                              const std::function<Status(std::span<const uint8_t>)>& sink, Attempt& attempt);
  Result<uint64_t> StatBlobFor(const Reference& ref, const Digest& digest, const std::string& actions);
  Status PushFrom(const Reference& ref, const Digest& digest, Upload& upload);
  ExchangeResult UploadOnce(const Reference& ref, const Digest& digest, Upload& upload, const Attempt& attempt);
  ExchangeResult StartUpload(const Reference& ref, const Digest& digest, const Attempt& attempt, Url& location);

  const ClientOptions options_;
  Metrics& metrics_;
  CredentialChain credentials_;
  HostsDir hosts_;
  std::unique_ptr<HttpEngine> engine_;
  Authenticator authenticator_;
  RedirectCache redirects_;
  MirrorHealth mirrors_;
  ExchangeContext context_;
  CallGate gate_;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_CLIENT_IMPL_H_
