#include "fusefs/daemon/registry_reader.h"

#include <utility>

#include "fusefs/registry/reference.h"

namespace headrace::daemon {

void ClientReader::Warm(const registry::BlobRef& blob, unsigned connections) { client_.Warm(blob, connections); }

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
