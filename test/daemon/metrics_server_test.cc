// Goal: the pages say what they should, and no client can keep the server from others or from ending.
#include "fusefs/daemon/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "fusefs/base/file.h"
#include "test/support/matchers.h"

namespace headrace::daemon {
namespace {

class MetricsServerTest : public ::testing::Test {
 protected:
  void Start() {
    auto server = MetricsServer::Start("127.0.0.1:0", {.metrics = [] { return std::string("headrace_x 1\n"); },
                                                       .health = [this] { return healthy_ ? OkStatus() : UnavailableError("the file system was unmounted"); }});
    ASSERT_OK(server);
    server_ = std::move(*server);
  }
  UniqueFd Connect() const {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server_->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const timeval timeout{20, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    return fd;
  }
  std::string Ask(const std::string& request) const {
    const UniqueFd fd = Connect();
    EXPECT_EQ(::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
    std::string answer;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::recv(fd.get(), buffer, sizeof buffer, 0)) > 0;) answer.append(buffer, static_cast<size_t>(n));
    return answer;
  }

  std::atomic<bool> healthy_{true};
  std::unique_ptr<MetricsServer> server_;
};

TEST_F(MetricsServerTest, Pages) {
  Start();
  const std::string metrics = Ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")) << metrics;
  EXPECT_TRUE(metrics.ends_with("\r\n\r\nheadrace_x 1\n")) << metrics;
  EXPECT_TRUE(Ask("HEAD /metrics HTTP/1.1\r\n\r\n").ends_with("Connection: close\r\n\r\n"));
  EXPECT_TRUE(Ask("GET /healthz?x=1 HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nok\n"));
  healthy_ = false;
  const std::string ill = Ask("GET /healthz HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(ill.starts_with("HTTP/1.1 503 ")) << ill;
  EXPECT_NE(ill.find("the file system was unmounted"), std::string::npos);
  EXPECT_TRUE(Ask("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
  EXPECT_TRUE(Ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
  EXPECT_TRUE(Ask("\r\n\r\n").starts_with("HTTP/1.1 400 "));
  EXPECT_EQ(Ask(std::string(20'000, 'x')).find("200"), std::string::npos);
}

TEST_F(MetricsServerTest, ASilentClientKeepsNobodyForLong) {
  Start();
  const UniqueFd silent = Connect();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(Ask("GET /healthz HTTP/1.1\r\n\r\n").ends_with("ok\n"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(15));
  const UniqueFd another = Connect();
  const auto end = std::chrono::steady_clock::now();
  server_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - end, std::chrono::seconds(3)) << "a client kept the server from ending";
}

TEST_F(MetricsServerTest, AddressesThatCannotBe) {
  for (const char* address : {"", "9464", "localhost:1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:http", "[::1:1"}) {
    SCOPED_TRACE(address);
    EXPECT_CODE(MetricsServer::Start(address, {}), StatusCode::kInvalidArgument);
  }
  Start();
  const std::string taken = "127.0.0.1:" + std::to_string(server_->port());
  EXPECT_CODE(MetricsServer::Start(taken, {}), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace headrace::daemon
