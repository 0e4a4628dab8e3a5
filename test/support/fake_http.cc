#include "test/support/fake_http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "fusefs/base/status.h"
#include "fusefs/base/text.h"

namespace headrace::test {
namespace {

constexpr size_t kHeadBytesMax = 64 << 10;
constexpr uint64_t kBodyBytesMax = 256ull << 20;
constexpr std::chrono::seconds kWaitMax{10};

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return text;
}

bool SendAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    ssize_t n = ::send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

// Appends what comes; false at the end of the connection.
bool Receive(int fd, std::string& buffer) {
  char piece[64 << 10];
  for (;;) {
    ssize_t n = ::recv(fd, piece, sizeof piece, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    buffer.append(piece, static_cast<size_t>(n));
    return true;
  }
}

void ParseHead(const std::string& head, FakeHttpRequest& request) {
  size_t line_end = head.find("\r\n");
  std::string line = head.substr(0, line_end);
  size_t first = line.find(' ');
  size_t second = line.find(' ', first + 1);
  if (first == std::string::npos || second == std::string::npos) return;
  request.method = line.substr(0, first);
  request.target = line.substr(first + 1, second - first - 1);
  while (line_end != std::string::npos && line_end + 2 < head.size()) {
    size_t begin = line_end + 2;
    line_end = head.find("\r\n", begin);
    line = head.substr(begin, line_end == std::string::npos ? line_end : line_end - begin);
    size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    size_t value = line.find_first_not_of(' ', colon + 1);
    request.headers[Lower(line.substr(0, colon))] = value == std::string::npos ? "" : line.substr(value);
  }
}

// Takes a chunked body off the front of `buffer`, receiving more as needed.
bool ReadChunked(int fd, std::string& buffer, std::string& body) {
  for (;;) {
    size_t line_end;
    while ((line_end = buffer.find("\r\n")) == std::string::npos) {
      if (buffer.size() > kHeadBytesMax || !Receive(fd, buffer)) return false;
    }
    uint64_t size = std::strtoull(buffer.c_str(), nullptr, 16);
    if (size > kBodyBytesMax || body.size() + size > kBodyBytesMax) return false;
    while (buffer.size() < line_end + 2 + size + 2) {
      if (!Receive(fd, buffer)) return false;
    }
    body.append(buffer, line_end + 2, size);
    buffer.erase(0, line_end + 2 + size + 2);
    if (size == 0) return true;
  }
}

}  // namespace

std::string FakeHttpRequest::Header(const std::string& lower_name) const {
  auto found = headers.find(lower_name);
  return found == headers.end() ? "" : found->second;
}

void FakeGate::Open() {
  std::lock_guard lock(mu_);
  open_ = true;
  wake_.notify_all();
}

void FakeGate::Close() {
  std::lock_guard lock(mu_);
  open_ = false;
}

size_t FakeGate::waiting() const {
  std::lock_guard lock(mu_);
  return waiting_;
}

bool FakeGate::WaitForWaiting(size_t n) const {
  std::unique_lock lock(mu_);
  return wake_.wait_for(lock, kWaitMax, [&] { return waiting_ >= n; });
}

void FakeGate::Wait(const std::function<bool()>& stopped) {
  std::unique_lock lock(mu_);
  ++waiting_;
  wake_.notify_all();
  while (!open_ && !stopped()) wake_.wait_for(lock, std::chrono::milliseconds(50));
  --waiting_;
}

void FakeGate::Wake() {
  std::lock_guard lock(mu_);
  wake_.notify_all();
}

FakeHttpServer::FakeHttpServer(Handler handler, FakeGate& gate) : handler_(std::move(handler)), gate_(gate) { Start(); }

FakeHttpServer::~FakeHttpServer() { Stop(); }

uint64_t FakeHttpServer::connections() const {
  std::lock_guard lock(mu_);
  return connections_;
}

bool FakeHttpServer::stopping() const {
  std::lock_guard lock(mu_);
  return stopping_;
}

void FakeHttpServer::Start() {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  HEADRACE_CHECK(fd >= 0);
  int one = 1;
  HEADRACE_CHECK(::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port_);
  HEADRACE_CHECK(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  HEADRACE_CHECK(::listen(fd, 512) == 0);
  socklen_t length = sizeof address;
  HEADRACE_CHECK(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  if (port_ == 0) port_ = ntohs(address.sin_port);  // the constructor's call; later ones keep it
  std::lock_guard lock(mu_);
  HEADRACE_CHECK(stopping_);
  stopping_ = false;
  listener_ = fd;
  threads_.emplace_back([this, fd] { AcceptLoop(fd); });
}

void FakeHttpServer::Stop() {
  std::vector<std::thread> threads;
  {
    std::lock_guard lock(mu_);
    if (stopping_) return;
    stopping_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    for (auto& [fd, unused] : open_) ::shutdown(fd, SHUT_RDWR);
    threads.swap(threads_);
    wake_.notify_all();
  }
  gate_.Wake();
  for (std::thread& thread : threads) thread.join();
  ::close(listener_);
}

void FakeHttpServer::AcceptLoop(int listener) {
  for (;;) {
    int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    std::lock_guard lock(mu_);
    if (stopping_) {
      if (fd >= 0) ::close(fd);
      return;
    }
    if (fd < 0) continue;
    int one = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    ++connections_;
    open_[fd] = true;
    threads_.emplace_back([this, fd] { Serve(fd); });
  }
}

void FakeHttpServer::Serve(int fd) {
  std::string buffer;
  FakeHttpRequest request;
  while (ReadRequest(fd, buffer, request) && SendAnswer(fd, handler_(request))) request = {};
  std::lock_guard lock(mu_);
  open_.erase(fd);
  ::close(fd);
}

bool FakeHttpServer::ReadRequest(int fd, std::string& buffer, FakeHttpRequest& request) {
  size_t head_end;
  while ((head_end = buffer.find("\r\n\r\n")) == std::string::npos) {
    if (buffer.size() > kHeadBytesMax || !Receive(fd, buffer)) return false;
  }
  ParseHead(buffer.substr(0, head_end), request);
  buffer.erase(0, head_end + 4);
  if (Lower(request.Header("expect")) == "100-continue") {
    constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!SendAll(fd, kContinue, sizeof kContinue - 1)) return false;
  }
  if (Lower(request.Header("transfer-encoding")) == "chunked") return ReadChunked(fd, buffer, request.body);
  uint64_t length = std::strtoull(request.Header("content-length").c_str(), nullptr, 10);
  if (length > kBodyBytesMax) return false;
  while (buffer.size() < length) {
    if (!Receive(fd, buffer)) return false;
  }
  request.body = buffer.substr(0, length);
  buffer.erase(0, length);
  return true;
}

bool FakeHttpServer::SendAnswer(int fd, const FakeAnswer& answer) {
  if (answer.hold) gate_.Wait([this] { return stopping(); });
  bool sent = answer.no_answer;
  if (!answer.no_answer) {
    std::string head = "HTTP/1.1 " + std::to_string(answer.status) + " Fake\r\n";
    for (const std::string& header : answer.headers) head += header + "\r\n";
    head += "Content-Length: " + std::to_string(answer.body.size()) + "\r\n\r\n";
    sent = SendAll(fd, head.data(), head.size()) && (answer.head_only || SendBody(fd, answer));
  }
  if (answer.end == FakeAnswer::End::kReset) {
    linger hard{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  }
  return sent && answer.end == FakeAnswer::End::kKeepAlive;
}

bool FakeHttpServer::SendBody(int fd, const FakeAnswer& answer) {
  const uint64_t end = std::min<uint64_t>(answer.body.size(), answer.send_bytes);
  uint64_t done = 0;
  bool stalled = false;
  while (done < end) {
    uint64_t stop = answer.piece_bytes == 0 ? end : std::min(end, done + answer.piece_bytes);
    if (!stalled && answer.stall_at >= done) stop = std::min(stop, answer.stall_at);
    if (!SendAll(fd, answer.body.data() + done, stop - done)) return false;
    done = stop;
    if (!stalled && done == answer.stall_at) {
      stalled = true;
      gate_.Wait([this] { return stopping(); });
    } else if (answer.piece_bytes != 0 && done < end) {
      std::unique_lock lock(mu_);
      if (wake_.wait_for(lock, answer.pause, [this] { return stopping_; })) return false;
    }
  }
  return true;
}

}  // namespace headrace::test
