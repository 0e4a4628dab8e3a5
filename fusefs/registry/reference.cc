#include "fusefs/registry/reference.h"

#include <algorithm>

#include "fusefs/base/text.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

constexpr char kDockerHub[] = "docker.io";
constexpr char kDockerHubLegacy[] = "index.docker.io";
constexpr char kDockerHubApi[] = "registry-1.docker.io";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsUpper(char c) { return c >= 'A' && c <= 'Z'; }
bool IsAlnum(char c) { return IsDigit(c) || IsLower(c) || IsUpper(c); }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

bool IsPort(std::string_view text) {
  if (text.empty() || text.size() > 5 || !std::all_of(text.begin(), text.end(), IsDigit)) return false;
  Result<uint64_t> port = ParseU64(text);
  return port.ok() && *port <= 65535;
}

bool IsHostLabel(std::string_view label) {
  return !label.empty() && IsAlnum(label.front()) && IsAlnum(label.back()) &&
         std::all_of(label.begin(), label.end(), [](char c) { return IsAlnum(c) || c == '-'; });
}

// domain [":" port], or "[" IPv6 "]" [":" port].
bool IsHost(std::string_view host) {
  if (!host.empty() && host.front() == '[') {
    size_t close = host.find(']');
    if (close == std::string_view::npos || close < 3) return false;
    std::string_view address = host.substr(1, close - 1);
    if (!std::all_of(address.begin(), address.end(), [](char c) { return IsHex(c) || c == ':'; })) return false;
    host.remove_prefix(close + 1);
    return host.empty() || (host.front() == ':' && IsPort(host.substr(1)));
  }
  size_t colon = host.find(':');
  if (colon != std::string_view::npos && !IsPort(host.substr(colon + 1))) return false;
  std::vector<std::string_view> labels = Split(host.substr(0, colon), '.');
  return std::all_of(labels.begin(), labels.end(), IsHostLabel);
}

// Lower-case letters and digits with single '.', one or two '_', or any number of '-' between them.
bool IsPathComponent(std::string_view text) {
  auto word = [](char c) { return IsLower(c) || IsDigit(c); };
  if (text.empty() || !word(text.front()) || !word(text.back())) return false;
  for (size_t i = 0; i < text.size();) {
    if (word(text[i])) {
      ++i;
      continue;
    }
    size_t run = 1;
    while (text[i + run] == text[i]) ++run;  // ends: the last character is a word
    if (!word(text[i + run])) return false;
    bool ok = text[i] == '-' || (text[i] == '.' && run == 1) || (text[i] == '_' && run <= 2);
    if (!ok) return false;
    i += run;
  }
  return true;
}

bool IsRepository(std::string_view text) {
  std::vector<std::string_view> parts = Split(text, '/');
  return std::all_of(parts.begin(), parts.end(), IsPathComponent);
}

bool IsTag(std::string_view text) {
  auto word = [](char c) { return IsAlnum(c) || c == '_'; };
  return !text.empty() && text.size() <= kTagBytesMax && word(text.front()) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return word(c) || c == '.' || c == '-'; });
}

bool LooksLikeHost(std::string_view first) {
  return first == "localhost" || first.find_first_of(".:[") != std::string_view::npos ||
         std::any_of(first.begin(), first.end(), IsUpper);
}

// What is shown of input in an error: bounded, and nothing that breaks a line.
std::string Shown(std::string_view text) {
  std::string out(text.substr(0, 100));
  std::replace_if(out.begin(), out.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return "'" + out + (text.size() > 100 ? "...'" : "'");
}

Status Bad(std::string_view text, std::string_view why) {
  return InvalidArgumentError("image reference " + Shown(text) + ": " + std::string(why) +
                              " (it is written [host[:port]/]repository[:tag][@sha256:digest])");
}

}  // namespace

Result<Reference> Reference::Parse(std::string_view text) {
  const std::string_view whole = text;
  if (text.empty() || text.size() > kReferenceBytesMax) return Bad(whole, text.empty() ? "is empty" : "is too long");
  Reference ref;
  if (size_t at = text.find('@'); at != std::string_view::npos) {
    Result<Digest> digest = Digest::Parse(text.substr(at + 1));
    if (!digest.ok()) return Bad(whole, "what follows '@' is not a sha256 digest");
    ref.digest = *digest;
    text = text.substr(0, at);
  }
  size_t slash = text.rfind('/');
  size_t colon = text.rfind(':');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash)) {
    if (!IsTag(text.substr(colon + 1))) return Bad(whole, "the tag is not valid");
    ref.tag = text.substr(colon + 1);
    text = text.substr(0, colon);
  }
  size_t first = text.find('/');
  if (first != std::string_view::npos && LooksLikeHost(text.substr(0, first))) {
    ref.host = text.substr(0, first);
    ref.repository = text.substr(first + 1);
  } else {
    ref.host = kDockerHub;
    ref.repository = text;
  }
  if (ref.host == kDockerHubLegacy) ref.host = kDockerHub;
  if (!IsHost(ref.host)) return Bad(whole, "the host is not valid");
  if (!IsRepository(ref.repository)) {
    return Bad(whole, "the repository is not valid (lower-case letters, digits, and '.', '_', '-', '/' between them)");
  }
  bool bare = first == std::string_view::npos;
  if (bare && text.size() == 64 && std::all_of(text.begin(), text.end(), IsHex)) {
    return Bad(whole, "64 hexadecimal digits are an image id, not a name");
  }
  if (ref.host == kDockerHub && ref.repository.find('/') == std::string::npos) ref.repository = "library/" + ref.repository;
  if (ref.host.size() + 1 + ref.repository.size() > kNameBytesMax) return Bad(whole, "the name is longer than 255 bytes");
  if (ref.tag.empty() && !ref.digest) ref.tag = "latest";
  return ref;
}

std::string Reference::ToString() const {
  std::string out = host + "/" + repository;
  if (!tag.empty()) out += ":" + tag;
  if (digest) out += "@" + digest->ToString();
  return out;
}

std::string Reference::api_host() const { return host == kDockerHub ? kDockerHubApi : host; }

std::string Reference::manifest_key() const { return digest ? digest->ToString() : tag; }

}  // namespace headrace::registry
