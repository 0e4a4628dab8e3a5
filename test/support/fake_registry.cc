#include "test/support/fake_registry.h"

#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "fusefs/base/text.h"
#include "test/support/fake_http.h"

namespace headrace::test {
namespace {

constexpr size_t kRequestsKept = 20'000;

struct Range {
  bool asked = false;
  bool satisfiable = true;
  uint64_t begin = 0;
  uint64_t end = 0;
};

Range ParseRange(const std::string& header, uint64_t size) {
  Range range{false, true, 0, size};
  if (header.rfind("bytes=", 0) != 0) return range;
  range.asked = true;
  size_t dash = header.find('-');
  Result<uint64_t> first = ParseU64(std::string_view(header).substr(6, dash - 6));
  Result<uint64_t> last = ParseU64(std::string_view(header).substr(dash + 1));
  range.begin = first.ok() ? *first : 0;
  range.end = last.ok() && *last < size ? *last + 1 : size;
  range.satisfiable = range.begin < range.end;
  return range;
}

std::string QueryValue(const std::string& target, const std::string& key) {
  size_t at = target.find('?');
  while (at != std::string::npos) {
    size_t begin = at + 1;
    at = target.find('&', begin);
    std::string pair = target.substr(begin, at == std::string::npos ? at : at - begin);
    if (pair.rfind(key + "=", 0) != 0) continue;
    std::string out;
    for (size_t i = key.size() + 1; i < pair.size(); ++i) {
      bool coded = pair[i] == '%' && i + 2 < pair.size();
      out += coded ? static_cast<char>(std::strtoul(pair.substr(i + 1, 2).c_str(), nullptr, 16)) : pair[i];
      i += coded ? 2 : 0;
    }
    return out;
  }
  return "";
}

FakeAnswer Plain(int status, std::string body, std::vector<std::string> headers = {}) {
  FakeAnswer answer;
  answer.status = status;
  answer.body = std::move(body);
  answer.headers = std::move(headers);
  return answer;
}

FakeAnswer RegistryError(int status, const std::string& code) {
  return Plain(status, R"({"errors":[{"code":")" + code + R"(","message":"the fake says no"}]})",
               {"Content-Type: application/json"});
}

}  // namespace

class FakeRegistry::Impl {
 public:
  Impl()
      : cdn_([this](const FakeHttpRequest& r) { return Handle(r, true); }, gate_),
        api_([this](const FakeHttpRequest& r) { return Handle(r, false); }, gate_) {}

  FakeAnswer Handle(const FakeHttpRequest& request, bool cdn);
  FakeAnswer Route(const FakeHttpRequest& request, const std::string& path, bool cdn);
  FakeAnswer Token(const FakeHttpRequest& request);
  bool Authorized(const FakeHttpRequest& request) const;
  FakeAnswer Challenge(const std::string& repository) const;
  FakeAnswer ServeManifest(const FakeHttpRequest& request, const std::string& repository, const std::string& key);
  FakeAnswer ServeBlob(const FakeHttpRequest& request, const std::string& repository, const std::string& digest);
  FakeAnswer ServeCdn(const FakeHttpRequest& request, const std::string& path);
  FakeAnswer BlobContent(const FakeHttpRequest& request, const std::string& content);
  FakeAnswer Upload(const FakeHttpRequest& request, const std::string& repository, const std::string& id);
  FakeAnswer FinishUpload(const std::string& repository, const std::string& id, const std::string& digest);
  // The first fault for this request, used up by one; called with mu_ held.
  std::optional<Fault> TakeFault(const std::string& method, const std::string& path);
  void FlipBits(const std::string& method, const std::string& path, uint64_t begin, std::string& bytes);
  static void Deliver(const Fault& fault, FakeAnswer& answer);
  static bool Matches(const Fault& fault, const std::string& method, const std::string& path);

  mutable std::mutex mu_;
  FakeGate gate_;
  std::map<std::string, std::shared_ptr<const std::string>> blobs_;               // "repo@digest"
  std::map<std::string, std::pair<std::string, std::string>> manifests_;          // "repo:key" -> body, media type
  std::map<std::string, std::pair<std::string, std::string>> uploads_;            // id -> repository, bytes
  std::deque<Fault> faults_;
  std::optional<Fault> acting_;  // the range fault of the request being answered
  std::deque<Request> requests_;
  Counts counts_;
  enum class Auth { kNone, kToken, kBasic } auth_ = Auth::kNone;
  std::string user_, password_, refresh_token_, realm_;
  std::set<std::string> tokens_;
  int token_lifetime_ = 300;
  bool redirect_ = false;
  int redirect_status_ = 307;
  int expired_status_ = 403;
  uint64_t redirect_epoch_ = 0;
  bool allow_mount_ = true;
  uint64_t serial_ = 0;
  std::string api_host_, cdn_host_;
  FakeHttpServer cdn_;
  FakeHttpServer api_;  // last: their threads use everything above
};

bool FakeRegistry::Impl::Matches(const Fault& fault, const std::string& method, const std::string& path) {
  return (fault.method.empty() || fault.method == method) &&
         (fault.path_contains.empty() || path.find(fault.path_contains) != std::string::npos);
}

std::optional<Fault> FakeRegistry::Impl::TakeFault(const std::string& method, const std::string& path) {
  for (auto fault = faults_.begin(); fault != faults_.end(); ++fault) {
    if (fault->kind == Fault::Kind::kFlipBit || !Matches(*fault, method, path)) continue;
    if (fault->skip > 0) {
      --fault->skip;
      continue;
    }
    Fault taken = *fault;
    if (fault->times > 0 && --fault->times == 0) faults_.erase(fault);
    return taken;
  }
  return std::nullopt;
}

void FakeRegistry::Impl::FlipBits(const std::string& method, const std::string& path, uint64_t begin, std::string& bytes) {
  for (auto fault = faults_.begin(); fault != faults_.end();) {
    bool hit = fault->kind == Fault::Kind::kFlipBit && Matches(*fault, method, path) && fault->blob_offset >= begin &&
               fault->blob_offset - begin < bytes.size();
    if (hit && fault->skip > 0) {
      --fault->skip;
      hit = false;
    }
    if (hit) {
      char& byte = bytes[fault->blob_offset - begin];
      byte = static_cast<char>(byte ^ 1);
    }
    fault = hit && fault->times > 0 && --fault->times == 0 ? faults_.erase(fault) : std::next(fault);
  }
}

// How the body is sent. Faults of what is sent were applied where the answer was made.
void FakeRegistry::Impl::Deliver(const Fault& fault, FakeAnswer& answer) {
  switch (fault.kind) {
    case Fault::Kind::kReset:
      answer.send_bytes = fault.after_bytes;
      answer.end = FakeAnswer::End::kReset;
      break;
    case Fault::Kind::kTruncate:
      answer.send_bytes = fault.after_bytes;
      answer.end = FakeAnswer::End::kClose;
      break;
    case Fault::Kind::kDrip:
      answer.piece_bytes = std::max<uint64_t>(fault.after_bytes, 1);
      answer.pause = fault.pause;
      break;
    case Fault::Kind::kStall:
      answer.stall_at = fault.after_bytes;
      break;
    case Fault::Kind::kHold:
      answer.hold = true;
      break;
    default:
      break;
  }
}

FakeAnswer FakeRegistry::Impl::Handle(const FakeHttpRequest& request, bool cdn) {
  std::lock_guard lock(mu_);
  const std::string path = request.target.substr(0, request.target.find('?'));
  ++counts_.requests;
  requests_.push_back({request.method, request.target, request.Header("range"), request.Header("authorization"),
                       request.Header("user-agent"), cdn, request.Header("x-request-id")});
  if (requests_.size() > kRequestsKept) requests_.pop_front();
  acting_ = TakeFault(request.method, path);
  FakeAnswer answer;
  if (acting_ && acting_->kind == Fault::Kind::kClose) {
    answer.no_answer = true;
    answer.end = FakeAnswer::End::kClose;
  } else if (acting_ && acting_->kind == Fault::Kind::kStatus) {
    answer = Plain(acting_->status, acting_->body, acting_->headers);
  } else {
    answer = Route(request, path, cdn);
  }
  if (acting_) Deliver(*acting_, answer);
  answer.head_only = request.method == "HEAD";
  if (answer.status == 401) ++counts_.unauthorized;
  if (!answer.head_only && !answer.no_answer) counts_.bytes += std::min<uint64_t>(answer.body.size(), answer.send_bytes);
  return answer;
}

FakeAnswer FakeRegistry::Impl::Route(const FakeHttpRequest& request, const std::string& path, bool cdn) {
  if (cdn) return ServeCdn(request, path);
  if (path == "/token") return Token(request);
  if (path.rfind("/v2/", 0) != 0) return RegistryError(404, "NOT_FOUND");
  std::string repository, rest, kind;
  for (const char* marker : {"/manifests/", "/blobs/uploads/", "/blobs/"}) {
    size_t at = path.find(marker);
    if (at == std::string::npos || at < 4) continue;
    repository = path.substr(4, at - 4);
    kind = marker;
    rest = path.substr(at + kind.size());
    break;
  }
  if (!Authorized(request)) return Challenge(repository);
  if (kind == "/manifests/") return ServeManifest(request, repository, rest);
  if (kind == "/blobs/uploads/") return Upload(request, repository, rest);
  if (kind == "/blobs/") return ServeBlob(request, repository, rest);
  return path == "/v2/" ? Plain(200, "{}") : RegistryError(404, "NOT_FOUND");
}

bool FakeRegistry::Impl::Authorized(const FakeHttpRequest& request) const {
  const std::string given = request.Header("authorization");
  if (auth_ == Auth::kNone) return true;
  if (auth_ == Auth::kBasic) return given == "Basic " + Base64Encode(user_ + ":" + password_);
  return given.rfind("Bearer ", 0) == 0 && tokens_.count(given.substr(7)) != 0;
}

FakeAnswer FakeRegistry::Impl::Challenge(const std::string& repository) const {
  FakeAnswer answer = RegistryError(401, "UNAUTHORIZED");
  if (auth_ == Auth::kBasic) {
    answer.headers.push_back("WWW-Authenticate: Basic realm=\"fake\"");
  } else {
    answer.headers.push_back("WWW-Authenticate: Bearer realm=\"" + realm_ + "\",service=\"fake\",scope=\"repository:" +
                             repository + ":pull\"");
  }
  return answer;
}

FakeAnswer FakeRegistry::Impl::Token(const FakeHttpRequest& request) {
  ++counts_.token_requests;
  bool allowed = user_.empty() || request.Header("authorization") == "Basic " + Base64Encode(user_ + ":" + password_);
  if (request.method == "POST") {
    allowed = !refresh_token_.empty() && QueryValue("?" + request.body, "grant_type") == "refresh_token" &&
              QueryValue("?" + request.body, "refresh_token") == refresh_token_;
  }
  if (!allowed) return RegistryError(401, "UNAUTHORIZED");
  std::string token = "fake-token-" + std::to_string(++serial_);
  tokens_.insert(token);
  std::string body = R"({"token":")" + token + "\"";
  if (token_lifetime_ > 0) body += ",\"expires_in\":" + std::to_string(token_lifetime_);
  return Plain(200, body + "}", {"Content-Type: application/json"});
}

FakeAnswer FakeRegistry::Impl::ServeManifest(const FakeHttpRequest& request, const std::string& repository,
                                             const std::string& key) {
  if (request.method == "PUT") {
    ++counts_.manifest_puts;
    std::string digest = Digest::Of(request.body).ToString();
    if (key.rfind("sha256:", 0) == 0 && key != digest) return RegistryError(400, "DIGEST_INVALID");
    for (const std::string& name : {key, digest}) {
      manifests_[repository + ":" + name] = {request.body, request.Header("content-type")};
    }
    return Plain(201, "", {"Docker-Content-Digest: " + digest, "Location: /v2/" + repository + "/manifests/" + digest});
  }
  if (request.method == "GET") ++counts_.manifest_gets;
  auto found = manifests_.find(repository + ":" + key);
  if (found == manifests_.end()) return RegistryError(404, "MANIFEST_UNKNOWN");
  std::string body = found->second.first;
  FlipBits(request.method, request.target, 0, body);
  return Plain(200, body, {"Content-Type: " + found->second.second});
}

FakeAnswer FakeRegistry::Impl::ServeBlob(const FakeHttpRequest& request, const std::string& repository,
                                         const std::string& digest) {
  ++(request.method == "HEAD" ? counts_.blob_heads : counts_.blob_gets);
  auto found = blobs_.find(repository + "@" + digest);
  if (found == blobs_.end()) return RegistryError(404, "BLOB_UNKNOWN");
  if (redirect_ && request.method == "GET") {
    if (!request.Header("range").empty()) ++counts_.blob_range_gets;
    return Plain(redirect_status_, "", {"Location: http://" + cdn_host_ + "/cdn/" + repository + "@" + digest +
                                        "?X-Signature=secret-signature&epoch=" + std::to_string(redirect_epoch_)});
  }
  return BlobContent(request, *found->second);
}

FakeAnswer FakeRegistry::Impl::ServeCdn(const FakeHttpRequest& request, const std::string& path) {
  ++counts_.cdn_gets;
  if (QueryValue(request.target, "epoch") != std::to_string(redirect_epoch_)) {
    return Plain(expired_status_, "<Error><Code>AccessDenied</Code></Error>");
  }
  auto found = path.rfind("/cdn/", 0) == 0 ? blobs_.find(path.substr(5)) : blobs_.end();
  return found == blobs_.end() ? Plain(404, "") : BlobContent(request, *found->second);
}

FakeAnswer FakeRegistry::Impl::BlobContent(const FakeHttpRequest& request, const std::string& content) {
  const std::string path = request.target.substr(0, request.target.find('?'));
  Range range = ParseRange(request.Header("range"), content.size());
  if (range.asked) ++counts_.blob_range_gets;
  if (acting_ && acting_->kind == Fault::Kind::kIgnoreRange) range = {false, true, 0, content.size()};
  if (!range.satisfiable) {
    return Plain(416, "", {"Content-Range: bytes */" + std::to_string(content.size())});
  }
  if (acting_ && range.asked && acting_->kind == Fault::Kind::kWrongRange) {
    range.begin = std::min<uint64_t>(range.begin + acting_->shift, content.size() - 1);
    range.end = std::min<uint64_t>(range.end + acting_->shift, content.size());
  }
  if (acting_ && range.asked && acting_->kind == Fault::Kind::kShortRange) {
    range.end = std::max(range.begin + 1, range.end - std::min(range.end, acting_->shift));
  }
  FakeAnswer answer = Plain(range.asked ? 206 : 200, content.substr(range.begin, range.end - range.begin),
                            {"Content-Type: application/octet-stream"});
  if (range.asked) {
    answer.headers.push_back("Content-Range: bytes " + std::to_string(range.begin) + "-" + std::to_string(range.end - 1) +
                             "/" + std::to_string(content.size()));
  }
  if (request.method != "GET") return answer;
  FlipBits(request.method, path, range.begin, answer.body);
  counts_.blob_bytes += answer.body.size();
  return answer;
}

FakeAnswer FakeRegistry::Impl::Upload(const FakeHttpRequest& request, const std::string& repository,
                                      const std::string& id) {
  if (request.method == "POST") {
    const std::string mount = QueryValue(request.target, "mount");
    auto source = blobs_.find(QueryValue(request.target, "from") + "@" + mount);
    if (!mount.empty() && allow_mount_ && source != blobs_.end()) {
      blobs_[repository + "@" + mount] = source->second;
      return Plain(201, "", {"Location: /v2/" + repository + "/blobs/" + mount});
    }
    std::string fresh = "upload-" + std::to_string(++serial_);
    uploads_[fresh] = {repository, ""};
    return Plain(202, "", {"Location: /v2/" + repository + "/blobs/uploads/" + fresh + "?_state=x", "Range: 0-0"});
  }
  auto found = uploads_.find(id);
  if (found == uploads_.end() || found->second.first != repository) return RegistryError(404, "BLOB_UPLOAD_UNKNOWN");
  found->second.second += request.body;
  if (request.method == "PUT") return FinishUpload(repository, id, QueryValue(request.target, "digest"));
  return Plain(202, "", {"Location: /v2/" + repository + "/blobs/uploads/" + id + "?_state=x",
                         "Range: 0-" + std::to_string(found->second.second.size() - 1)});
}

FakeAnswer FakeRegistry::Impl::FinishUpload(const std::string& repository, const std::string& id,
                                            const std::string& digest) {
  std::string content = std::move(uploads_[id].second);
  uploads_.erase(id);
  if (Digest::Of(content).ToString() != digest) return RegistryError(400, "DIGEST_INVALID");
  ++counts_.uploads;
  blobs_[repository + "@" + digest] = std::make_shared<const std::string>(std::move(content));
  return Plain(201, "", {"Location: /v2/" + repository + "/blobs/" + digest});
}

FakeRegistry::FakeRegistry() : impl_(std::make_unique<Impl>()) {
  std::lock_guard lock(impl_->mu_);
  impl_->api_host_ = "127.0.0.1:" + std::to_string(impl_->api_.port());
  impl_->cdn_host_ = "127.0.0.1:" + std::to_string(impl_->cdn_.port());
  impl_->realm_ = "http://" + impl_->api_host_ + "/token";
}

FakeRegistry::~FakeRegistry() {
  impl_->api_.Stop();
  impl_->cdn_.Stop();
}

std::string FakeRegistry::host() const { return "127.0.0.1:" + std::to_string(impl_->api_.port()); }
std::string FakeRegistry::cdn_host() const { return "127.0.0.1:" + std::to_string(impl_->cdn_.port()); }

Digest FakeRegistry::AddBlob(const std::string& repository, std::string content) {
  Digest digest = Digest::Of(content);
  AddBlobAs(repository, digest, std::move(content));
  return digest;
}

void FakeRegistry::AddBlobAs(const std::string& repository, const Digest& digest, std::string content) {
  std::lock_guard lock(impl_->mu_);
  impl_->blobs_[repository + "@" + digest.ToString()] = std::make_shared<const std::string>(std::move(content));
}

Digest FakeRegistry::AddManifest(const std::string& repository, const std::string& tag, std::string body,
                                 std::string media_type) {
  Digest digest = Digest::Of(body);
  std::lock_guard lock(impl_->mu_);
  if (!tag.empty()) impl_->manifests_[repository + ":" + tag] = {body, media_type};
  impl_->manifests_[repository + ":" + digest.ToString()] = {std::move(body), std::move(media_type)};
  return digest;
}

void FakeRegistry::RemoveBlob(const std::string& repository, const Digest& digest) {
  std::lock_guard lock(impl_->mu_);
  impl_->blobs_.erase(repository + "@" + digest.ToString());
}

std::optional<std::string> FakeRegistry::Blob(const std::string& repository, const Digest& digest) const {
  std::lock_guard lock(impl_->mu_);
  auto found = impl_->blobs_.find(repository + "@" + digest.ToString());
  if (found == impl_->blobs_.end()) return std::nullopt;
  return *found->second;
}

std::optional<std::string> FakeRegistry::Manifest(const std::string& repository, const std::string& tag_or_digest) const {
  std::lock_guard lock(impl_->mu_);
  auto found = impl_->manifests_.find(repository + ":" + tag_or_digest);
  if (found == impl_->manifests_.end()) return std::nullopt;
  return found->second.first;
}

void FakeRegistry::AddFault(Fault fault) {
  if (fault.kind == Fault::Kind::kHold || fault.kind == Fault::Kind::kStall) impl_->gate_.Close();
  std::lock_guard lock(impl_->mu_);
  impl_->faults_.push_back(std::move(fault));
}

void FakeRegistry::ClearFaults() {
  std::lock_guard lock(impl_->mu_);
  impl_->faults_.clear();
}

void FakeRegistry::Release() { impl_->gate_.Open(); }
size_t FakeRegistry::held() const { return impl_->gate_.waiting(); }
bool FakeRegistry::WaitForHeld(size_t n) const { return impl_->gate_.WaitForWaiting(n); }

void FakeRegistry::RefuseConnections() {
  impl_->api_.Stop();
  impl_->cdn_.Stop();
}

void FakeRegistry::AcceptConnections() {
  impl_->api_.Start();
  impl_->cdn_.Start();
}

void FakeRegistry::RequireToken(const std::string& user, const std::string& password) {
  std::lock_guard lock(impl_->mu_);
  impl_->auth_ = Impl::Auth::kToken;
  impl_->user_ = user;
  impl_->password_ = password;
}

void FakeRegistry::AcceptRefreshToken(const std::string& refresh_token) {
  std::lock_guard lock(impl_->mu_);
  impl_->refresh_token_ = refresh_token;
}

void FakeRegistry::RequireBasic(const std::string& user, const std::string& password) {
  std::lock_guard lock(impl_->mu_);
  impl_->auth_ = Impl::Auth::kBasic;
  impl_->user_ = user;
  impl_->password_ = password;
}

void FakeRegistry::ExpireTokens() {
  std::lock_guard lock(impl_->mu_);
  impl_->tokens_.clear();
}

void FakeRegistry::SetTokenLifetime(int seconds) {
  std::lock_guard lock(impl_->mu_);
  impl_->token_lifetime_ = seconds;
}

void FakeRegistry::SetRealm(const std::string& url) {
  std::lock_guard lock(impl_->mu_);
  impl_->realm_ = url;
}

void FakeRegistry::RedirectBlobs(bool on) {
  std::lock_guard lock(impl_->mu_);
  impl_->redirect_ = on;
}

void FakeRegistry::SetRedirectStatus(int status) {
  std::lock_guard lock(impl_->mu_);
  impl_->redirect_status_ = status;
}

void FakeRegistry::ExpireRedirects(int status) {
  std::lock_guard lock(impl_->mu_);
  ++impl_->redirect_epoch_;
  impl_->expired_status_ = status;
}

void FakeRegistry::AllowMount(bool on) {
  std::lock_guard lock(impl_->mu_);
  impl_->allow_mount_ = on;
}

FakeRegistry::Counts FakeRegistry::counts() const {
  uint64_t connections = impl_->api_.connections() + impl_->cdn_.connections();
  std::lock_guard lock(impl_->mu_);
  Counts counts = impl_->counts_;
  counts.connections = connections;
  return counts;
}

std::vector<FakeRegistry::Request> FakeRegistry::requests() const {
  std::lock_guard lock(impl_->mu_);
  return {impl_->requests_.begin(), impl_->requests_.end()};
}

}  // namespace headrace::test
