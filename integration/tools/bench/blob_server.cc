#include "integration/tools/bench/blob_server.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <queue>
#include <thread>
#include <unordered_map>

#include "fusefs/base/executor.h"
#include "fusefs/base/text.h"
#include "integration/tools/bench/common.h"

namespace headrace::bench {
namespace {

constexpr uint64_t kTurnBytes = 2 * kMib;      // sent to one connection before others have their turn
constexpr uint64_t kQuantumMin = 16 * kKib;    // sent at once at a limited rate, at least
constexpr double kQuantumSeconds = 0.005;      // and so much of the rate: waking up for less costs the processor too much
constexpr double kBucketQuanta = 2;            // what a bucket holds
constexpr uint64_t kListenerId = 0;
constexpr uint64_t kWakeId = 1;
constexpr uint64_t kFirstConnectionId = 2;

// Tokens are bytes; they gather while nothing is sent, up to a small burst.
class TokenBucket {
 public:
  explicit TokenBucket(uint64_t rate)
      : rate_(static_cast<double>(rate)), quantum_(std::max(static_cast<double>(kQuantumMin), rate_ * kQuantumSeconds)),
        size_(quantum_ * kBucketQuanta), tokens_(size_) {}
  // Bytes that may be sent now: all, or nothing with `ready` the time when some may be.
  uint64_t Ask(uint64_t wanted, double now, double& ready) {
    if (rate_ == 0) return wanted;
    tokens_ = std::min(size_, tokens_ + (now - filled_) * rate_);
    filled_ = now;
    const double least = std::min(static_cast<double>(wanted), quantum_);
    if (tokens_ >= least) return std::min(wanted, static_cast<uint64_t>(tokens_));
    ready = now + (least - tokens_) / rate_;
    return 0;
  }
  void Spend(uint64_t bytes) { tokens_ -= static_cast<double>(bytes); }

 private:
  double rate_, quantum_, size_, tokens_;
  double filled_ = 0;
};

struct Connection {
  explicit Connection(uint64_t rate) : bucket(rate) {}
  UniqueFd fd;
  std::string in;        // received, not parsed
  std::string out;       // to be sent before the blob
  size_t out_at = 0;
  std::shared_ptr<const BlobFile> blob;
  uint64_t blob_at = 0;
  uint64_t blob_end = 0;
  double start = 0;      // nothing of the answer is sent before
  TokenBucket bucket;
  bool answering = false;
  bool close_after = false;
  bool counted = false;
};

enum class Next { kWait, kAgain, kClose };  // for an event or timer; for another turn; the end

sockaddr_in ParseAddress(const std::string& text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  const size_t colon = text.rfind(':');
  const Result<uint64_t> port = ParseU64(colon == std::string::npos ? "" : text.substr(colon + 1));
  if (!port.ok() || *port > 65535 || inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) != 1) {
    Fail("\"" + text + "\" is not ADDR:PORT (IPv4)");
  }
  address.sin_port = htons(static_cast<uint16_t>(*port));
  return address;
}

}  // namespace

class BlobLoop {
 public:
  BlobLoop(const ServerOptions& options, BlobSite& site, int listener);
  ~BlobLoop() { Stop(); }
  void Stop();

 private:
  void Run();
  void Accept();
  void Turn(uint64_t id);
  Next Advance(uint64_t id, Connection& c);
  Next Receive(Connection& c);
  Next SendHead(Connection& c);
  Next SendBlob(uint64_t id, Connection& c);
  bool TakeRequest(Connection& c);
  void Count(Connection& c);
  void Close(uint64_t id);
  timespec UntilNextTimer() const;

  const ServerOptions options_;
  BlobSite& site_;
  const int listener_;
  UniqueFd epoll_;
  UniqueFd wake_;
  uint64_t next_id_ = kFirstConnectionId;
  std::unordered_map<uint64_t, Connection> connections_;
  using TimerEntry = std::pair<double, uint64_t>;  // when, connection
  std::priority_queue<TimerEntry, std::vector<TimerEntry>, std::greater<>> timers_;
  std::deque<uint64_t> turns_;  // connections that could send more
  std::thread thread_;
};

BlobLoop::BlobLoop(const ServerOptions& options, BlobSite& site, int listener)
    : options_(options), site_(site), listener_(listener), epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_.valid() || !wake_.valid()) FailErrno("epoll");
  epoll_event event{};
  event.events = EPOLLIN | EPOLLEXCLUSIVE;
  event.data.u64 = kListenerId;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_, &event) != 0) FailErrno("epoll_ctl");
  event.events = EPOLLIN;
  event.data.u64 = kWakeId;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) FailErrno("epoll_ctl");
  thread_ = std::thread([this] { Run(); });
}

void BlobLoop::Stop() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  if (write(wake_.get(), &one, sizeof one) != sizeof one) std::abort();  // an eventfd takes it always
  thread_.join();
}

void BlobLoop::Run() {
  SetThreadName("blob-loop");
  std::vector<epoll_event> events(256);
  for (;;) {
    const timespec timeout = UntilNextTimer();
    const int count = epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout.tv_sec < 0 ? nullptr : &timeout, nullptr);
    for (int i = 0; i < count; ++i) {
      const uint64_t id = events[static_cast<size_t>(i)].data.u64;
      if (id == kWakeId) return;
      if (id == kListenerId) {
        Accept();
      } else if ((events[static_cast<size_t>(i)].events & (EPOLLERR | EPOLLHUP)) != 0) {
        Close(id);
      } else {
        Turn(id);
      }
    }
    for (size_t i = turns_.size(); i > 0; --i) {
      const uint64_t id = turns_.front();
      turns_.pop_front();
      Turn(id);
    }
    for (const double now = Now(); !timers_.empty() && timers_.top().first <= now;) {
      const uint64_t id = timers_.top().second;
      timers_.pop();
      Turn(id);
    }
  }
}

timespec BlobLoop::UntilNextTimer() const {
  if (!turns_.empty()) return {0, 0};
  if (timers_.empty()) return {-1, 0};
  const double wait = std::max(0.0, timers_.top().first - Now());
  const double seconds = std::floor(wait);
  return {static_cast<time_t>(seconds), static_cast<long>((wait - seconds) * 1e9)};
}

void BlobLoop::Accept() {
  UniqueFd fd(accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd.valid()) return;  // another loop was faster, or the client is gone
  const int on = 1;
  (void)setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const uint64_t id = next_id_++;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLET;
  event.data.u64 = id;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) return;
  connections_.try_emplace(id, options_.conn_rate).first->second.fd = std::move(fd);
}

void BlobLoop::Turn(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;  // closed meanwhile
  switch (Advance(id, found->second)) {
    case Next::kWait:
      return;
    case Next::kAgain:
      turns_.push_back(id);
      return;
    case Next::kClose:
      Close(id);
      return;
  }
}

void BlobLoop::Close(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  if (found->second.counted) --site_.stats().connections;
  connections_.erase(found);
}

// One step: receive a request, or send of its answer what the socket, the bucket and the turn allow.
Next BlobLoop::Advance(uint64_t id, Connection& c) {
  for (;;) {
    if (!c.answering) {
      if (TakeRequest(c)) continue;
      if (c.close_after) return Next::kClose;
      if (const Next next = Receive(c); next != Next::kAgain) return next;
      continue;
    }
    if (c.start > 0) {
      if (c.start > Now()) {
        timers_.emplace(c.start, id);
        return Next::kWait;
      }
      c.start = 0;
    }
    if (c.out_at < c.out.size()) {
      if (const Next next = SendHead(c); next != Next::kAgain) return next;
    }
    if (c.blob && c.blob_at < c.blob_end) {
      if (const Next next = SendBlob(id, c); c.blob_at < c.blob_end || next == Next::kClose) return next;
    }
    c.answering = false;
    c.blob = nullptr;
    if (c.close_after) return Next::kClose;
  }
}

// kAgain: something came.
Next BlobLoop::Receive(Connection& c) {
  char buffer[16 << 10];
  const ssize_t count = recv(c.fd.get(), buffer, sizeof buffer, 0);
  if (count > 0) {
    c.in.append(buffer, static_cast<size_t>(count));
    return Next::kAgain;
  }
  return count < 0 && (errno == EAGAIN || errno == EINTR) ? Next::kWait : Next::kClose;
}

// False if no request is complete.
bool BlobLoop::TakeRequest(Connection& c) {
  size_t used = 0;
  const std::optional<HttpRequest> request = ParseRequest(c.in, used);
  if (used == 0) return false;
  c.in.erase(0, used);
  Answer answer;
  if (request) {
    answer = site_.Respond(*request);
  } else {
    answer.response = HttpResponse::Error(400, "UNKNOWN", "not a request");
  }
  if (!answer.control) Count(c);
  c.close_after = !request || !request->keep_alive;
  c.out = answer.response.Head(!c.close_after) + answer.response.body;
  c.out_at = 0;
  c.blob = answer.blob;
  c.blob_at = answer.range.begin;
  c.blob_end = answer.range.end;
  c.start = c.blob && options_.ttfb_s > 0 ? Now() + options_.ttfb_s : 0;
  c.answering = true;
  return true;
}

void BlobLoop::Count(Connection& c) {
  if (c.counted) return;
  c.counted = true;
  SiteStats& stats = site_.stats();
  const uint64_t now = ++stats.connections;
  uint64_t max = stats.max_connections;
  while (max < now && !stats.max_connections.compare_exchange_weak(max, now)) {
  }
}

// kAgain: all is sent.
Next BlobLoop::SendHead(Connection& c) {
  // With a blob behind it the head travels in its first packet; at a limited rate that could be held back.
  const int more = c.blob_at < c.blob_end && c.blob && options_.conn_rate == 0 ? MSG_MORE : 0;
  while (c.out_at < c.out.size()) {
    const ssize_t count = send(c.fd.get(), c.out.data() + c.out_at, c.out.size() - c.out_at, MSG_NOSIGNAL | more);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno == EAGAIN ? Next::kWait : Next::kClose;
    c.out_at += static_cast<size_t>(count);
  }
  return Next::kAgain;
}

Next BlobLoop::SendBlob(uint64_t id, Connection& c) {
  for (uint64_t sent = 0; c.blob_at < c.blob_end;) {
    if (sent >= kTurnBytes) return Next::kAgain;
    double ready = 0;
    const uint64_t size = c.bucket.Ask(std::min(c.blob_end - c.blob_at, kTurnBytes), Now(), ready);
    if (size == 0) {
      timers_.emplace(ready, id);
      return Next::kWait;
    }
    off_t offset = static_cast<off_t>(c.blob_at);
    const ssize_t count = sendfile(c.fd.get(), c.blob->fd.get(), &offset, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno == EAGAIN ? Next::kWait : Next::kClose;
    if (count == 0) return Next::kClose;  // the file was cut
    c.bucket.Spend(static_cast<uint64_t>(count));
    c.blob_at += static_cast<uint64_t>(count);
    sent += static_cast<uint64_t>(count);
    site_.stats().blob_bytes += static_cast<uint64_t>(count);
  }
  return Next::kWait;
}

BlobServer::BlobServer(const ServerOptions& options, BlobSite& site) {
  sockaddr_in address = ParseAddress(options.listen);
  listener_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  socklen_t length = sizeof address;
  if (!listener_.valid() || setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 || listen(listener_.get(), 1024) != 0 ||
      getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    FailErrno("listen on " + options.listen);
  }
  char text[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  address_ = std::string(text) + ":" + std::to_string(ntohs(address.sin_port));
  for (unsigned i = 0; i < std::max(1u, options.threads); ++i) {
    loops_.push_back(std::make_unique<BlobLoop>(options, site, listener_.get()));
  }
}

BlobServer::~BlobServer() { Stop(); }

void BlobServer::Stop() {
  for (const auto& loop : loops_) loop->Stop();
}

}  // namespace headrace::bench
