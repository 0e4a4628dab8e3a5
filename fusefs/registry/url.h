// Url: the parts of an http(s) URL that the client must compare, and the helpers around them. Pure functions.
// Limits: kUrlBytesMax. A URL that carries a user name or password is refused: credentials come from the configuration only.
#ifndef HEADRACE_FUSEFS_REGISTRY_URL_H_
#define HEADRACE_FUSEFS_REGISTRY_URL_H_

#include <string>
#include <string_view>

#include "fusefs/base/status.h"

namespace headrace::registry {

struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case, with the port if one was written that is not the scheme's own
  std::string target;  // path and query, begins with '/'

  // Absolute URL. Errors show the host at most: paths and queries may hold secrets (presigned URLs).
  static Result<Url> Parse(std::string_view text);
  // What a Location header means in an answer to a request for `base` (RFC 3986 section 5): absolute, "//host/..", "/path",
  // "?query" or a relative path.
  static Result<Url> Resolve(const Url& base, std::string_view location);

  std::string origin() const { return scheme + "://" + host; }
  std::string ToString() const { return origin() + target; }
};

// Everything but unreserved characters as %XX.
std::string PercentEncode(std::string_view text);
// "host[:port]" is this machine: localhost, *.localhost, 127.0.0.0/8, [::1].
bool IsLoopbackHost(std::string_view host);
// Words of a server for our messages: printable ASCII only, bounded.
std::string CleanText(std::string_view text, size_t bytes_max);

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_URL_H_
