// Client: an OCI distribution client (distribution-spec 1.1; docker registry v2). The only user of libcurl.
//
// Ownership: one Client for a process; it owns one network thread (libcurl multi) and is thread-safe. Methods named ...Blocking below
// (all but Fetch and Warm) block the caller until done, failed or `deadline`; never call them from a FUSE thread.
// Credentials: docker's config.json with its helpers, and the other sources of `keychain`, asked on threads of their own (keychain.h).
// Mirrors, authorities, client certificates and headers: containerd's hosts.toml (hosts_dir.h); pushes go to the registry itself.
// https with the system's certificate authorities; plain http for localhost, 127.0.0.0/8, ::1 and hosts listed in plain_http_hosts.
// Errors name the registry, the repository and what was asked; secrets never appear in them.
// Limits: manifests 4 MiB, token answers 1 MiB, 10 redirects, retries with jitter within the deadline (blocking methods only); limits.h.
// Destructor: ends everything with Cancelled, sinks get their OnDone, and waits until blocking methods under way have returned (their sinks
// too). Nobody may call the client once it has begun, but a sink's OnDone may call Fetch: it is answered Cancelled.
#ifndef HEADRACE_FUSEFS_REGISTRY_CLIENT_H_
#define HEADRACE_FUSEFS_REGISTRY_CLIENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fusefs/base/digest.h"
#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/keychain.h"
#include "fusefs/registry/range_source.h"
#include "fusefs/registry/reference.h"

namespace headrace::registry {

struct ClientOptions {
  std::string docker_config_path;             // "" = none; short for keychain.docker_config
  KeychainOptions keychain;
  std::vector<std::string> plain_http_hosts;  // "host[:port]" spoken to without TLS
  std::string hosts_dir;                      // containerd's config_path: directories with hosts.toml files (hosts_dir.h); "" = none
  std::string user_agent = "headrace/" HEADRACE_VERSION;
  std::chrono::milliseconds connect_timeout{10'000};
  std::chrono::milliseconds stall_timeout{30'000};    // fewer than stall_bytes_min for so long ends an attempt
  uint64_t stall_bytes_min = 4096;
  std::chrono::milliseconds request_deadline{300'000};  // of a blocking call, retries included; moved bytes renew it
  long max_connections_per_host = 16;  // for blobs, and as many again for small requests; more wait their turn
};

struct ManifestResponse {
  std::string body;
  std::string media_type;  // Content-Type, or mediaType of the body
  Digest digest;           // of `body`, computed here; for a digest reference it was compared
};

// Who compares a whole blob with its digest.
enum class Verified { kHere, kByCaller };

class Client : public RangeSource {
 public:
  static Result<std::unique_ptr<Client>> Create(const ClientOptions& options, Metrics& metrics);

  virtual Result<ManifestResponse> GetManifest(const Reference& ref) = 0;
  // The whole blob in order; verified against its digest at the end (DataLoss after the sink saw the bytes), unless the caller has a
  // digest of its own for the content.
  virtual Status GetBlob(const Reference& ref, const Digest& digest,
                         const std::function<Status(std::span<const uint8_t>)>& sink, Verified by = Verified::kHere) = 0;
  // Says whether bytes are what they should be.
  using BytesCheck = std::function<Status(std::string_view bytes)>;
  // A piece of a blob. With `check` only bytes that pass it come back: a mirror whose bytes fail is not asked again and another one is; of the registry
  // itself the check's error is the answer. Without it they are unverified (the caller checks).
  virtual Result<std::string> GetBlobRange(const Reference& ref, const Digest& digest, uint64_t offset, uint64_t size,
                                           const BytesCheck& check = {}) = 0;
  // Opens connections to where the blob comes from, by asking for a byte of it that nobody wants; calls of Fetch that come meanwhile use them. Does not block; failures are nobody's business.
  virtual void Warm(const BlobRef& blob, unsigned connections) = 0;
  // Size if the registry has the blob, NotFound if not.
  virtual Result<uint64_t> StatBlob(const Reference& ref, const Digest& digest) = 0;
  // Uploads a file as a blob unless the registry has it. `progress` gets bytes sent since the last call.
  virtual Status PushBlobFile(const Reference& ref, const Digest& digest, const std::string& path,
                              const std::function<void(uint64_t)>& progress) = 0;
  virtual Status PushBlob(const Reference& ref, const Digest& digest, std::string_view content) = 0;
  // Asks the registry to take the blob over from another repository of its own; false if it did not.
  virtual Result<bool> MountBlob(const Reference& ref, const Digest& digest, const std::string& from_repository) = 0;
  // PUT under ref's tag, or under the digest of the content if ref has no tag.
  virtual Status PutManifest(const Reference& ref, const std::string& media_type, std::string_view body) = 0;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_CLIENT_H_
