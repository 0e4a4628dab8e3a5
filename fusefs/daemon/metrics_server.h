// MetricsServer: a few fixed pages over HTTP/1.1 for Prometheus and for health checks: /metrics, /healthz. Nothing else is answered; nothing is ever changed by a request.
//
// One thread ("metrics"), one connection at a time, each with a deadline for all of it: a client that is slow or says nothing keeps others waiting for five seconds at most. No TLS and no
// passwords: it belongs on a loopback address or behind a network policy, and is off by default. The pages are made on its thread: `metrics` and `health` must not block.
#ifndef HEADRACE_FUSEFS_DAEMON_METRICS_SERVER_H_
#define HEADRACE_FUSEFS_DAEMON_METRICS_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "fusefs/base/status.h"

namespace headrace::daemon {

struct MetricsPages {
  std::function<std::string()> metrics;  // Prometheus text format
  std::function<Status()> health;        // OK: 200; else 503 with the message
};

class MetricsServer {
 public:
  // `address`: "HOST:PORT", HOST a number ("127.0.0.1", "[::1]") or empty for every address; port 0: any free one. InvalidArgument: it is none; Unavailable: it cannot be listened on.
  static Result<std::unique_ptr<MetricsServer>> Start(const std::string& address, MetricsPages pages);
  virtual ~MetricsServer() = default;
  virtual uint16_t port() const = 0;
};

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_METRICS_SERVER_H_
