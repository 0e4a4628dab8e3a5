#include "integration/tools/bench/wire.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "fusefs/base/file.h"
#include "fusefs/base/text.h"
#include "fusefs/registry/url.h"
#include "integration/tools/bench/common.h"

namespace headrace::bench {
namespace {

constexpr uint64_t kBufferBytes = 256 * kKib;  // stays in the second-level cache
constexpr size_t kHeadBytesMax = 32 << 10;
constexpr int kAttemptsMax = 4;  // a redirect, its renewal, a connection that the server closed

UniqueFd Connect(const std::string& host_port) {
  const size_t colon = host_port.rfind(':');
  const std::string host = host_port.substr(0, colon);
  const std::string port = colon == std::string::npos ? "80" : host_port.substr(colon + 1);
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int rc = getaddrinfo(host.c_str(), port.c_str(), &hints, &list); rc != 0) Fail(host_port + ": " + gai_strerror(rc));
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const bool connected = fd.valid() && connect(fd.get(), list->ai_addr, list->ai_addrlen) == 0;
  const int error = errno;
  freeaddrinfo(list);
  if (!connected) Fail("connect to " + host_port + ": " + strerror(error));
  const int on = 1;
  (void)setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const timeval patience{60, 0};
  (void)setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return fd;
}

struct Head {
  int status = 0;
  uint64_t content_length = 0;
  std::string location;
};

Head ParseHead(const std::string& text) {
  Head head;
  const std::vector<std::string_view> lines = Split(text, '\n');
  const std::vector<std::string_view> words = Split(lines[0], ' ');
  const Result<uint64_t> status = ParseU64(words.size() > 1 ? words[1].substr(0, 3) : "");
  if (!status.ok() || !words[0].starts_with("HTTP/1.")) Fail("not an HTTP answer");
  head.status = static_cast<int>(*status);
  for (std::string_view line : lines) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string name(line.substr(0, colon));
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    std::string_view value = line.substr(colon + 1);
    while (value.starts_with(' ')) value.remove_prefix(1);
    while (value.ends_with('\r') || value.ends_with(' ')) value.remove_suffix(1);
    if (name == "content-length") head.content_length = Get(ParseU64(value));
    if (name == "location") head.location = value;
  }
  return head;
}

// One thread's connections: one for each host that a redirect leads to.
class Fetcher {
 public:
  Fetcher() : buffer_(kBufferBytes) {}
  // All bytes of the range; `arrived` is called when the first is here.
  template <typename Arrived>
  uint64_t Range(const WireBlob& blob, uint64_t begin, uint64_t end, const Arrived& arrived) {
    const registry::Url base = Get(registry::Url::Parse(blob.url));
    if (base.scheme != "http") Fail("only plain http");
    for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
      const auto known = redirects_.find(blob.url);
      const registry::Url url = known == redirects_.end() ? base : known->second;
      std::string body;
      const Head head = Ask(url, begin, end, body);
      if (head.status == 206 && head.content_length == end - begin) {
        arrived();
        Drop(url.host, head.content_length - body.size());
        return end - begin;
      }
      Drop(url.host, head.content_length - std::min<uint64_t>(head.content_length, body.size()));
      if (head.status >= 301 && head.status <= 308 && !head.location.empty()) {
        redirects_[blob.url] = Get(registry::Url::Resolve(url, head.location));
      } else if (head.status == 403 && known != redirects_.end()) {
        redirects_.erase(known);
      } else {
        Fail("the server answered " + std::to_string(head.status) + " to a request for a range");
      }
    }
    Fail("too many redirects");
  }

 private:
  Head Ask(const registry::Url& url, uint64_t begin, uint64_t end, std::string& body) {
    UniqueFd& fd = sockets_[url.host];
    if (!fd.valid()) fd = Connect(url.host);
    const std::string request = "GET " + url.target + " HTTP/1.1\r\nHost: " + url.host + "\r\nAccept: */*\r\nRange: bytes=" +
                                std::to_string(begin) + "-" + std::to_string(end - 1) + "\r\n\r\n";
    if (send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) FailErrno("send");
    std::string text;
    for (;;) {
      const size_t found = text.find("\r\n\r\n");
      if (found != std::string::npos) {
        body = text.substr(found + 4);
        return ParseHead(text.substr(0, found));
      }
      if (text.size() > kHeadBytesMax) Fail("endless head of an answer");
      text.append(reinterpret_cast<const char*>(buffer_.data()), Receive(fd.get(), 4096));
    }
  }

  void Drop(const std::string& host, uint64_t left) {
    const int fd = sockets_[host].get();
    while (left > 0) left -= Receive(fd, std::min<uint64_t>(left, buffer_.size()));
  }

  size_t Receive(int fd, uint64_t size) {
    for (;;) {
      const ssize_t count = recv(fd, buffer_.data(), size, 0);
      if (count > 0) return static_cast<size_t>(count);
      if (count == 0) Fail("the server closed the connection");
      if (errno != EINTR) FailErrno("recv");
    }
  }

  std::vector<uint8_t> buffer_;
  std::map<std::string, UniqueFd> sockets_;
  std::map<std::string, registry::Url> redirects_;
};

struct Task {
  size_t blob = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
};

}  // namespace

WireResult FetchAll(const std::vector<WireBlob>& blobs, unsigned connections, uint64_t range) {
  std::vector<Task> tasks;
  for (size_t i = 0; i < blobs.size(); ++i) {
    for (uint64_t at = 0; at < blobs[i].size; at += range) tasks.push_back({i, at, std::min(blobs[i].size, at + range)});
  }
  WireResult result;
  std::mutex mutex;  // guards result and error
  std::string error;
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  const double begin = Now();
  for (unsigned t = 0; t < connections; ++t) {
    threads.emplace_back([&] {
      try {
        Fetcher fetcher;
        for (size_t i; (i = next++) < tasks.size();) {
          const uint64_t bytes = fetcher.Range(blobs[tasks[i].blob], tasks[i].begin, tasks[i].end, [&] {
            const std::lock_guard lock(mutex);
            if (result.first_byte_s == 0) result.first_byte_s = Now() - begin;
          });
          const std::lock_guard lock(mutex);
          result.bytes += bytes;
          ++result.requests;
        }
      } catch (const std::exception& e) {
        const std::lock_guard lock(mutex);
        if (error.empty()) error = e.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  result.seconds = Now() - begin;
  if (!error.empty()) Fail(error);
  return result;
}

}  // namespace headrace::bench
