#include "fusefs/registry/authenticator.h"

#include <algorithm>

#include "fusefs/base/text.h"
#include "fusefs/registry/http_answer.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

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
  TokenRequest(Authenticator& owner, std::string key, std::string where, std::string form, CredentialAnswer found)
      : owner_(owner), key_(std::move(key)), where_(std::move(where)), form_(std::move(form)), found_(std::move(found)) {}

  Flow OnHead(const HttpHead& head) override {
    status_ = head.status;
    retry_after_ = ParseRetryAfter(head).value_or(std::chrono::milliseconds(0));
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
    Result<AuthToken> token = Finish(status);
    if (token.ok()) return owner_.OnToken(key_, found_, "Bearer " + token->value, token->lifetime);
    if (refused_ && found_.credentials) return owner_.OnTokenRefused(key_, found_, token.status().Annotate(where_));
    owner_.FinishFlight(key_, token.status().Annotate(where_));
  }

 private:
  Result<AuthToken> Finish(const Status& status) {
    if (too_large_) return UnavailableError("its answer is larger than 1 MiB");
    if (!status.ok()) return status;
    if (status_ == 200) return ParseTokenAnswer(body_);
    const std::string http = "HTTP " + std::to_string(status_);
    if (status_ == 400 || status_ == 401 || status_ == 403) {
      refused_ = true;
      if (!found_.credentials && found_.temporary) return UnavailableError(http + ": " + found_.why_none);
      return UnauthenticatedError(http + ": " + (found_.credentials ? "the configured credentials were refused" : found_.why_none));
    }
    if (status_ == 429) return ResourceExhaustedError(http).WithRetryAfter(retry_after_);
    if (status_ >= 500) return UnavailableError(http).WithRetryAfter(retry_after_);
    return FailedPreconditionError(http);
  }

  Authenticator& owner_;
  const std::string key_, where_, form_;
  const CredentialAnswer found_;
  size_t sent_ = 0;
  int status_ = 0;
  std::chrono::milliseconds retry_after_{0};
  bool too_large_ = false;
  bool refused_ = false;
  std::string body_;
};

std::string Authenticator::Cached(const AuthTarget& target) {
  auto found = entries_.find(target.Key());
  if (found == entries_.end() || Clock::now() >= found->second.expiry) return "";
  return found->second.authorization;
}

Authenticator::Entry& Authenticator::EntryOf(const std::string& key) {
  if (entries_.size() >= kTokenCacheMax && !entries_.contains(key)) {
    const auto now = Clock::now();
    std::erase_if(entries_, [now](const auto& item) { return item.second.expiry <= now; });
    if (entries_.size() >= kTokenCacheMax) entries_.clear();  // costs one renewal each
  }
  return entries_[key];
}

void Authenticator::NoteRefusal(const std::string& key, const std::optional<Credentials>& refused) {
  Entry& entry = EntryOf(key);
  if (!refused) {
    entry.anonymous_refused = true;
    return;
  }
  std::erase_if(entry.refused, [&](const Refusal& other) { return other.credentials == *refused || other.until <= Clock::now(); });
  entry.refused.push_back({*refused, Clock::now() + kRefusedFor});
}

void Authenticator::Authorize(const AuthTarget& target, const std::vector<std::string>& challenges, const std::string& used,
                              Renewal why, Done done) {
  const std::string key = target.Key();
  if (std::string cached = Cached(target); !cached.empty() && cached != used) return done(cached);
  Entry& entry = EntryOf(key);
  const bool basic = used.starts_with("Basic ");
  const std::optional<Credentials> behind = entry.authorization == used ? entry.behind : std::nullopt;
  if (!used.empty() && entry.authorization == used && why != Renewal::kForbidden) {
    if (basic || why == Renewal::kFreshRefused) NoteRefusal(key, behind);
    entry.authorization.clear();
  }
  if (auto flight = flights_.find(key); flight != flights_.end()) {
    flight->second.waiting.push_back(std::move(done));
    return;
  }
  if (std::optional<AuthChallenge> challenge = ChooseChallenge(challenges)) entry.challenge = std::move(challenge);
  if (!entry.challenge) {
    return done(UnauthenticatedError("the registry names no way to authenticate that is known here (Basic, Bearer)"));
  }
  Flight& flight = flights_[key];
  flight.target = target;
  flight.challenge = *entry.challenge;
  flight.used = used;
  if (why == Renewal::kForbidden && basic && behind) flight.avoid.push_back(*behind);
  flight.waiting.push_back(std::move(done));
  AskChain(key);
}

void Authenticator::AskChain(const std::string& key) {
  Flight& flight = flights_[key];
  ++flight.tries;
  CredentialQuery query{flight.target.host, flight.target.repository, flight.avoid};
  Entry& entry = EntryOf(key);
  std::erase_if(entry.refused, [now = Clock::now()](const Refusal& refusal) { return refusal.until <= now; });
  for (const Refusal& refusal : entry.refused) query.refused.push_back(refusal.credentials);
  credentials_.Ask(std::move(query), [this, key](CredentialAnswer answer) {
    engine_.Post([this, key, found = std::move(answer)]() mutable { OnCredentials(key, std::move(found)); });
  });
}

void Authenticator::OnCredentials(const std::string& key, CredentialAnswer found) {
  auto flight = flights_.find(key);
  if (flight == flights_.end()) return;
  if (flight->second.challenge.scheme == AuthChallenge::Scheme::kBasic) return UseBasic(key, found);
  const Entry& entry = EntryOf(key);
  // Anybody's token is worth a try where there are no credentials, but not where there are wrong ones, and not twice.
  const bool no_way = !entry.refused.empty() || entry.anonymous_refused || !flight->second.avoid.empty();
  if (!found.credentials && no_way) {
    EntryOf(key).anonymous_refused = false;
    return FinishFlight(key, found.temporary ? UnavailableError(found.why_none) : UnauthenticatedError(found.why_none));
  }
  RequestToken(key, std::move(found));
}

void Authenticator::UseBasic(const std::string& key, const CredentialAnswer& found) {
  if (!found.credentials) {
    return FinishFlight(key, found.temporary ? UnavailableError(found.why_none) : UnauthenticatedError(found.why_none));
  }
  if (found.credentials->username.empty()) {
    NoteRefusal(key, found.credentials);
    if (flights_[key].tries < kAuthorizationsMax) return AskChain(key);
    return FinishFlight(key, UnauthenticatedError("the registry wants a user and password, the configured credentials are a token"));
  }
  std::string header = "Basic " + Base64Encode(found.credentials->username + ":" + found.credentials->password);
  Store(key, header, std::chrono::seconds(kTokenLifetimeMax), found.credentials);
  FinishFlight(key, header);
}

void Authenticator::RequestToken(const std::string& key, CredentialAnswer found) {
  const Flight& flight = flights_[key];
  std::string form;
  Result<HttpRequest> request = MakeTokenRequest(flight.target, flight.challenge, found, form);
  if (!request.ok()) return FinishFlight(key, request.status());
  std::string where = "token server " + CleanText(request->url.host, kErrorDetailBytesMax);
  engine_.Start(std::move(*request), std::make_shared<TokenRequest>(*this, key, where, form, std::move(found)));
}

void Authenticator::OnToken(const std::string& key, const CredentialAnswer& found, std::string authorization,
                            std::chrono::seconds lifetime) {
  Store(key, authorization, lifetime, found.credentials);
  FinishFlight(key, authorization);
}

void Authenticator::OnTokenRefused(const std::string& key, const CredentialAnswer& found, Status status) {
  NoteRefusal(key, found.credentials);
  auto flight = flights_.find(key);
  if (flight == flights_.end()) return;
  if (flight->second.tries >= kAuthorizationsMax) return FinishFlight(key, status);
  AskChain(key);
}

Result<HttpRequest> Authenticator::MakeTokenRequest(const AuthTarget& target, const AuthChallenge& challenge,
                                                    const CredentialAnswer& found, std::string& form) const {
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
  request.tls = target.tls;
  return request;
}

void Authenticator::Store(const std::string& key, std::string authorization, std::chrono::seconds lifetime,
                          const std::optional<Credentials>& behind) {
  Entry& entry = EntryOf(key);
  // A token that is about to expire would be refused on arrival.
  const auto margin = std::min(lifetime / 10, std::chrono::seconds(10));
  entry.authorization = std::move(authorization);
  entry.expiry = Clock::now() + lifetime - margin;
  entry.behind = behind;
  if (behind) entry.anonymous_refused = false;
}

void Authenticator::FinishFlight(const std::string& key, const Result<std::string>& result) {
  auto flight = flights_.find(key);
  if (flight == flights_.end()) return;
  std::vector<Done> waiting = std::move(flight->second.waiting);
  flights_.erase(flight);
  for (Done& done : waiting) done(result);
}

}  // namespace headrace::registry
