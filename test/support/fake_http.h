// FakeHttpServer: a small HTTP/1.1 server for tests on 127.0.0.1, one thread per connection, whose answers may be delivered badly on
// purpose. Used by FakeRegistry. Every method may be called from any thread; the handler runs on connection threads.
// Limits: heads 64 KiB, request bodies 256 MiB.
#ifndef HEADRACE_TEST_SUPPORT_FAKE_HTTP_H_
#define HEADRACE_TEST_SUPPORT_FAKE_HTTP_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace headrace::test {

struct FakeHttpRequest {
  std::string method;
  std::string target;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::string Header(const std::string& lower_name) const;
};

struct FakeAnswer {
  enum class End { kKeepAlive, kClose, kReset };
  int status = 200;
  std::vector<std::string> headers;  // "Name: value"; Content-Length is added
  std::string body;
  bool no_answer = false;            // nothing is sent; `end` follows
  bool head_only = false;            // body.size() is announced, nothing is sent (HEAD)
  uint64_t send_bytes = UINT64_MAX;  // of the body, before `end`
  uint64_t piece_bytes = 0;          // 0 = at once; else `pause` between two pieces
  std::chrono::milliseconds pause{0};
  bool hold = false;                 // waits at the gate before the head
  uint64_t stall_at = UINT64_MAX;    // waits at the gate after so many bytes of the body
  End end = End::kKeepAlive;
};

// Where held answers wait.
class FakeGate {
 public:
  void Open();
  void Close();
  size_t waiting() const;
  bool WaitForWaiting(size_t n) const;
  // False when the server stopped meanwhile; the wait ends then as well.
  void Wait(const std::function<bool()>& stopped);
  void Wake();

 private:
  mutable std::mutex mu_;
  mutable std::condition_variable wake_;
  bool open_ = false;
  size_t waiting_ = 0;
};

class FakeHttpServer {
 public:
  using Handler = std::function<FakeAnswer(const FakeHttpRequest&)>;
  FakeHttpServer(Handler handler, FakeGate& gate);
  ~FakeHttpServer();
  FakeHttpServer(const FakeHttpServer&) = delete;
  FakeHttpServer& operator=(const FakeHttpServer&) = delete;
  uint16_t port() const { return port_; }
  uint64_t connections() const;
  // Closes the port and every connection; connections are refused until Start.
  void Stop();
  void Start();

 private:
  void AcceptLoop(int listener);
  void Serve(int fd);
  bool ReadRequest(int fd, std::string& buffer, FakeHttpRequest& request);
  bool SendAnswer(int fd, const FakeAnswer& answer);  // false: the connection ends
  bool SendBody(int fd, const FakeAnswer& answer);
  bool stopping() const;

  const Handler handler_;
  FakeGate& gate_;
  uint16_t port_ = 0;
  mutable std::mutex mu_;
  mutable std::condition_variable wake_;
  bool stopping_ = true;
  int listener_ = -1;
  uint64_t connections_ = 0;
  std::map<int, bool> open_;  // descriptors of live connections
  std::vector<std::thread> threads_;
};

}  // namespace headrace::test

#endif  // HEADRACE_TEST_SUPPORT_FAKE_HTTP_H_
