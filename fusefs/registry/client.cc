#include "fusefs/registry/client.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "fusefs/base/log.h"
#include "fusefs/base/text.h"
#include "fusefs/registry/client_impl.h"
#include "fusefs/registry/limits.h"
#include "fusefs/registry/retry.h"

namespace headrace::registry {
namespace {

constexpr char kManifestTypes[] =
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
constexpr size_t kMediaTypeBytesMax = 255;  // RFC 6838

std::string RangeHeader(uint64_t offset, uint64_t size) {
  return "Range: bytes=" + std::to_string(offset) + "-" + (size == 0 ? "" : std::to_string(offset + size - 1));
}

// Delivers one range to the sink, no byte more than asked.
class RangeHandler : public ExchangeHandler {
 public:
  RangeHandler(uint64_t offset, uint64_t size, std::shared_ptr<RangeSink> sink)
      : offset_(offset), size_(size), sink_(std::move(sink)) {}

  void OnSource(uint64_t source) override { sink_->OnSource(source); }
  Status OnAnswer(const HttpHead& head) override { return CheckRangeAnswer(head, offset_, size_); }
  HttpHandler::Flow OnBody(std::span<const uint8_t> data) override {
    if (data.size() > size_ - delivered_) {
      too_much_ = true;
      return HttpHandler::Flow::kStop;
    }
    delivered_ += data.size();
    return sink_->OnData(data) ? HttpHandler::Flow::kContinue : HttpHandler::Flow::kStop;
  }
  void OnDone(ExchangeResult result) override {
    if (too_much_) {
      result.status = UnavailableError(result.status.message() + ": more bytes came than were asked for");
    } else if (result.status.ok() && delivered_ != size_) {
      result.status = UnavailableError("the answer ended after " + std::to_string(delivered_) + " of " +
                                       std::to_string(size_) + " bytes");
    }
    sink_->OnDone(std::move(result.status));
  }

 private:
  const uint64_t offset_, size_;
  const std::shared_ptr<RangeSink> sink_;
  uint64_t delivered_ = 0;
  bool too_much_ = false;
};

// Of a range that nobody wants.
class NobodysSink : public RangeSink {
 public:
  bool OnData(std::span<const uint8_t>) override { return true; }
  void OnDone(Status) override {}
};

std::string MediaType(const HttpHead& head, const std::string& body) {
  const std::string* header = head.Find("content-type");
  std::string type = header != nullptr ? header->substr(0, header->find(';')) : "";
  while (!type.empty() && type.back() == ' ') type.pop_back();
  if (type.find("manifest") == std::string::npos && type.find("index") == std::string::npos) {
    auto json = nlohmann::json::parse(body, nullptr, false);
    auto found = json.is_object() ? json.find("mediaType") : json.end();
    if (json.is_object() && found != json.end() && found->is_string()) type = found->get<std::string>();
  }
  return CleanText(type, kMediaTypeBytesMax);
}

std::vector<std::shared_ptr<CredentialSource>> CredentialSources(const ClientOptions& options) {
  KeychainOptions keychain = options.keychain;
  if (keychain.docker_config.empty()) keychain.docker_config = options.docker_config_path;
  return MakeCredentialSources(keychain);
}

}  // namespace

Result<std::unique_ptr<Client>> Client::Create(const ClientOptions& options, Metrics& metrics) {
  HttpEngineOptions engine_options;
  engine_options.user_agent = options.user_agent;
  engine_options.connect_timeout = options.connect_timeout;
  engine_options.stall_timeout = options.stall_timeout;
  engine_options.stall_bytes_min = options.stall_bytes_min;
  engine_options.connections_per_origin = options.max_connections_per_host;
  HR_ASSIGN_OR_RETURN(auto engine, HttpEngine::Create(engine_options, metrics));
  return std::unique_ptr<Client>(new ClientImpl(options, metrics, std::move(engine)));
}

ClientImpl::ClientImpl(const ClientOptions& options, Metrics& metrics, std::unique_ptr<HttpEngine> engine)
    : options_(options),
      metrics_(metrics),
      credentials_(CredentialSources(options)),
      hosts_(options.hosts_dir),
      engine_(std::move(engine)),
      authenticator_(*engine_, credentials_),
      context_{engine_.get(), &authenticator_, &redirects_, &mirrors_, &metrics_, options.plain_http_hosts} {}

ClientImpl::~ClientImpl() {
  gate_.Close();
  credentials_.Stop();  // its threads post to the engine
  engine_.reset();  // its thread uses everything else
}

std::string ClientImpl::Prefix(const Reference& ref) const {
  return "registry " + ref.host + ": repository " + ref.repository;
}

ExchangeRequest ClientImpl::NewRequest(const Reference& ref, const std::string& method, const std::string& path,
                                       const std::string& what) {
  std::string host = ref.api_host();
  std::transform(host.begin(), host.end(), host.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  ExchangeRequest request;
  request.method = method;
  request.auth.host = ref.host;
  request.auth.repository = ref.repository;
  request.path = "/" + ref.repository + path;
  request.endpoints = hosts_.Find(ref.host);
  if (const Endpoint* configured = request.endpoints->registry.get()) {
    request.url = configured->base;
    request.url.target += request.path;
    if (request.url.scheme == "https" && context_.PlainHttp(request.url.host) && configured->tls == nullptr && request.url.host == host) {
      request.url.scheme = "http";  // plain_http and hosts.toml that says nothing of it
    }
    request.auth.plain_http = request.url.scheme == "http";
    if (!configured->ns.empty() && (method == "GET" || method == "HEAD")) request.url.target += "?ns=" + PercentEncode(configured->ns);
  } else {
    request.auth.plain_http = context_.PlainHttp(host);
    request.url = {request.auth.plain_http ? "http" : "https", host, "/v2" + request.path};
  }
  request.what = Prefix(ref) + ": " + what;
  request.headers = {"Accept-Encoding: identity"};
  return request;
}

ExchangeRequest ClientImpl::NewBlobRequest(const Reference& ref, const Digest& digest, const std::string& method) {
  ExchangeRequest request = NewRequest(ref, method, "/blobs/" + digest.ToString(), "blob " + digest.ToString());
  request.mirrors = ExchangeRequest::Mirrors::kPull;
  if (method == "GET") {
    request.bulk = true;
    request.redirect_key = ref.host + "/" + ref.repository + "@" + digest.ToString();
  }
  return request;
}

void ClientImpl::Fetch(const BlobRef& blob, uint64_t offset, uint64_t size, std::shared_ptr<RangeSink> sink) {
  Result<Reference> ref = Reference::Parse(blob.image_ref);
  Status refused = ref.status();
  if (refused.ok() && size > std::numeric_limits<uint64_t>::max() - offset) {
    refused = InvalidArgumentError("range of blob " + blob.digest.ToString() + " is beyond 2^64");
  }
  if (!refused.ok() || size == 0) {
    engine_->Post([sink = std::move(sink), refused] { sink->OnDone(refused); });
    return;
  }
  ExchangeRequest request = NewBlobRequest(*ref, blob.digest, "GET");
  request.headers.push_back(RangeHeader(offset, size));
  request.what += ": " + RangeText(offset, size);
  request.connection = HttpRequest::Connection::kPrefersWarm;
  Exchange::Start(context_, std::move(request), std::make_shared<RangeHandler>(offset, size, std::move(sink)));
}

void ClientImpl::Warm(const BlobRef& blob, unsigned connections) {
  const Result<Reference> ref = Reference::Parse(blob.image_ref);
  if (!ref.ok()) return;
  for (unsigned i = 0; i < connections; ++i) {
    ExchangeRequest request = NewBlobRequest(*ref, blob.digest, "GET");
    request.headers.push_back(RangeHeader(0, 1));
    request.connection = HttpRequest::Connection::kWarmsUp;
    Exchange::Start(context_, std::move(request), std::make_shared<RangeHandler>(0, 1, std::make_shared<NobodysSink>()));
  }
}

ExchangeResult ClientImpl::Run(ExchangeRequest request, const std::shared_ptr<WaitingHandler>& handler,
                               const Attempt& attempt, const std::function<void(Exchange&)>& use) {
  std::shared_ptr<Exchange> exchange = Exchange::Start(context_, std::move(request), handler);
  if (!gate_.Track(exchange)) exchange->Cancel();
  if (use) use(*exchange);
  ExchangeResult result = handler->Await(*exchange, attempt.deadline);
  gate_.Untrack(exchange);
  return result;
}

Status ClientImpl::WithRetries(int attempts_max, const std::function<ExchangeResult(Attempt&)>& once) {
  CallGate::Call call(gate_);
  if (!call.ok()) return CancelledError("the registry client is being shut down");
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  Attempt attempt{start + request_deadline()};
  Backoff backoff;
  for (int number = 1;; ++number) {
    attempt.progress = false;
    ExchangeResult result = once(attempt);
    if (result.status.ok() || !WorthRetrying(result.status)) return result.status;
    if (attempt.progress) {
      attempt.deadline = Clock::now() + request_deadline();
      backoff.Reset();
    }
    const auto pause = std::max(backoff.Next(), result.status.retry_after());
    if (number >= attempts_max || Clock::now() + pause >= attempt.deadline) {
      Metrics::Add(metrics_.wire_errors);
      const auto spent = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
      return std::move(result.status).WithMessage(result.status.message() + " (gave up after " + std::to_string(number) + " tries in " +
                                                  std::to_string(spent.count()) + " ms)");
    }
    Metrics::Add(metrics_.wire_retries);
    if (!gate_.Pause(pause)) return CancelledError("the registry client is being shut down");
  }
}

Result<ManifestResponse> ClientImpl::GetManifest(const Reference& ref) {
  ManifestResponse manifest;
  HR_RETURN_IF_ERROR(WithRetries(INT32_MAX, [&](Attempt& attempt) {
    ExchangeRequest request = NewRequest(ref, "GET", "/manifests/" + ref.manifest_key(), "manifest " + ref.manifest_key());
    request.headers.push_back(kManifestTypes);
    request.mirrors = ref.digest ? ExchangeRequest::Mirrors::kPull : ExchangeRequest::Mirrors::kResolve;
    const std::string what = request.what;
    auto answer = std::make_shared<Collector>(kManifestBytesMax);
    ExchangeResult result = Run(std::move(request), answer, attempt);
    if (!result.status.ok()) return result;
    manifest.digest = Digest::Of(answer->body());
    if (ref.digest && *ref.digest != manifest.digest) {
      // May be a fault on the way: worth another try, and refused at the end.
      if (result.source != 0) MirrorIsWrong(result.source, what);
      result.status = UnavailableError(what + ": the bytes that came have digest " + manifest.digest.ToString());
      return result;
    }
    manifest.body = std::move(answer->body());
    manifest.media_type = MediaType(answer->head(), manifest.body);
    return result;
  }));
  return manifest;
}

Result<uint64_t> ClientImpl::StatBlob(const Reference& ref, const Digest& digest) { return StatBlobFor(ref, digest, "pull"); }

Result<uint64_t> ClientImpl::StatBlobFor(const Reference& ref, const Digest& digest, const std::string& actions) {
  uint64_t size = 0;
  HR_RETURN_IF_ERROR(WithRetries(INT32_MAX, [&](Attempt& attempt) {
    ExchangeRequest request = NewBlobRequest(ref, digest, "HEAD");
    request.auth.actions = actions;
    if (actions != "pull") request.mirrors = ExchangeRequest::Mirrors::kNone;  // a push asks what the registry itself has
    const std::string what = request.what;
    auto answer = std::make_shared<Collector>(0);
    ExchangeResult result = Run(std::move(request), answer, attempt);
    if (!result.status.ok()) return result;
    if (!answer->head().content_length) result.status = UnavailableError(what + ": the registry does not tell its size");
    size = answer->head().content_length.value_or(0);
    return result;
  }));
  return size;
}

void ClientImpl::MirrorIsWrong(uint64_t source, const std::string& what) {
  Metrics::Add(metrics_.mirror_wrong_bytes);
  log::Error("a mirror gave wrong bytes and is not asked again mirror={} what=\"{}\"", source, what);
  engine_->Post([this, source] { mirrors_.Wrong(source); });
}

void ClientImpl::ReportWrongBytes(const BlobRef& blob, uint64_t source) {
  if (source != 0) MirrorIsWrong(source, "blob " + blob.digest.ToString() + " of " + blob.image_ref);
}

Result<std::string> ClientImpl::GetBlobRange(const Reference& ref, const Digest& digest, uint64_t offset, uint64_t size,
                                             const BytesCheck& check_bytes) {
  if (size > std::numeric_limits<uint64_t>::max() - offset) {
    return InvalidArgumentError(Prefix(ref) + ": blob " + digest.ToString() + ": range beyond 2^64");
  }
  std::string bytes;
  if (size == 0) return bytes;
  HR_RETURN_IF_ERROR(WithRetries(INT32_MAX, [&](Attempt& attempt) {
    ExchangeRequest request = NewBlobRequest(ref, digest, "GET");
    request.headers.push_back(RangeHeader(offset, size));
    request.what += ": " + RangeText(offset, size);
    const std::string what = request.what;
    auto check = [=](const HttpHead& head) { return CheckRangeAnswer(head, offset, size); };
    auto answer = std::make_shared<Collector>(size, check);
    ExchangeResult result = Run(std::move(request), answer, attempt);
    if (result.status.ok() && answer->body().size() != size) {
      result.status = UnavailableError(what + ": the answer ended after " + std::to_string(answer->body().size()) + " bytes");
    }
    bytes = std::move(answer->body());
    if (!result.status.ok() || !check_bytes) return result;
    result.status = check_bytes(bytes).Annotate(what);
    if (!result.status.ok() && result.source != 0) {
      MirrorIsWrong(result.source, what);
      result.status = UnavailableError(result.status.message());  // the next attempt asks others
    }
    return result;
  }));
  return bytes;
}

ExchangeResult ClientImpl::DownloadOnce(const Reference& ref, const Digest& digest, uint64_t& offset,
                                        const std::function<Status(std::span<const uint8_t>)>& sink, Attempt& attempt) {
  ExchangeRequest request = NewBlobRequest(ref, digest, "GET");
  if (offset > 0) request.headers.push_back(RangeHeader(offset, 0));
  // Set on the network thread before the first piece is handed over under the pipe's lock.
  auto skip = std::make_shared<uint64_t>(0);
  auto pipe = std::make_shared<DownloadPipe>([offset, skip](const HttpHead& head) {
    *skip = head.status == 200 ? offset : 0;  // a registry without ranges starts from the beginning again
    return CheckRangeAnswer(head, head.status == 200 ? 0 : offset, 0);
  });
  Status sink_status;
  ExchangeResult result = Run(std::move(request), pipe, attempt, [&](Exchange& exchange) {
    for (;;) {
      std::vector<uint8_t> piece = pipe->Take(exchange, attempt.deadline);
      if (piece.empty()) return;
      std::span<const uint8_t> fresh(piece);
      uint64_t known = std::min<uint64_t>(*skip, fresh.size());
      *skip -= known;
      fresh = fresh.subspan(known);
      if (fresh.empty()) continue;
      sink_status = sink(fresh);
      if (!sink_status.ok()) return exchange.Cancel();
      offset += fresh.size();
      attempt.progress = true;
      attempt.deadline = std::chrono::steady_clock::now() + request_deadline();
    }
  });
  if (!sink_status.ok()) result.status = sink_status;
  if (attempt.progress) attempt.sources.insert(result.source);
  return result;
}

Status ClientImpl::GetBlob(const Reference& ref, const Digest& digest,
                           const std::function<Status(std::span<const uint8_t>)>& sink, Verified by) {
  uint64_t offset = 0;
  bool sink_failed = false;
  Sha256 hasher;
  auto watched = [&](std::span<const uint8_t> data) {
    if (by == Verified::kHere) hasher.Update(data);
    Status status = sink(data);
    sink_failed = !status.ok();
    return status;
  };
  Status sink_status;
  std::set<uint64_t> sources;
  Status status = WithRetries(INT32_MAX, [&](Attempt& attempt) {
    ExchangeResult result = DownloadOnce(ref, digest, offset, watched, attempt);
    sources.insert(attempt.sources.begin(), attempt.sources.end());
    if (!sink_failed) return result;
    sink_status = result.status;  // the caller's own, whatever its code: no reason for another try
    result.status = CancelledError("the receiver stopped");
    return result;
  });
  if (sink_failed) return sink_status;
  HR_RETURN_IF_ERROR(status);
  if (by == Verified::kByCaller) return OkStatus();
  Digest found = hasher.Finish();
  if (found != digest) {
    // Of several that gave parts of it nobody knows which one was wrong.
    if (sources.size() == 1 && *sources.begin() != 0) MirrorIsWrong(*sources.begin(), "blob " + digest.ToString());
    return DataLossError(Prefix(ref) + ": blob " + digest.ToString() + ": the " + std::to_string(offset) +
                         " bytes that came have digest " + found.ToString());
  }
  return OkStatus();
}

}  // namespace headrace::registry
