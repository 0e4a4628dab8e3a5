#include "fusefs/registry/http_engine.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <thread>
#include <unordered_map>

#include "fusefs/base/executor.h"
#include "fusefs/base/mutex.h"
#include "fusefs/base/text.h"
#include "fusefs/registry/arrival_pace.h"
#include "fusefs/registry/http_tls.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

using Clock = std::chrono::steady_clock;

constexpr long kReceiveBufferBytes = 64 << 10;   // each transfer has one: small enough that those of many transfers stay in the processor's cache
constexpr std::chrono::milliseconds kGather{1};
constexpr std::chrono::milliseconds kHoldMax{300};
constexpr std::chrono::milliseconds kHoldTick{20};
constexpr size_t kIdleHandlesMax = 64;
constexpr long kIdleConnectionsMax = 256;

struct Transfer {
  HttpEngine::Id id = 0;
  HttpRequest request;
  std::shared_ptr<HttpHandler> handler;
  Metrics* metrics = nullptr;
  CURL* easy = nullptr;  // while active
  curl_slist* headers = nullptr;
  char error[CURL_ERROR_SIZE] = {};
  HttpHead head;
  size_t head_bytes = 0;
  bool head_done = false;
  bool paused = false;
  bool connected = false;  // a byte moved
  uint64_t moved = 0;      // bytes since mark_time
  Clock::time_point mark_time;
  Status stop;  // why we ended it ourselves

  void Moved(size_t n) {
    connected = true;
    moved += n;
  }
};

// Runs a callback of ours under libcurl, through which no exception may pass.
template <typename F, typename R>
R Guarded(Transfer& transfer, R failed, F&& body) {
  try {
    return body();
  } catch (const std::exception& e) {
    transfer.stop = InternalError(std::string("while an answer was handled: ") + e.what());
    return failed;
  }
}

bool OnHeaderLine(Transfer& transfer, std::string_view line) {
  transfer.Moved(line.size());
  if (transfer.head_done) return true;  // trailers
  transfer.head_bytes += line.size();
  if (transfer.head_bytes > kHeadBytesMax) {
    transfer.stop = InvalidArgumentError("the head of the answer is larger than 128 KiB");
    return false;
  }
  if (!transfer.head.AddLine(line)) return true;
  if (transfer.head.status < 200) return true;  // 100 Continue and the like: the answer follows
  transfer.head_done = true;
  if (transfer.handler->OnHead(transfer.head) != HttpHandler::Flow::kStop) return true;
  transfer.stop = CancelledError("stopped");
  return false;
}

size_t HeaderCallback(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  return Guarded(transfer, size_t{0}, [&] { return OnHeaderLine(transfer, {data, size * count}) ? size * count : 0; });
}

size_t BodyCallback(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const size_t bytes = size * count;
  auto flow = Guarded(transfer, HttpHandler::Flow::kStop, [&] {
    return transfer.handler->OnBody({reinterpret_cast<const uint8_t*>(data), bytes});
  });
  if (flow == HttpHandler::Flow::kPause) {
    transfer.paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  transfer.Moved(bytes);
  Metrics::Add(transfer.metrics->wire_bytes, static_cast<int64_t>(bytes));
  if (flow == HttpHandler::Flow::kContinue) return bytes;
  if (transfer.stop.ok()) transfer.stop = CancelledError("stopped");
  return 0;
}

size_t SendCallback(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  size_t n = Guarded(transfer, HttpHandler::kSendStop, [&] {
    return transfer.handler->OnSend({reinterpret_cast<uint8_t*>(data), size * count});
  });
  if (n == HttpHandler::kSendPause) {
    transfer.paused = true;
    return CURL_READFUNC_PAUSE;
  }
  if (n == HttpHandler::kSendStop) {
    if (transfer.stop.ok()) transfer.stop = CancelledError("stopped");
    return CURL_READFUNC_ABORT;
  }
  transfer.Moved(n);
  return n;
}

Status TransportError(const Transfer& transfer, CURLcode code) {
  if (code == CURLE_OK) return OkStatus();
  if (!transfer.stop.ok()) return transfer.stop;
  std::string detail = CleanText(transfer.error[0] != '\0' ? transfer.error : curl_easy_strerror(code), kErrorDetailBytesMax);
  const std::string where = transfer.request.url.host + ": " + detail;
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return DeadlineExceededError(where);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
      return FailedPreconditionError(where + " (its certificate must be signed by a certificate authority of this system)");
    case CURLE_SSL_CONNECT_ERROR:
      return UnavailableError(where + " (if it speaks plain http, list it as a plain http host)");
    case CURLE_OUT_OF_MEMORY:
      return ResourceExhaustedError(where);
    default:
      return UnavailableError(where);
  }
}

}  // namespace

size_t HttpHandler::OnSend(std::span<uint8_t>) { return kSendStop; }

class HttpEngine::Impl {
 public:
  Impl(const HttpEngineOptions& options, Metrics& metrics, CURLM* multi)
      : options_(options), metrics_(metrics), multi_(multi), thread_([this] { Run(); }) {}
  ~Impl();
  void Post(std::function<void()> task);
  Id Start(HttpRequest request, std::shared_ptr<HttpHandler> handler);
  void Cancel(Id id);
  void Resume(Id id);

 private:
  struct Origin {
    std::deque<Id> waiting;
    long active = 0;
    long warming = 0;  // of those: made for the connection that they leave
    long ready = 0;    // connections that transfers have left, about; libcurl has them
    Clock::time_point hold_until{};
    // A connection will be there sooner than one that is opened now.
    bool ShouldHold() const { return warming > 0 && ready == 0 && Clock::now() < hold_until; }
  };

  // All below: network thread only.
  void Run();
  bool RunTasks();
  void Enqueue(const std::shared_ptr<Transfer>& transfer);
  void StartWaiting(const std::string& key);
  void Activate(Transfer& transfer);
  void SetOptions(Transfer& transfer);
  void CollectFinished();
  void CheckStalls();
  void Finish(Id id, Status status);
  void EndAll();
  static std::string OriginKey(const HttpRequest& request) { return request.url.origin() + (request.bulk ? "+" : ""); }

  const HttpEngineOptions options_;
  Metrics& metrics_;
  CURLM* const multi_;
  std::atomic<Id> next_id_{1};
  Mutex mu_;
  std::vector<std::function<void()>> tasks_ HR_GUARDED_BY(mu_);
  bool stopping_ HR_GUARDED_BY(mu_) = false;
  std::unordered_map<Id, std::shared_ptr<Transfer>> transfers_;
  std::unordered_map<CURL*, Id> active_;
  std::map<std::string, Origin> origins_;
  std::set<std::string> holding_;  // origins whose transfers wait for a connection that is being warmed up
  std::vector<CURL*> idle_;
  Clock::time_point next_stall_check_{};
  bool ending_ = false;
  std::thread thread_;  // last: it uses everything above
};

HttpEngine::Impl::~Impl() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  curl_multi_wakeup(multi_);
  thread_.join();
  for (CURL* easy : idle_) curl_easy_cleanup(easy);
  curl_multi_cleanup(multi_);
  curl_global_cleanup();
}

void HttpEngine::Impl::Post(std::function<void()> task) {
  bool first;
  {
    MutexLock lock(mu_);
    first = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (first) curl_multi_wakeup(multi_);
}

HttpEngine::Id HttpEngine::Impl::Start(HttpRequest request, std::shared_ptr<HttpHandler> handler) {
  auto transfer = std::make_shared<Transfer>();
  Transfer& t = *transfer;
  t.id = next_id_.fetch_add(1);
  t.request = std::move(request);
  t.handler = std::move(handler);
  t.metrics = &metrics_;
  const Id id = t.id;
  Post([this, transfer] { Enqueue(transfer); });
  return id;
}

void HttpEngine::Impl::Cancel(Id id) {
  Post([this, id] { Finish(id, CancelledError("cancelled")); });
}

void HttpEngine::Impl::Resume(Id id) {
  Post([this, id] {
    auto found = transfers_.find(id);
    if (found == transfers_.end() || !found->second->paused) return;
    found->second->paused = false;
    found->second->mark_time = Clock::now();
    found->second->moved = 0;
    curl_easy_pause(found->second->easy, CURLPAUSE_CONT);
  });
}

void HttpEngine::Impl::Run() {
  SetThreadName("headrace-net");
  sigset_t pipe;  // TLS libraries write to sockets without MSG_NOSIGNAL
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
  const auto tick = std::clamp(options_.stall_timeout / 4, std::chrono::milliseconds(1), std::chrono::milliseconds(1000));
  ArrivalPace pace;
  while (!RunTasks()) {
    for (const std::string& key : std::exchange(holding_, {})) StartWaiting(key);
    int running = 0;
    curl_multi_perform(multi_, &running);
    CollectFinished();
    if (Clock::now() >= next_stall_check_) {
      CheckStalls();
      next_stall_check_ = Clock::now() + tick;
    }
    {
      MutexLock lock(mu_);
      if (!tasks_.empty()) continue;  // posted by handlers meanwhile
    }
    // Not while tasks come in: whoever waits for a first byte has asked just now.
    if (pace.ShouldGather(Metrics::Get(metrics_.wire_bytes), Clock::now())) std::this_thread::sleep_for(kGather);
    // New tasks wake it; an idle engine looks up once a minute.
    const auto pause = active_.empty() ? std::chrono::milliseconds(60'000) : holding_.empty() ? tick : std::min(tick, kHoldTick);
    curl_multi_poll(multi_, nullptr, 0, static_cast<int>(pause.count()), nullptr);
  }
  EndAll();
}

// Returns true when the engine must end.
bool HttpEngine::Impl::RunTasks() {
  std::vector<std::function<void()>> tasks;
  bool stopping;
  {
    MutexLock lock(mu_);
    tasks.swap(tasks_);
    stopping = stopping_;
  }
  for (std::function<void()>& task : tasks) task();
  return stopping;
}

void HttpEngine::Impl::EndAll() {
  ending_ = true;
  bool more = true;
  while (more) {
    RunTasks();
    while (!transfers_.empty()) Finish(transfers_.begin()->first, CancelledError("the registry client is being shut down"));
    MutexLock lock(mu_);
    more = !tasks_.empty();
  }
}

void HttpEngine::Impl::Enqueue(const std::shared_ptr<Transfer>& transfer) {
  if (ending_ || transfers_.size() >= kRequestsWaitingMax) {
    transfer->handler->OnDone(ending_ ? CancelledError("the registry client is being shut down")
                                      : ResourceExhaustedError("too many requests are waiting"));
    return;
  }
  const std::string key = OriginKey(transfer->request);
  const Id id = transfer->id;
  transfers_.emplace(id, transfer);
  origins_[key].waiting.push_back(id);
  StartWaiting(key);
}

void HttpEngine::Impl::StartWaiting(const std::string& key) {
  auto origin = origins_.find(key);
  if (origin == origins_.end()) return;
  Origin& o = origin->second;
  while (!o.waiting.empty() && o.active < options_.connections_per_origin) {
    auto found = transfers_.find(o.waiting.front());
    const bool cancelled = found == transfers_.end();  // while it waited
    const auto connection = cancelled ? HttpRequest::Connection::kAny : found->second->request.connection;
    if (connection == HttpRequest::Connection::kPrefersWarm && o.ShouldHold()) {
      holding_.insert(key);
      return;
    }
    o.waiting.pop_front();
    if (cancelled) continue;
    ++o.active;
    if (connection != HttpRequest::Connection::kWarmsUp) {
      o.ready = std::max(o.ready - 1, 0L);
    } else if (o.warming++ == 0) {
      o.hold_until = Clock::now() + kHoldMax;
    }
    Activate(*found->second);
  }
  if (o.waiting.empty() && o.active == 0) origins_.erase(origin);
}

void HttpEngine::Impl::Activate(Transfer& transfer) {
  if (idle_.empty()) {
    transfer.easy = curl_easy_init();
    HEADRACE_CHECK(transfer.easy != nullptr);  // out of memory
  } else {
    transfer.easy = idle_.back();
    idle_.pop_back();
  }
  active_[transfer.easy] = transfer.id;
  SetOptions(transfer);
  transfer.mark_time = Clock::now();
  Metrics::Add(metrics_.wire_requests);
  HEADRACE_CHECK(curl_multi_add_handle(multi_, transfer.easy) == CURLM_OK);
}

void HttpEngine::Impl::SetOptions(Transfer& transfer) {
  CURL* easy = transfer.easy;
  const HttpRequest& request = transfer.request;
  auto set = [easy](CURLoption option, auto value) { HEADRACE_CHECK(curl_easy_setopt(easy, option, value) == CURLE_OK); };
  curl_easy_reset(easy);
  set(CURLOPT_URL, request.url.ToString().c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));  // many connections beat one multiplexed one here
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_QUICK_EXIT, 1L);  // a cancelled transfer does not wait for its name look-up
  set(CURLOPT_BUFFERSIZE, kReceiveBufferBytes);
  set(CURLOPT_UPLOAD_BUFFERSIZE, kReceiveBufferBytes);
  set(CURLOPT_USERAGENT, options_.user_agent.c_str());
  const auto connect = request.connect_timeout.count() > 0 ? request.connect_timeout : options_.connect_timeout;
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect.count()));
  if (request.tls) ApplyTls(easy, *request.tls);
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_ERRORBUFFER, transfer.error);
  if (IsLoopbackHost(request.url.host)) set(CURLOPT_NOPROXY, "*");
  set(CURLOPT_HEADERFUNCTION, &HeaderCallback);
  set(CURLOPT_HEADERDATA, &transfer);
  set(CURLOPT_WRITEFUNCTION, &BodyCallback);
  set(CURLOPT_WRITEDATA, &transfer);
  for (const std::string& header : request.headers) transfer.headers = curl_slist_append(transfer.headers, header.c_str());
  transfer.headers = curl_slist_append(transfer.headers, "Expect:");  // no round trip before bodies
  set(CURLOPT_HTTPHEADER, transfer.headers);
  if (request.upload_bytes) {
    set(CURLOPT_UPLOAD, 1L);
    set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(*request.upload_bytes));
    set(CURLOPT_READFUNCTION, &SendCallback);
    set(CURLOPT_READDATA, &transfer);
  }
  if (request.method == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
  } else if (request.method != "GET") {
    set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
}

void HttpEngine::Impl::CollectFinished() {
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    auto found = active_.find(message->easy_handle);
    if (found == active_.end()) continue;
    const Id id = found->second;
    Transfer& transfer = *transfers_.at(id);
    Status status = TransportError(transfer, message->data.result);
    if (status.ok() && !transfer.head_done) status = UnavailableError(transfer.request.url.host + ": no answer");
    Finish(id, std::move(status));
  }
}

void HttpEngine::Impl::CheckStalls() {
  const auto now = Clock::now();
  std::vector<std::pair<Id, Status>> stalled;
  for (auto& [easy, id] : active_) {
    Transfer& transfer = *transfers_.at(id);
    if (transfer.paused || transfer.moved >= options_.stall_bytes_min) {
      transfer.mark_time = now;
      transfer.moved = 0;
      continue;
    }
    // Before the first byte the connect timeout has its turn first; after an upload servers may need time to store it.
    auto limit = std::chrono::duration_cast<std::chrono::milliseconds>(options_.stall_timeout);
    if (!transfer.connected) limit += options_.connect_timeout;
    if (transfer.request.upload_bytes.value_or(0) > 0) limit *= 4;
    if (now - transfer.mark_time < limit) continue;
    stalled.emplace_back(id, DeadlineExceededError(transfer.request.url.host + ": stalled: " + std::to_string(transfer.moved) +
                                                   " bytes in " + std::to_string(limit.count()) + " ms"));
  }
  for (auto& [id, status] : stalled) Finish(id, std::move(status));
}

void HttpEngine::Impl::Finish(Id id, Status status) {
  auto found = transfers_.find(id);
  if (found == transfers_.end()) return;
  std::shared_ptr<Transfer> transfer = std::move(found->second);
  transfers_.erase(found);
  const std::string key = OriginKey(transfer->request);
  if (transfer->easy != nullptr) {
    active_.erase(transfer->easy);
    curl_multi_remove_handle(multi_, transfer->easy);
    // Not one that failed: libcurl leaves something of such a transfer behind (after a name that was not found it refuses a buffer size).
    if (status.ok() && idle_.size() < kIdleHandlesMax) {
      idle_.push_back(transfer->easy);
    } else {
      curl_easy_cleanup(transfer->easy);
    }
    curl_slist_free_all(transfer->headers);
    Origin& origin = origins_.at(key);
    --origin.active;
    if (transfer->request.connection == HttpRequest::Connection::kWarmsUp) --origin.warming;
    if (status.ok()) ++origin.ready;
  }
  transfer->handler->OnDone(std::move(status));
  if (!ending_) StartWaiting(key);
}

Result<std::unique_ptr<HttpEngine>> HttpEngine::Create(const HttpEngineOptions& options, Metrics& metrics) {
  if (options.connections_per_origin < 1 || options.connect_timeout.count() < 1 || options.stall_timeout.count() < 1) {
    return InvalidArgumentError("registry client: connections and timeouts must be at least 1");
  }
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return InternalError("libcurl could not be initialised");
  CURLM* multi = curl_multi_init();
  if (multi == nullptr) return InternalError("libcurl could not be initialised");
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, kIdleConnectionsMax);
  return std::unique_ptr<HttpEngine>(new HttpEngine(std::make_unique<Impl>(options, metrics, multi)));
}

HttpEngine::HttpEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpEngine::~HttpEngine() = default;
HttpEngine::Id HttpEngine::Start(HttpRequest request, std::shared_ptr<HttpHandler> handler) {
  return impl_->Start(std::move(request), std::move(handler));
}
void HttpEngine::Cancel(Id id) { impl_->Cancel(id); }
void HttpEngine::Resume(Id id) { impl_->Resume(id); }
void HttpEngine::Post(std::function<void()> task) { impl_->Post(std::move(task)); }

}  // namespace headrace::registry
