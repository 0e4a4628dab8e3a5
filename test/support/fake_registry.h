// FakeRegistry: an OCI registry inside the test: HTTP/1.1 on 127.0.0.1 and an ephemeral port, manifests and blobs in memory, and a fault
// script that lets it lie in every way that real registries do.
//
//   FakeRegistry registry;                                     // listens at once
//   Digest d = registry.AddBlob("models/m", bytes);            // GET/HEAD, ranges, also uploads by clients
//   registry.AddFault({.kind = Fault::Kind::kFlipBit, .path_contains = d.Hex(), .times = 2, .blob_offset = 4096});
//   client->Fetch({registry.host() + "/models/m:latest", d}, 0, 8192, sink);
//   EXPECT_EQ(registry.counts().blob_gets, 1);
//
// It has a second port, "cdn", to which blob GETs are redirected when RedirectBlobs(true) was called, by URLs that can expire.
// Threads: one per connection; every method may be called from any thread. The destructor ends held and stalled answers and joins.
// Faults: of the faults whose filters match a request the first (in order of AddFault) that is not a kFlipBit acts, and every kFlipBit whose
// offset lies in the answered bytes. `times` counts the answers on which a fault acted; it goes when they are used up.
#ifndef HEADRACE_TEST_SUPPORT_FAKE_REGISTRY_H_
#define HEADRACE_TEST_SUPPORT_FAKE_REGISTRY_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fusefs/base/digest.h"

namespace headrace::test {

struct Fault {
  enum class Kind {
    kStatus,       // answers `status` with `headers` (each "Name: value") and `body`
    kClose,        // closes the connection without an answer
    kReset,        // sends the head and `after_bytes` of the body, then resets the connection
    kTruncate,     // as kReset, but closes in order: the body is shorter than its Content-Length
    kWrongRange,   // 206 whose Content-Range says `shift` bytes later than asked, with the bytes of there
    kShortRange,   // 206 with a Content-Range and body that end `shift` bytes earlier than asked
    kIgnoreRange,  // 200 with the whole blob although a range was asked
    kFlipBit,      // the lowest bit of the byte at `blob_offset` of the blob is wrong
    kDrip,         // the body in pieces of `after_bytes` (at least 1), `pause` between two
    kStall,        // sends the head and `after_bytes` of the body, the rest only after Release()
    kHold,         // answers, rightly, only after Release()
  };
  Kind kind = Kind::kStatus;
  std::string method;         // "" = any
  std::string path_contains;  // part of the path (a digest's Hex(), "/manifests/", "/token", "/cdn/"); "" = any
  int times = 1;              // -1 = always
  int skip = 0;               // lets so many matching requests pass first
  int status = 500;
  std::vector<std::string> headers;
  std::string body;
  uint64_t after_bytes = 0;
  uint64_t blob_offset = 0;
  uint64_t shift = 1;
  std::chrono::milliseconds pause{1};
};

class FakeRegistry {
 public:
  struct Request {
    std::string method;
    std::string target;         // path and query as sent
    std::string range;          // header, "" if none
    std::string authorization;  // header, "" if none
    std::string user_agent;
    bool cdn = false;           // came to the cdn port
    std::string request_id = {};  // X-Request-Id
  };
  // Answers given, by kind; bytes are body bytes sent.
  struct Counts {
    uint64_t requests = 0;  // all, the ones below included
    uint64_t manifest_gets = 0;
    uint64_t blob_gets = 0;  // of the registry's port, redirects included
    uint64_t blob_range_gets = 0;  // those of them (and of cdn_gets) that asked a range
    uint64_t blob_heads = 0;
    uint64_t token_requests = 0;
    uint64_t cdn_gets = 0;
    uint64_t uploads = 0;  // blobs that a client completed
    uint64_t manifest_puts = 0;
    uint64_t unauthorized = 0;  // answers 401
    uint64_t connections = 0;
    uint64_t blob_bytes = 0;
    uint64_t bytes = 0;
  };

  FakeRegistry();
  ~FakeRegistry();
  FakeRegistry(const FakeRegistry&) = delete;
  FakeRegistry& operator=(const FakeRegistry&) = delete;

  std::string host() const;      // "127.0.0.1:<port>"
  std::string cdn_host() const;  // the same of the other port

  // Content. Blobs are visible in the repository that they were added to.
  Digest AddBlob(const std::string& repository, std::string content);
  // As AddBlob, under a digest that does not fit the content.
  void AddBlobAs(const std::string& repository, const Digest& digest, std::string content);
  // Visible by tag (if not "") and by digest.
  Digest AddManifest(const std::string& repository, const std::string& tag, std::string body,
                     std::string media_type = "application/vnd.oci.image.manifest.v1+json");
  void RemoveBlob(const std::string& repository, const Digest& digest);
  // What a client pushed; nullopt if nothing.
  std::optional<std::string> Blob(const std::string& repository, const Digest& digest) const;
  std::optional<std::string> Manifest(const std::string& repository, const std::string& tag_or_digest) const;

  // Faults.
  void AddFault(Fault fault);
  void ClearFaults();
  void Release();             // lets kHold and kStall answers go on, those to come as well, until the next AddFault of such
  size_t held() const;        // answers that wait for Release now
  // Waits (10 s at most) until that many answers wait for Release.
  bool WaitForHeld(size_t n) const;
  void RefuseConnections();   // closes the ports and every connection
  void AcceptConnections();   // opens the same ports again

  // Authentication; the two exclude each other. Empty user: anybody gets a token.
  void RequireToken(const std::string& user, const std::string& password);
  // Tokens are given for this refresh token (POST, grant_type=refresh_token) as well.
  void AcceptRefreshToken(const std::string& refresh_token);
  void RequireBasic(const std::string& user, const std::string& password);
  void ExpireTokens();                                // every token given until now is refused
  void SetTokenLifetime(int seconds);                 // "expires_in" of token answers (300); 0 leaves it out
  void SetRealm(const std::string& url);              // what challenges name instead of our own /token
  void RedirectBlobs(bool on);                        // 307 to the cdn port for blob GETs
  void SetRedirectStatus(int status);                 // 307 by default
  void ExpireRedirects(int status = 403);             // URLs given until now are answered with this
  void AllowMount(bool on);                           // cross-repository mounts (default on)

  Counts counts() const;
  std::vector<Request> requests() const;  // the last 20 000

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace headrace::test

#endif  // HEADRACE_TEST_SUPPORT_FAKE_REGISTRY_H_
