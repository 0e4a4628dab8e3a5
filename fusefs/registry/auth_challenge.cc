#include "fusefs/registry/auth_challenge.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

bool IsTokenChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~/:").find(c) != std::string_view::npos;
}

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}
  bool done() const { return text_.empty(); }
  void Skip(std::string_view chars) {
    while (!text_.empty() && chars.find(text_.front()) != std::string_view::npos) text_.remove_prefix(1);
  }
  void SkipOne() { text_.remove_prefix(1); }
  bool Take(char c) {
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  std::string Token() {
    size_t n = 0;
    while (n < text_.size() && IsTokenChar(text_[n])) ++n;
    std::string out(text_.substr(0, n));
    text_.remove_prefix(n);
    return out;
  }
  std::string Value() {
    if (!Take('"')) return Token();
    std::string out;
    while (!text_.empty() && text_.front() != '"') {
      if (text_.front() == '\\' && text_.size() > 1) text_.remove_prefix(1);
      out += text_.front();
      text_.remove_prefix(1);
    }
    Take('"');
    return out;
  }

 private:
  std::string_view text_;
};

std::string Lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

void SetParameter(AuthChallenge& challenge, const std::string& name, std::string value) {
  if (name == "realm") challenge.realm = std::move(value);
  if (name == "service") challenge.service = std::move(value);
  if (name == "scope") challenge.scope = std::move(value);
}

// Visible ASCII only: it becomes a header line.
bool IsToken(const std::string& text) {
  return !text.empty() && text.size() <= kTokenBytesMax &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace

std::vector<AuthChallenge> ParseChallenges(std::string_view header) {
  std::vector<AuthChallenge> out;
  Scanner in(header);
  bool known = false;  // the scheme that parameters now belong to
  for (in.Skip(" \t,"); !in.done(); in.Skip(" \t,")) {
    std::string word = Lower(in.Token());
    if (word.empty()) {
      in.SkipOne();
      continue;
    }
    in.Skip(" \t");
    if (in.Take('=')) {
      in.Skip(" \t");
      std::string value = in.Value();
      if (known) SetParameter(out.back(), word, std::move(value));
      continue;
    }
    known = word == "bearer" || word == "basic";
    if (known) out.push_back({word == "bearer" ? AuthChallenge::Scheme::kBearer : AuthChallenge::Scheme::kBasic, "", "", ""});
  }
  return out;
}

std::optional<AuthChallenge> ChooseChallenge(const std::vector<std::string>& headers) {
  std::optional<AuthChallenge> basic;
  for (const std::string& header : headers) {
    for (AuthChallenge& challenge : ParseChallenges(header)) {
      bool bearer = challenge.scheme == AuthChallenge::Scheme::kBearer;
      if (bearer && !challenge.realm.empty()) return challenge;
      if (!bearer && !basic) basic = std::move(challenge);
    }
  }
  return basic;
}

Result<AuthToken> ParseTokenAnswer(std::string_view body) {
  auto json = nlohmann::json::parse(body, nullptr, false);
  if (!json.is_object()) return UnavailableError("its answer is not a JSON object");
  AuthToken token;
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

}  // namespace headrace::registry
