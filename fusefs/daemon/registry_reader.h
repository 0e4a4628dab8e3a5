// RegistryReader: what attaching a layer needs of a registry: small pieces, whole, verified where their digest is known. The seam between LayerManager and
// the client (ClientReader) for the tests. Thread-safe; every call blocks on the registry up to the client's deadline.
#ifndef HEADRACE_FUSEFS_DAEMON_REGISTRY_READER_H_
#define HEADRACE_FUSEFS_DAEMON_REGISTRY_READER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/client.h"
#include "fusefs/registry/range_source.h"

namespace headrace::daemon {

class RegistryReader {
 public:
  // Says whether bytes are what they should be; DataLoss if not. A mirror whose bytes fail is not asked again.
  using Check = std::function<Status(std::string_view bytes)>;

  virtual ~RegistryReader() = default;
  // [offset, offset + size) of a blob. What fails `check` comes back as the check's error.
  virtual Result<std::string> Range(const registry::BlobRef& blob, uint64_t offset, uint64_t size, const Check& check) = 0;
  // A manifest by its digest, verified.
  virtual Result<std::string> Manifest(const std::string& image_ref, const Digest& digest) = 0;
  // Has connections opened to where the blob comes from: who reads it soon need not wait for that. Does not block; failures are nobody's business.
  virtual void Warm(const registry::BlobRef& blob, unsigned connections) {
    static_cast<void>(blob);
    static_cast<void>(connections);
  }
};

class ClientReader : public RegistryReader {
 public:
  explicit ClientReader(registry::Client& client) : client_(client) {}
  Result<std::string> Range(const registry::BlobRef& blob, uint64_t offset, uint64_t size, const Check& check) override;
  Result<std::string> Manifest(const std::string& image_ref, const Digest& digest) override;
  // Each asks for one byte: libcurl has no other way to a connection that it will use again.
  void Warm(const registry::BlobRef& blob, unsigned connections) override;

 private:
  registry::Client& client_;
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_REGISTRY_READER_H_
