#include "fusefs/daemon/registry_reader.h"

#include <memory>
#include <span>
#include <utility>

#include "fusefs/registry/reference.h"

namespace headrace::daemon {
namespace {

class NobodysSink : public registry::RangeSink {
 public:
  bool OnData(std::span<const uint8_t>) override { return true; }
  void OnDone(Status) override {}
};

}  // namespace

void ClientReader::Warm(const registry::BlobRef& blob, unsigned connections) {
  for (unsigned i = 0; i < connections; ++i) client_.Fetch(blob, 0, 1, std::make_shared<NobodysSink>());
}

Result<std::string> ClientReader::Range(const registry::BlobRef& blob, uint64_t offset, uint64_t size, const Check& check) {
  HR_ASSIGN_OR_RETURN(registry::Reference reference, registry::Reference::Parse(blob.image_ref));
  return client_.GetBlobRange(reference, blob.digest, offset, size, check);
}

Result<std::string> ClientReader::Manifest(const std::string& image_ref, const Digest& digest) {
  HR_ASSIGN_OR_RETURN(registry::Reference reference, registry::Reference::Parse(image_ref));
  reference.digest = digest;
  HR_ASSIGN_OR_RETURN(registry::ManifestResponse response, client_.GetManifest(reference));
  return std::move(response.body);
}

}  // namespace headrace::daemon
