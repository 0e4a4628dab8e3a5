// Exchange: one request to a registry, with authentication and redirects followed: what a caller of a registry means by "one attempt".
//
// Mirrors (hosts_dir.h) are asked first, in order; one that fails before it has delivered anything is left for the next one, and rests.
// A 401 renews the authorization (as often as there are credentials that were not refused yet, kAuthorizationsMax at most),
// a 403 once, and only if something new is found; redirects are followed (10 at most), credentials go to the registry's own origin
// only; the target of a blob's redirect is remembered for a minute and asked for again when it is refused. Other failures end it; retries
// over time are the caller's (retry.h).
// Every attempt has a name: registries and mirrors get it as X-Request-Id (places that they redirect to do not), errors end with it and with the name that the other side gave.
// Threads: Start from any thread; all else, handlers included, on the network thread; nothing blocks.
#ifndef HEADRACE_FUSEFS_REGISTRY_EXCHANGE_H_
#define HEADRACE_FUSEFS_REGISTRY_EXCHANGE_H_

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fusefs/base/status.h"
#include "fusefs/registry/authenticator.h"
#include "fusefs/registry/hosts_dir.h"
#include "fusefs/registry/http_engine.h"
#include "fusefs/registry/url.h"

namespace headrace::registry {

// Where blobs were redirected to. Network thread only.
class RedirectCache {
 public:
  std::optional<Url> Find(const std::string& key);
  void Store(const std::string& key, const Url& url);
  // `url` does not do any more; another one that came meanwhile stays.
  void Drop(const std::string& key, const Url& url);

 private:
  struct Entry {
    Url url;
    std::chrono::steady_clock::time_point expiry;
  };
  std::map<std::string, Entry> entries_;
};

// Which mirrors are worth asking. Network thread only.
class MirrorHealth {
 public:
  // `key`: what is asked for, such as a blob.
  bool Usable(uint64_t id, const std::string& key);
  void Failed(uint64_t id);                         // rests for a while
  void Lacks(uint64_t id, const std::string& key);  // is not asked for this for a while
  void Wrong(uint64_t id) { wrong_.insert(id); }    // is never asked again

 private:
  using TimePoint = std::chrono::steady_clock::time_point;
  std::map<uint64_t, TimePoint> resting_;
  std::map<std::pair<uint64_t, std::string>, TimePoint> lacking_;
  std::set<uint64_t> wrong_;
};

// What all exchanges of a client share; outlives the engine's last call of a handler.
struct ExchangeContext {
  HttpEngine* engine = nullptr;
  Authenticator* authenticator = nullptr;
  RedirectCache* redirects = nullptr;
  MirrorHealth* mirrors = nullptr;
  Metrics* metrics = nullptr;
  std::vector<std::string> plain_http_hosts;
  // Names of attempts for the logs of both sides, "headrace-6f2a91c04be1d733-17": the first part is this client's. Network thread only.
  std::string request_prefix = NewRequestPrefix();
  uint64_t requests = 0;

  static std::string NewRequestPrefix();
  bool PlainHttp(std::string_view host) const;  // "host[:port]" may be spoken to without TLS
};

struct ExchangeRequest {
  // Which mirrors may answer: none, those that tell what a tag means, those that have content.
  enum class Mirrors { kNone, kResolve, kPull };

  std::string method = "GET";
  AuthTarget auth;
  Url url;                               // of the registry; its origin is the one that gets credentials
  std::string path;                      // behind the base of a mirror: "/<repository>/..."
  std::shared_ptr<const Endpoints> endpoints;
  Mirrors mirrors = Mirrors::kNone;
  std::optional<Url> target;             // where to begin instead (the Location of an upload)
  std::string what;                      // for errors: "registry h: repository r: blob d"
  std::vector<std::string> headers;
  std::optional<std::string> body;       // sent again as often as needed
  std::optional<uint64_t> stream_bytes;  // or a body that the handler's OnSend gives, once
  bool bulk = false;
  HttpRequest::Connection connection = HttpRequest::Connection::kAny;
  bool follow_redirects = true;
  std::string redirect_key;              // remember the redirect under this; "" = do not
};

struct ExchangeResult {
  Status status;  // with its retry_after()
  int http_status = 0;  // 0: no answer
  uint64_t source = 0;  // the mirror that it is from; 0: the registry
};

class ExchangeHandler {
 public:
  virtual ~ExchangeHandler() = default;
  // Who answers: before OnAnswer; 0 is the registry itself.
  virtual void OnSource(uint64_t source) { static_cast<void>(source); }
  // The final answer, 2xx. An error ends the exchange with it (or, of a mirror, goes on to the next one: OnAnswer comes again then).
  virtual Status OnAnswer(const HttpHead& head) = 0;
  virtual HttpHandler::Flow OnBody(std::span<const uint8_t> data) = 0;
  virtual size_t OnSend(std::span<uint8_t> buffer);
  virtual void OnDone(ExchangeResult result) = 0;
};

class Exchange : public HttpHandler, public std::enable_shared_from_this<Exchange> {
 public:
  static std::shared_ptr<Exchange> Start(ExchangeContext& context, ExchangeRequest request,
                                         std::shared_ptr<ExchangeHandler> handler);
  void Cancel();  // any thread; OnDone follows
  void Resume();  // any thread; after OnBody or OnSend paused

 private:
  enum class Mode { kDeliver, kRedirect, kRenewAuthorization, kRenewRedirect, kError };

  Exchange(ExchangeContext& context, ExchangeRequest request, std::shared_ptr<ExchangeHandler> handler)
      : context_(context), request_(std::move(request)), handler_(std::move(handler)) {}
  void Begin();
  void BeginEndpoint();
  void BeginAtRedirect();
  // After a failure at a mirror; false: there is none, or bytes were delivered.
  bool NextEndpoint(const Status& status);
  const Endpoint* endpoint() const;  // null: the registry, and nothing is configured for it
  bool AtMirror() const { return place_ < mirrors_.size(); }
  void Send();
  Mode Classify(const HttpHead& head);
  void FollowRedirect();
  void RenewAuthorization();
  void OnAuthorization(Result<std::string> authorization);
  void Finish(Status status);
  Status HttpError() const;
  std::string RequestNames() const;  // for errors
  // At the endpoint itself, and not where it redirected to.
  bool AtHome() const { return url_.origin() == home_.origin(); }

  Flow OnHead(const HttpHead& head) override;
  Flow OnBody(std::span<const uint8_t> data) override;
  size_t OnSend(std::span<uint8_t> buffer) override;
  void OnDone(Status status) override;

  ExchangeContext& context_;
  const ExchangeRequest request_;
  std::shared_ptr<ExchangeHandler> handler_;  // nullptr after its OnDone
  HttpEngine::Id id_ = 0;
  std::string request_id_;
  std::vector<std::shared_ptr<const Endpoint>> mirrors_;
  size_t place_ = 0;       // in mirrors_; their number: the registry
  Url home_;               // of the endpoint
  AuthTarget auth_;
  std::string redirect_key_;
  std::string troubles_;   // of the mirrors before
  bool delivered_ = false;
  Url url_;
  std::string authorization_;
  std::vector<std::string> refused_authorizations_;  // sent by this attempt before: secrets still
  bool from_cache_ = false;  // url_ is a remembered redirect
  bool cancelled_ = false;
  int redirects_ = 0;
  bool redirect_renewed_ = false;
  int authorization_renewals_ = 0;
  bool forbidden_renewed_ = false;
  bool authorizing_ = false;
  HttpHead head_;
  Mode mode_ = Mode::kError;
  Status refused_;          // by the handler
  std::string error_body_;  // of answers that are not delivered
  bool enough_ = false;     // of error_body_; the transfer was stopped
  size_t body_sent_ = 0;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_EXCHANGE_H_
