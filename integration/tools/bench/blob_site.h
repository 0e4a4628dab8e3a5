// BlobSite: what bench-blobserver answers: an OCI layout directory seen as a registry, with redirects that expire if wanted.
// Knows nothing of sockets and waits for nothing but the local disk. Any thread.
#ifndef HEADRACE_INTEGRATION_TOOLS_BENCH_BLOB_SITE_H_
#define HEADRACE_INTEGRATION_TOOLS_BENCH_BLOB_SITE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "fusefs/base/digest.h"
#include "fusefs/base/file.h"
#include "integration/tools/bench/http.h"

namespace headrace::bench {

struct SiteOptions {
  std::string layout;
  bool redirect = false;
  double redirect_ttl_s = 3600;
};

// What GET /stats shows. Connections are counted from their first request for anything else, so that who asks for the numbers
// does not change them.
struct SiteStats {
  std::atomic<uint64_t> requests{0};       // of the registry and of redirected blobs
  std::atomic<uint64_t> blob_requests{0};  // answered with bytes of a blob
  std::atomic<uint64_t> blob_bytes{0};     // of blobs, handed to the kernel
  std::atomic<uint64_t> redirects{0};
  std::atomic<uint64_t> expired{0};        // requests for a redirect whose time was over
  std::atomic<uint64_t> connections{0};    // open now
  std::atomic<uint64_t> max_connections{0};
};

struct BlobFile {
  UniqueFd fd;
  uint64_t size = 0;
};

struct Answer {
  HttpResponse response;
  std::shared_ptr<const BlobFile> blob;  // shared because answers of several connections send from one descriptor
  ByteRange range;                       // of the blob; empty for HEAD
  bool control = false;                  // /stats, /reset
};

class BlobSite {
 public:
  explicit BlobSite(const SiteOptions& options);
  Answer Respond(const HttpRequest& request);
  SiteStats& stats() { return stats_; }

 private:
  Answer Registry(const HttpRequest& request);
  Answer Manifest(const std::string& reference);
  Answer Blob(const HttpRequest& request, const std::string& digest);
  Answer Redirect(const HttpRequest& request, const Digest& digest);
  Answer Signed(const HttpRequest& request);
  Answer Stats() const;
  void Reset();
  std::shared_ptr<const BlobFile> Open(const Digest& digest);
  std::string Signature(const std::string& digest, const std::string& expires) const;

  SiteOptions options_;
  std::string secret_;
  SiteStats stats_;
  std::mutex mutex_;  // guards the rest
  std::map<Digest, std::shared_ptr<const BlobFile>> files_;
};

}  // namespace headrace::bench

#endif  // HEADRACE_INTEGRATION_TOOLS_BENCH_BLOB_SITE_H_
