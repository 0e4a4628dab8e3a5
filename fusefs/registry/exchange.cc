#include "fusefs/registry/exchange.h"

#include <algorithm>
#include <charconv>
#include <random>
#include <utility>

#include "fusefs/base/text.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

using Clock = std::chrono::steady_clock;

bool IsRedirect(int status) { return status == 301 || status == 302 || status == 303 || status == 307 || status == 308; }
// How stores refuse presigned URLs that have expired; 400 is said of the session's token that they were signed with.
bool IsExpired(int status) { return status == 400 || status == 401 || status == 403 || status == 404 || status == 410; }

std::string_view HttpStatusName(int status) {
  switch (status) {
    case 400: return " Bad Request";
    case 401: return " Unauthorized";
    case 403: return " Forbidden";
    case 404: return " Not Found";
    case 416: return " Range Not Satisfiable";
    case 429: return " Too Many Requests";
    case 500: return " Internal Server Error";
    case 502: return " Bad Gateway";
    case 503: return " Service Unavailable";
    case 504: return " Gateway Timeout";
    default: return "";
  }
}

// How servers and stores call a request in their own logs and support cases.
constexpr std::string_view kTheirRequestIds[] = {"x-amz-request-id", "x-ms-request-id", "x-guploader-uploadid", "x-request-id"};

// Part of an Authorization value that is the secret.
std::string_view SecretOf(std::string_view authorization) {
  size_t space = authorization.find(' ');
  return space == std::string_view::npos ? authorization : authorization.substr(space + 1);
}

}  // namespace

size_t ExchangeHandler::OnSend(std::span<uint8_t>) { return HttpHandler::kSendStop; }

std::optional<Url> RedirectCache::Find(const std::string& key) {
  auto found = entries_.find(key);
  if (found == entries_.end()) return std::nullopt;
  if (Clock::now() < found->second.expiry) return found->second.url;
  entries_.erase(found);
  return std::nullopt;
}

void RedirectCache::Store(const std::string& key, const Url& url) {
  if (entries_.size() >= kRedirectCacheMax) {
    const auto now = Clock::now();
    std::erase_if(entries_, [now](const auto& item) { return item.second.expiry <= now; });
    if (entries_.size() >= kRedirectCacheMax) entries_.clear();  // costs one redirect each
  }
  entries_[key] = {url, Clock::now() + kRedirectLifetime};
}

void RedirectCache::Drop(const std::string& key, const Url& url) {
  auto found = entries_.find(key);
  if (found != entries_.end() && found->second.url.ToString() == url.ToString()) entries_.erase(found);
}

bool MirrorHealth::Usable(uint64_t id, const std::string& key) {
  if (wrong_.contains(id)) return false;
  const auto now = Clock::now();
  if (auto resting = resting_.find(id); resting != resting_.end()) {
    if (now < resting->second) return false;
    resting_.erase(resting);
  }
  if (auto lacking = lacking_.find({id, key}); lacking != lacking_.end()) {
    if (now < lacking->second) return false;
    lacking_.erase(lacking);
  }
  return true;
}

void MirrorHealth::Failed(uint64_t id) { resting_[id] = Clock::now() + kMirrorRest; }

void MirrorHealth::Lacks(uint64_t id, const std::string& key) {
  if (lacking_.size() >= kMirrorLacksMax) lacking_.clear();  // costs one answer 404 each
  lacking_[{id, key}] = Clock::now() + kMirrorRest;
}

std::string ExchangeContext::NewRequestPrefix() {
  std::random_device random;
  const uint64_t number = (uint64_t{random()} << 32) | random();
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, number, 16).ptr;
  return "headrace-" + std::string(digits, end);
}

bool ExchangeContext::PlainHttp(std::string_view host) const {
  const std::string_view name = host.substr(0, host.rfind(':'));
  return IsLoopbackHost(host) || std::any_of(plain_http_hosts.begin(), plain_http_hosts.end(), [&](const std::string& listed) {
           return listed == host || listed == name;
         });
}

std::shared_ptr<Exchange> Exchange::Start(ExchangeContext& context, ExchangeRequest request,
                                          std::shared_ptr<ExchangeHandler> handler) {
  std::shared_ptr<Exchange> exchange(new Exchange(context, std::move(request), std::move(handler)));
  context.engine->Post([exchange] { exchange->Begin(); });
  return exchange;
}

void Exchange::Cancel() {
  context_.engine->Post([self = shared_from_this()] {
    self->cancelled_ = true;
    self->context_.engine->Cancel(self->id_);
    // Programs that are asked for credentials may take long; who has given up does not wait for them.
    if (self->authorizing_) self->Finish(CancelledError("cancelled"));
  });
}

void Exchange::Resume() {
  context_.engine->Post([self = shared_from_this()] { self->context_.engine->Resume(self->id_); });
}

void Exchange::Begin() {
  request_id_ = context_.request_prefix + "-" + std::to_string(++context_.requests);
  const auto may = [this](const Endpoint& mirror) {
    if (request_.mirrors == ExchangeRequest::Mirrors::kNone) return false;
    const bool able = request_.mirrors == ExchangeRequest::Mirrors::kResolve ? mirror.resolve : mirror.pull;
    return able && context_.mirrors->Usable(mirror.id, request_.path);
  };
  if (request_.endpoints) {
    for (const auto& mirror : request_.endpoints->mirrors) {
      if (may(*mirror)) mirrors_.push_back(mirror);
    }
  }
  BeginEndpoint();
}

const Endpoint* Exchange::endpoint() const {
  if (AtMirror()) return mirrors_[place_].get();
  return request_.endpoints ? request_.endpoints->registry.get() : nullptr;
}

void Exchange::BeginEndpoint() {
  home_ = request_.url;
  auth_ = request_.auth;
  redirect_key_ = request_.redirect_key;
  if (AtMirror()) {
    const Endpoint& mirror = *mirrors_[place_];
    home_ = mirror.base;
    home_.target += request_.path;
    if (!mirror.ns.empty()) home_.target += (home_.target.find('?') == std::string::npos ? "?ns=" : "&ns=") + PercentEncode(mirror.ns);
    auth_.host = mirror.base.host;  // credentials are looked up by the mirror's own name
    auth_.plain_http = mirror.base.scheme == "http";
    if (!redirect_key_.empty()) redirect_key_ += "\n" + std::to_string(mirror.id);
    Metrics::Add(context_.metrics->mirror_requests);
  }
  if (const Endpoint* at = endpoint()) auth_.tls = at->tls;
  url_ = request_.target.value_or(home_);
  from_cache_ = false;
  redirects_ = 0;
  redirect_renewed_ = forbidden_renewed_ = false;
  authorization_renewals_ = 0;
  refused_ = {};
  BeginAtRedirect();
}

void Exchange::BeginAtRedirect() {
  if (!redirect_key_.empty()) {
    if (std::optional<Url> cached = context_.redirects->Find(redirect_key_)) {
      url_ = std::move(*cached);
      from_cache_ = true;
    }
  }
  authorization_ = context_.authenticator->Cached(auth_);
  Send();
}

bool Exchange::NextEndpoint(const Status& status) {
  if (!AtMirror() || cancelled_ || status.code() == StatusCode::kCancelled) return false;
  const Endpoint& mirror = *mirrors_[place_];
  // What it has not, or does not give to us, says nothing of what it has for others.
  const bool lacks = (head_.status == 401 || head_.status == 403 || head_.status == 404) && !delivered_;
  if (lacks) {
    context_.mirrors->Lacks(mirror.id, request_.path);
  } else {
    Metrics::Add(context_.metrics->mirror_failures);
    context_.mirrors->Failed(mirror.id);
  }
  if (delivered_) return false;  // its receiver has some of it already: the next attempt asks others
  if (troubles_.size() < 1000) troubles_ += (troubles_.empty() ? "" : "; ") + CleanText(mirror.base.host, 100) + ": " + status.message();
  ++place_;
  BeginEndpoint();
  return true;
}

void Exchange::Send() {
  if (cancelled_) return Finish(CancelledError("cancelled"));
  HttpRequest http;
  http.method = request_.method;
  http.url = url_;
  http.headers = request_.headers;
  http.bulk = request_.bulk;
  http.connection = request_.connection;
  if (const Endpoint* at = endpoint(); at != nullptr) {
    http.tls = at->tls;  // also where it redirects to: a store beside the registry has the same authority
    if (AtHome()) {
      http.headers.insert(http.headers.end(), at->headers.begin(), at->headers.end());
      http.connect_timeout = at->connect_timeout;
    }
  }
  if (AtHome()) http.headers.push_back("X-Request-Id: " + request_id_);
  if (AtHome() && !authorization_.empty()) http.headers.push_back("Authorization: " + authorization_);
  if (request_.body) http.upload_bytes = request_.body->size();
  if (request_.stream_bytes) http.upload_bytes = request_.stream_bytes;
  body_sent_ = 0;
  error_body_.clear();
  enough_ = false;
  head_ = {};
  mode_ = Mode::kError;
  id_ = context_.engine->Start(std::move(http), shared_from_this());
}

Exchange::Mode Exchange::Classify(const HttpHead& head) {
  if (head.status >= 200 && head.status < 300) return Mode::kDeliver;
  if (from_cache_ && IsExpired(head.status) && !redirect_renewed_) return Mode::kRenewRedirect;
  if (head.status == 401 && AtHome() && authorization_renewals_ < kAuthorizationsMax) return Mode::kRenewAuthorization;
  if (head.status == 403 && AtHome() && !authorization_.empty() && !forbidden_renewed_) return Mode::kRenewAuthorization;
  if (IsRedirect(head.status) && request_.follow_redirects) return Mode::kRedirect;
  return Mode::kError;
}

HttpHandler::Flow Exchange::OnHead(const HttpHead& head) {
  head_ = head;
  mode_ = Classify(head);
  if (mode_ != Mode::kDeliver) {
    enough_ = head.content_length.value_or(0) > kErrorBodyBytesMax;
    return enough_ ? Flow::kStop : Flow::kContinue;
  }
  handler_->OnSource(AtMirror() ? mirrors_[place_]->id : 0);
  refused_ = handler_->OnAnswer(head);
  return refused_.ok() ? Flow::kContinue : Flow::kStop;
}

HttpHandler::Flow Exchange::OnBody(std::span<const uint8_t> data) {
  if (mode_ == Mode::kDeliver) {
    delivered_ = true;
    return handler_->OnBody(data);
  }
  if (error_body_.size() + data.size() > kErrorBodyBytesMax) {
    enough_ = true;
    return Flow::kStop;
  }
  error_body_.append(reinterpret_cast<const char*>(data.data()), data.size());
  return Flow::kContinue;
}

size_t Exchange::OnSend(std::span<uint8_t> buffer) {
  if (!request_.body) return handler_->OnSend(buffer);
  size_t n = std::min(buffer.size(), request_.body->size() - body_sent_);
  std::copy_n(request_.body->data() + body_sent_, n, reinterpret_cast<char*>(buffer.data()));
  body_sent_ += n;
  return n;
}

void Exchange::OnDone(Status status) {
  id_ = 0;
  // Of an answer that is no success the head decides; the body is only words for people, and may fail to come (the distribution registry
  // announces the whole blob's length with its 416 and sends nothing).
  const bool ended_by_us = status.code() == StatusCode::kCancelled && !enough_;
  const bool answered = head_.status != 0 && mode_ != Mode::kDeliver && !cancelled_ && !ended_by_us;
  if (!answered) return Finish(refused_.ok() ? std::move(status) : refused_);
  switch (mode_) {
    case Mode::kRedirect:
      return FollowRedirect();
    case Mode::kRenewAuthorization:
      return RenewAuthorization();
    case Mode::kRenewRedirect:
      redirect_renewed_ = true;
      context_.redirects->Drop(redirect_key_, url_);  // who met it first may have renewed it by now
      url_ = request_.target.value_or(home_);
      from_cache_ = false;
      return BeginAtRedirect();
    case Mode::kError:
    case Mode::kDeliver:
      return Finish(HttpError());
  }
}

void Exchange::FollowRedirect() {
  const std::string* location = head_.Find("location");
  if (++redirects_ > kRedirectsMax) return Finish(FailedPreconditionError("more than 10 redirects"));
  Result<Url> target = location != nullptr ? Url::Resolve(url_, *location) : InvalidArgumentError("there is no Location");
  if (!target.ok()) return Finish(target.status().Annotate("redirect"));
  if (url_.scheme == "https" && target->scheme == "http" && !context_.PlainHttp(target->host)) {
    return Finish(FailedPreconditionError("is redirected from https to plain http at " + CleanText(target->host, 100) +
                                          ", which is not allowed for that host"));
  }
  url_ = std::move(*target);
  from_cache_ = false;
  if (!redirect_key_.empty()) context_.redirects->Store(redirect_key_, url_);
  Send();
}

void Exchange::RenewAuthorization() {
  Renewal why = authorization_renewals_ > 0 ? Renewal::kFreshRefused : Renewal::kUnauthorized;
  if (head_.status == 403) {
    why = Renewal::kForbidden;
    forbidden_renewed_ = true;
  } else {
    ++authorization_renewals_;
  }
  authorizing_ = true;
  context_.authenticator->Authorize(
      auth_, head_.FindAll("www-authenticate"), authorization_, why,
      [self = shared_from_this()](Result<std::string> found) { self->OnAuthorization(std::move(found)); });
}

void Exchange::OnAuthorization(Result<std::string> authorization) {
  authorizing_ = false;
  if (!authorization.ok()) {
    // Nothing else to try: the registry's own words stand.
    if (head_.status == 403 && authorization.status().code() == StatusCode::kUnauthenticated) return Finish(HttpError());
    // What failed is the authentication; a 401 without a way to get in stays a 401 for the caller.
    return Finish(authorization.status().Annotate(head_.status == 403 ? "HTTP 403 Forbidden" : "HTTP 401 Unauthorized"));
  }
  if (request_.stream_bytes) {  // its body cannot be sent again from here
    return Finish(UnavailableError("the authorization had expired and was renewed; send it again"));
  }
  refused_authorizations_.push_back(std::exchange(authorization_, std::move(*authorization)));
  Send();
}

Status Exchange::HttpError() const {
  std::string text = "HTTP " + std::to_string(head_.status) + std::string(HttpStatusName(head_.status));
  std::string detail = ErrorDetail(error_body_);
  const auto is_echoed = [&](const std::string& sent) { return !sent.empty() && detail.find(SecretOf(sent)) != std::string::npos; };
  if (is_echoed(authorization_) || std::any_of(refused_authorizations_.begin(), refused_authorizations_.end(), is_echoed)) detail.clear();
  if (!detail.empty()) text += ": " + detail;
  if (head_.status == 401) text += ": the credentials were refused; log in again";
  if (head_.status == 403) text += ": the credentials do not allow this, or the place does not exist";
  return Status(CodeOfHttpStatus(head_.status), text).WithRetryAfter(ParseRetryAfter(head_).value_or(std::chrono::milliseconds(0)));
}

std::string Exchange::RequestNames() const {
  std::string names = "request " + request_id_;
  for (const std::string_view name : kTheirRequestIds) {
    const std::string* theirs = head_.Find(name);
    if (theirs != nullptr && *theirs != request_id_) return names + ", " + std::string(name) + " " + CleanText(*theirs, 100);
  }
  return names;
}

void Exchange::Finish(Status status) {
  if (handler_ == nullptr) return;
  const bool elsewhere = !url_.host.empty() && !AtHome();
  if (elsewhere && !status.ok()) context_.redirects->Drop(redirect_key_, url_);
  if (!status.ok() && NextEndpoint(status)) return;
  ExchangeResult result;
  result.http_status = head_.status;
  result.source = AtMirror() ? mirrors_[place_]->id : 0;
  std::string where = request_.what;
  if (AtMirror()) where += ": mirror " + CleanText(home_.host, 100);
  if (elsewhere) where += ": redirected to " + CleanText(url_.host, 100);
  result.status = status.Annotate(where);
  std::string more = troubles_.empty() ? "" : " (mirrors before it failed: " + troubles_ + ")";
  if (request_.endpoints && !request_.endpoints->note.empty()) more += " (" + request_.endpoints->note + ")";
  if (!status.ok() && status.code() != StatusCode::kCancelled) more += " [" + RequestNames() + "]";
  if (!status.ok() && !more.empty()) result.status = std::move(result.status).WithMessage(result.status.message() + more);
  std::shared_ptr<ExchangeHandler> handler = std::move(handler_);
  handler->OnDone(std::move(result));
}

}  // namespace headrace::registry
