// HttpEngine: HTTP/1.1 exchanges on one network thread (libcurl multi), without any notion of registries.
//
// Any thread may call Start, Cancel, Resume and Post; they never block. Handlers are called on the network thread, one call at a time, and
// must not block: OnHead once for the final answer, OnBody*, and OnDone once in every case. A handler is kept until its OnDone.
// Per origin at most `connections_per_origin` bulk transfers are under way, and as many others; more wait in order. Connections are
// kept alive. A transfer ends with DeadlineExceeded when connecting takes longer than `connect_timeout` or when fewer than
// `stall_bytes_min` bytes move in `stall_timeout` (time in which the handler paused does not count).
// The destructor ends everything with Cancelled and joins. Redirects, authentication and retries are the caller's business.
// Errors name the host at most, never a path or query (presigned URLs are secrets).
#ifndef HEADRACE_FUSEFS_REGISTRY_HTTP_ENGINE_H_
#define HEADRACE_FUSEFS_REGISTRY_HTTP_ENGINE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fusefs/base/metrics.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/http_answer.h"
#include "fusefs/registry/http_tls.h"
#include "fusefs/registry/url.h"

namespace headrace::registry {

class HttpHandler {
 public:
  enum class Flow { kContinue, kPause, kStop };
  static constexpr size_t kSendPause = SIZE_MAX;
  static constexpr size_t kSendStop = SIZE_MAX - 1;

  virtual ~HttpHandler() = default;
  // kStop: the transfer ends with Cancelled.
  virtual Flow OnHead(const HttpHead& head) = 0;
  // kPause: these bytes come again after Resume.
  virtual Flow OnBody(std::span<const uint8_t> data) = 0;
  // Fills `buffer` with the next bytes of the request's body; how many, or kSendPause (until Resume) or kSendStop.
  virtual size_t OnSend(std::span<uint8_t> buffer);
  // OK: the whole answer came, whatever its status code.
  virtual void OnDone(Status status) = 0;
};

struct HttpRequest {
  std::string method = "GET";
  Url url;
  std::vector<std::string> headers;       // "Name: value"
  std::optional<uint64_t> upload_bytes;   // size of the body that OnSend gives
  bool bulk = false;                      // moves many bytes: has its own share of connections
  // kWarmsUp: a small transfer that is made for the connection that it leaves. kPrefersWarm: waits for such a connection while some are under way (up to 300 ms) instead of opening one,
  // which takes longer.
  enum class Connection : uint8_t { kAny, kWarmsUp, kPrefersWarm };
  Connection connection = Connection::kAny;
  std::shared_ptr<const TlsSettings> tls;
  std::chrono::milliseconds connect_timeout{0};  // 0: the engine's
};

struct HttpEngineOptions {
  std::string user_agent;
  std::chrono::milliseconds connect_timeout{10'000};
  std::chrono::milliseconds stall_timeout{30'000};
  uint64_t stall_bytes_min = 4096;
  long connections_per_origin = 16;
};

class HttpEngine {
 public:
  using Id = uint64_t;
  static Result<std::unique_ptr<HttpEngine>> Create(const HttpEngineOptions& options, Metrics& metrics);
  ~HttpEngine();
  HttpEngine(const HttpEngine&) = delete;
  HttpEngine& operator=(const HttpEngine&) = delete;

  Id Start(HttpRequest request, std::shared_ptr<HttpHandler> handler);
  void Cancel(Id id);  // OnDone(Cancelled) follows, if OnDone was not yet called
  void Resume(Id id);  // after a pause; harmless otherwise
  void Post(std::function<void()> task);  // runs on the network thread

  class Impl;

 private:
  explicit HttpEngine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_HTTP_ENGINE_H_
