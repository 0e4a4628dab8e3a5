#include "fusefs/registry/url.h"

#include <algorithm>
#include <vector>

#include "fusefs/base/text.h"
#include "fusefs/registry/limits.h"

namespace headrace::registry {
namespace {

char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// A character that may stand in a URL as it is sent; also keeps line breaks out of request lines.
bool IsUrlChar(char c) { return c > ' ' && c <= '~' && c != '"' && c != '<' && c != '>' && c != '\\' && c != '^' && c != '`'; }

// Removes "." and ".." segments (RFC 3986 section 5.2.4) from a path that begins with '/'.
std::string RemoveDots(std::string_view path) {
  std::vector<std::string_view> out;
  std::vector<std::string_view> parts = Split(path.substr(1), '/');
  for (size_t i = 0; i < parts.size(); ++i) {
    bool last = i + 1 == parts.size();
    if (parts[i] == "..") {
      if (!out.empty()) out.pop_back();
      if (last) out.push_back("");
    } else if (parts[i] == ".") {
      if (last) out.push_back("");
    } else {
      out.push_back(parts[i]);
    }
  }
  std::string joined;
  for (std::string_view part : out) joined.append("/").append(part);
  return joined.empty() ? "/" : joined;
}

// "host", "host:port", "[address]:port": takes the port off that is the scheme's own, or none. False: there is no host, or its port is no number. Two URLs of one
// place must have one origin: credentials go by it.
bool NormalisePort(std::string& host, std::string_view default_port) {
  const size_t name_end = host.starts_with('[') ? host.find(']') : 0;
  if (name_end == std::string::npos) return false;
  const size_t colon = host.find(':', name_end);
  if (name_end > 0 && name_end + 1 != std::min(colon, host.size())) return false;
  if (colon == std::string::npos) return !host.empty();
  const std::string_view port = std::string_view(host).substr(colon + 1);
  if (port.size() > 5 || !std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; })) return false;
  if (port.empty() || port == default_port) host.resize(colon);
  return colon > 0;
}

}  // namespace

Result<Url> Url::Parse(std::string_view text) {
  if (text.size() > kUrlBytesMax) return InvalidArgumentError("a URL of " + std::to_string(text.size()) + " bytes is too long");
  if (!std::all_of(text.begin(), text.end(), IsUrlChar)) {
    return InvalidArgumentError("a URL has a character that does not belong there");
  }
  Url url;
  size_t colon = text.find("://");
  if (colon == std::string_view::npos || colon > 5) return InvalidArgumentError("not an http or https URL");
  for (char c : text.substr(0, colon)) url.scheme += ToLower(c);
  if (url.scheme != "http" && url.scheme != "https") return InvalidArgumentError("not an http or https URL");
  text.remove_prefix(colon + 3);
  text = text.substr(0, text.find('#'));
  size_t host_end = text.find_first_of("/?");
  std::string_view host = text.substr(0, host_end);
  if (host.find('@') != std::string_view::npos) return InvalidArgumentError("a URL with a user name in it is not accepted");
  for (char c : host) url.host += ToLower(c);
  if (!NormalisePort(url.host, url.scheme == "http" ? "80" : "443")) return InvalidArgumentError("a URL without a host, or whose port is no number");
  url.target = host_end == std::string_view::npos ? "/" : text.substr(host_end);
  if (url.target.front() == '?') url.target.insert(0, "/");
  return url;
}

Result<Url> Url::Resolve(const Url& base, std::string_view location) {
  if (location.empty()) return InvalidArgumentError("an empty Location");
  size_t colon = location.find(':');
  size_t delimiter = location.find_first_of("/?#");
  if (colon != std::string_view::npos && (delimiter == std::string_view::npos || colon < delimiter)) return Parse(location);
  if (location.starts_with("//")) return Parse(base.scheme + ":" + std::string(location));
  const std::string base_path = base.target.substr(0, base.target.find('?'));
  if (location.front() == '?') return Parse(base.origin() + base_path + std::string(location));
  std::string_view query = location.find('?') == std::string_view::npos ? "" : location.substr(location.find('?'));
  std::string path(location.substr(0, location.size() - query.size()));
  if (path.front() != '/') path = base_path.substr(0, base_path.rfind('/') + 1) + path;
  return Parse(base.origin() + RemoveDots(path) + std::string(query));
}

std::string PercentEncode(std::string_view text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (char c : text) {
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                 c == '_' || c == '~';
    if (plain) {
      out += c;
    } else {
      auto byte = static_cast<uint8_t>(c);
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return out;
}

bool IsLoopbackHost(std::string_view host) {
  if (host.starts_with("[::1]")) return host.size() == 5 || host[5] == ':';
  host = host.substr(0, host.find(':'));
  if (host == "localhost" || host.ends_with(".localhost")) return true;
  if (!host.starts_with("127.")) return false;
  std::vector<std::string_view> parts = Split(host, '.');
  return parts.size() == 4 && std::all_of(parts.begin(), parts.end(), [](std::string_view part) {
           Result<uint64_t> number = ParseU64(part);
           return number.ok() && *number <= 255;
         });
}

std::string CleanText(std::string_view text, size_t bytes_max) {
  std::string out;
  for (char c : text) {
    if (out.size() >= bytes_max) return out + "...";
    bool space = c == ' ' || c == '\n' || c == '\r' || c == '\t';
    if (space && (out.empty() || out.back() == ' ')) continue;
    out += space ? ' ' : (c < ' ' || c > '~' ? '?' : c);
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

}  // namespace headrace::registry
