#include "fusefs/daemon/metrics_server.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>
#include <utility>

#include "fusefs/base/descriptors.h"
#include "fusefs/base/executor.h"
#include "fusefs/base/file.h"
#include "fusefs/base/log.h"
#include "fusefs/base/text.h"

namespace headrace::daemon {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;

constexpr std::chrono::seconds kConnectionTime{5};
constexpr size_t kRequestMax = 8192;
constexpr int kBacklog = 16;

struct Address {
  std::string host, port;
};

Result<Address> ParseAddress(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return InvalidArgumentError("\"" + text + "\" is not HOST:PORT");
  Address address{text.substr(0, colon), text.substr(colon + 1)};
  const auto port = ParseU64(address.port);
  if (!port.ok() || *port > 65'535) return InvalidArgumentError("\"" + text + "\" has no port from 0 to 65535");
  if (address.host.starts_with('[') && address.host.ends_with(']')) address.host = address.host.substr(1, address.host.size() - 2);
  return address;
}

Result<UniqueFd> Listen(const std::string& text) {
  HR_ASSIGN_OR_RETURN(const Address address, ParseAddress(text));
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  if (::getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(), address.port.c_str(), &hints, &found) != 0) {
    return InvalidArgumentError("\"" + text + "\": the host must be an address in numbers");
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, ::freeaddrinfo);
  UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!fd.valid() || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 || ::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    return UnavailableError("cannot listen on " + text + ": " + std::strerror(errno));
  }
  return fd;
}

int MillisecondsUntil(TimePoint deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::max<int64_t>(0, left));
}

// False: the peer, the deadline or the end of the server ended it.
bool WaitFor(int fd, short events, int stop, TimePoint deadline) {
  pollfd fds[] = {{fd, events, 0}, {stop, POLLIN, 0}};
  for (;;) {
    const int n = ::poll(fds, 2, MillisecondsUntil(deadline));
    if (n < 0 && errno == EINTR) continue;
    return n > 0 && fds[1].revents == 0;
  }
}

std::string Answer(const char* status, const char* type, const std::string& body, bool head_only) {
  return std::string("HTTP/1.1 ") + status + "\r\nContent-Type: " + type + "\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\nConnection: close\r\n\r\n" + (head_only ? "" : body);
}

class MetricsServerImpl : public MetricsServer {
 public:
  MetricsServerImpl(UniqueFd listener, UniqueFd stop, MetricsPages pages) : listener_(std::move(listener)), stop_(std::move(stop)), pages_(std::move(pages)) {
    thread_ = std::thread([this] {
      SetThreadName("metrics");
      Run();
    });
  }
  ~MetricsServerImpl() override {
    SignalEvent(stop_.get());
    thread_.join();
  }

  uint16_t port() const override {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
    return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port : reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
  }

 private:
  void Run() {
    for (;;) {
      pollfd fds[] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      if (::poll(fds, 2, -1) < 0 && errno != EINTR) return;
      if (fds[1].revents != 0) return;
      const UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (peer.valid()) Serve(peer.get());
    }
  }

  void Serve(int peer) {
    const TimePoint deadline = std::chrono::steady_clock::now() + kConnectionTime;
    std::string request;
    while (request.find("\r\n\r\n") == std::string::npos) {
      char buffer[1024];
      if (request.size() > kRequestMax || !WaitFor(peer, POLLIN, stop_.get(), deadline)) return;
      const ssize_t n = ::recv(peer, buffer, sizeof buffer, 0);
      if (n <= 0 && !(n < 0 && (errno == EAGAIN || errno == EINTR))) return;
      if (n > 0) request.append(buffer, static_cast<size_t>(n));
    }
    std::string answer = Page(std::string_view(request).substr(0, request.find("\r\n")));
    for (size_t sent = 0; sent < answer.size();) {
      if (!WaitFor(peer, POLLOUT, stop_.get(), deadline)) return;
      const ssize_t n = ::send(peer, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno != EAGAIN && errno != EINTR) return;
      if (n > 0) sent += static_cast<size_t>(n);
    }
  }

  std::string Page(std::string_view line) const {
    const std::vector<std::string_view> words = Split(line, ' ');
    if (words.size() != 3 || !words[2].starts_with("HTTP/1.")) return Answer("400 Bad Request", "text/plain", "not a request\n", false);
    const bool head = words[0] == "HEAD";
    if (words[0] != "GET" && !head) return Answer("405 Method Not Allowed", "text/plain", "GET only\n", false);
    const std::string_view path = words[1].substr(0, words[1].find('?'));
    if (path == "/metrics") return Answer("200 OK", "text/plain; version=0.0.4; charset=utf-8", pages_.metrics(), head);
    if (path == "/healthz") {
      const Status health = pages_.health();
      return health.ok() ? Answer("200 OK", "text/plain", "ok\n", head) : Answer("503 Service Unavailable", "text/plain", health.message() + "\n", head);
    }
    return Answer("404 Not Found", "text/plain", "/metrics and /healthz are here\n", head);
  }

  const UniqueFd listener_;
  const UniqueFd stop_;
  const MetricsPages pages_;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& address, MetricsPages pages) {
  HR_ASSIGN_OR_RETURN(UniqueFd listener, Listen(address));
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop.valid()) return Status::FromErrno(errno, "eventfd");
  return std::unique_ptr<MetricsServer>(std::make_unique<MetricsServerImpl>(std::move(listener), std::move(stop), std::move(pages)));
}

}  // namespace headrace::daemon
