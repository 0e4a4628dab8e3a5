#include "fusefs/registry/authenticator.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fusefs/base/text.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

using Clock = std::chrono::steady_clock;

struct Token {
  std::string value;
  std::chrono::seconds lifetime{};
};

// Visible ASCII only: it becomes a header line.
bool IsToken(const std::string& text) {
  return !text.empty() && text.size() <= kTokenBytesMax &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

Result<Token> ParseToken(const std::string& body) {
  auto json = nlohmann::json::parse(body, nullptr, false);
  if (!json.is_object()) return UnavailableError("its answer is not a JSON object");
  Token token;
  for (const char* name : {"token", "access_token"}) {
    auto found = json.find(name);
    if (token.value.empty() && found != json.end() && found->is_string()) token.value = found->get<std::string>();
  }
  if (!IsToken(token.value)) return UnavailableError("its answer has no usable token");
  token.lifetime = kTokenLifetimeDefault;
  auto expires = json.find("expires_in");
  if (expires != json.end() && expires->is_number_unsigned()) {
    uint64_t seconds = expires->get<uint64_t>();
    uint64_t most = static_cast<uint64_t>(std::chrono::seconds(kTokenLifetimeMax).count());
    token.lifetime = std::chrono::seconds(static_cast<int64_t>(std::min(seconds, most)));
  }
  return token;
}

std::vector<std::string> Scopes(const AuthTarget& target, const AuthChallenge& challenge) {
  std::vector<std::string> scopes;
  auto add = [&](std::string scope) {
    if (!scope.empty() && std::find(scopes.begin(), scopes.end(), scope) == scopes.end()) scopes.push_back(std::move(scope));
  };
  add("repository:" + target.repository + ":" + target.actions);
  if (!target.mount_from.empty()) add("repository:" + target.mount_from + ":pull");
  for (std::string_view scope : Split(challenge.scope, ' ')) {
    // "repository:x:pull" is part of "repository:x:pull,push".
    if (scope != "repository:" + target.repository + ":pull") add(std::string(scope));
  }
  return scopes;
}

}  // namespace

// One request to a token server.
class TokenRequest : public HttpHandler {
 public:
  TokenRequest(Authenticator& owner, std::string key, std::string where, std::string form, CredentialStore::Answer found)
      : owner_(owner), key_(std::move(key)), where_(std::move(where)), form_(std::move(form)), found_(std::move(found)) {}

  Flow OnHead(const HttpHead& head) override {
    status_ = head.status;
    return Flow::kContinue;
  }
  Flow OnBody(std::span<const uint8_t> data) override {
    if (body_.size() + data.size() > kTokenAnswerBytesMax) {
      too_large_ = true;
      return Flow::kStop;
    }
    body_.append(reinterpret_cast<const char*>(data.data()), data.size());
    return Flow::kContinue;
  }
  size_t OnSend(std::span<uint8_t> buffer) override {
    size_t n = std::min(buffer.size(), form_.size() - sent_);
    std::copy_n(form_.data() + sent_, n, reinterpret_cast<char*>(buffer.data()));
    sent_ += n;
    return n;
  }
  void OnDone(Status status) override {
    Result<Token> token = Finish(status);
    if (!token.ok()) return owner_.FinishFlight(key_, token.status().Annotate(where_));
    std::string authorization = "Bearer " + token->value;
    owner_.Store(key_, authorization, token->lifetime);
    owner_.FinishFlight(key_, authorization);
  }

 private:
  Result<Token> Finish(const Status& status) {
    if (too_large_) return UnavailableError("its answer is larger than 1 MiB");
    if (!status.ok()) return status;
    if (status_ == 200) return ParseToken(body_);
    const std::string http = "HTTP " + std::to_string(status_);
    if (status_ == 400 || status_ == 401 || status_ == 403) {
      return UnauthenticatedError(http + ": " + (found_.credentials ? "the configured credentials were refused" : found_.why_none));
    }
    if (status_ == 429) return ResourceExhaustedError(http);
    if (status_ >= 500) return UnavailableError(http);
    return FailedPreconditionError(http);
  }

  Authenticator& owner_;
  const std::string key_, where_, form_;
  const CredentialStore::Answer found_;
  size_t sent_ = 0;
  int status_ = 0;
  bool too_large_ = false;
  std::string body_;
};

std::string Authenticator::Cached(const AuthTarget& target) {
  auto found = cache_.find(target.Key());
  if (found == cache_.end()) return "";
  if (Clock::now() < found->second.expiry) return found->second.authorization;
  cache_.erase(found);
  return "";
}

void Authenticator::Authorize(const AuthTarget& target, const std::vector<std::string>& challenges, const std::string& used,
                              Done done) {
  const std::string key = target.Key();
  if (std::string cached = Cached(target); !cached.empty() && cached != used) return done(cached);
  cache_.erase(key);
  if (auto flight = flights_.find(key); flight != flights_.end()) {
    flight->second.push_back(std::move(done));
    return;
  }
  std::optional<AuthChallenge> challenge = ChooseChallenge(challenges);
  if (!challenge) {
    return done(UnauthenticatedError("the registry names no way to authenticate that is known here (Basic, Bearer)"));
  }
  if (challenge->scheme == AuthChallenge::Scheme::kBasic) {
    Result<std::string> header = BasicHeader(target, used);
    if (header.ok()) Store(key, *header, std::chrono::seconds(kTokenLifetimeMax));
    return done(std::move(header));
  }
  CredentialStore::Answer found = credentials_.Find(target.host);
  std::string form;
  Result<HttpRequest> request = MakeTokenRequest(target, *challenge, found, form);
  if (!request.ok()) return done(request.status());
  flights_[key].push_back(std::move(done));
  std::string where = "token server " + CleanText(request->url.host, kErrorDetailBytesMax);
  engine_.Start(std::move(*request), std::make_shared<TokenRequest>(*this, key, where, form, std::move(found)));
}

Result<std::string> Authenticator::BasicHeader(const AuthTarget& target, const std::string& used) {
  CredentialStore::Answer found = credentials_.Find(target.host);
  if (!found.credentials) return UnauthenticatedError(found.why_none);
  if (found.credentials->username.empty()) {
    return UnauthenticatedError("the registry wants a user and password, the configured credentials are a token");
  }
  std::string header = "Basic " + Base64Encode(found.credentials->username + ":" + found.credentials->password);
  if (header == used) return UnauthenticatedError("the configured credentials were refused");
  return header;
}

Result<HttpRequest> Authenticator::MakeTokenRequest(const AuthTarget& target, const AuthChallenge& challenge,
                                                    const CredentialStore::Answer& found, std::string& form) const {
  Result<Url> realm = Url::Parse(challenge.realm);
  if (!realm.ok()) return realm.status().Annotate("token server named by the registry");
  if (found.credentials && realm->scheme != "https" && !target.plain_http) {
    return FailedPreconditionError("the registry names a token server without TLS (" +
                                   CleanText(realm->host, kErrorDetailBytesMax) + "): credentials are not sent there");
  }
  std::string query = "service=" + PercentEncode(challenge.service);
  const bool refresh = found.credentials && !found.credentials->identity_token.empty();
  std::string joined;
  for (const std::string& scope : Scopes(target, challenge)) {
    if (refresh) joined += (joined.empty() ? "" : " ") + scope;
    else query += "&scope=" + PercentEncode(scope);
  }
  HttpRequest request;
  request.headers = {"Accept: application/json"};
  if (refresh) {
    form = "grant_type=refresh_token&" + query + "&client_id=headrace&scope=" + PercentEncode(joined) +
           "&refresh_token=" + PercentEncode(found.credentials->identity_token);
    request.method = "POST";
    request.upload_bytes = form.size();
    request.headers.push_back("Content-Type: application/x-www-form-urlencoded");
  } else {
    realm->target += (realm->target.find('?') == std::string::npos ? "?" : "&") + query;
    if (found.credentials) {
      request.headers.push_back("Authorization: Basic " +
                                Base64Encode(found.credentials->username + ":" + found.credentials->password));
    }
  }
  request.url = std::move(*realm);
  return request;
}

void Authenticator::Store(const std::string& key, std::string authorization, std::chrono::seconds lifetime) {
  if (cache_.size() >= kTokenCacheMax) {
    const auto now = Clock::now();
    std::erase_if(cache_, [now](const auto& item) { return item.second.expiry <= now; });
    if (cache_.size() >= kTokenCacheMax) cache_.clear();  // costs one token request each
  }
  // A token that is about to expire would be refused on arrival.
  const auto margin = std::min(lifetime / 10, std::chrono::seconds(10));
  cache_[key] = {std::move(authorization), Clock::now() + lifetime - margin};
}

void Authenticator::FinishFlight(const std::string& key, const Result<std::string>& result) {
  auto flight = flights_.find(key);
  if (flight == flights_.end()) return;
  std::vector<Done> waiting = std::move(flight->second);
  flights_.erase(flight);
  for (Done& done : waiting) done(result);
}

}  // namespace headrace::registry
