#include "fusefs/registry/image_match.h"

#include <vector>

#include "fusefs/base/text.h"

namespace headrace::registry {
namespace {

constexpr size_t kPatternBytesMax = 1024;

struct Parts {
  std::vector<std::string_view> host;
  std::string_view port;
  std::string_view path;
};

Parts Cut(std::string_view text) {
  Parts out;
  const size_t slash = text.find('/');
  std::string_view host = text.substr(0, slash);
  if (slash != std::string_view::npos) out.path = text.substr(slash);
  // As net.SplitHostPort: a colon inside of brackets belongs to the address.
  const size_t colon = host.rfind(':');
  const size_t bracket = host.rfind(']');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    out.port = host.substr(colon + 1);
    host = host.substr(0, colon);
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  }
  out.host = Split(host, '.');
  return out;
}

// One character of a class or a pattern, '\' taken off; false if the pattern ends too early.
bool TakeCharacter(std::string_view& pattern, char& out) {
  if (!pattern.empty() && pattern.front() == '\\') pattern.remove_prefix(1);
  if (pattern.empty()) return false;
  out = pattern.front();
  pattern.remove_prefix(1);
  return true;
}

Status BadPattern() { return InvalidArgumentError("a bad pattern: '[' without ']', an empty class, or '\\' at the end"); }

// `pattern` begins behind '['; takes the class off it.
Result<bool> ClassMatches(std::string_view& pattern, char c) {
  const bool negated = pattern.starts_with('^');
  if (negated) pattern.remove_prefix(1);
  bool matched = false;
  for (bool first = true;; first = false) {
    if (pattern.starts_with(']') && !first) break;
    if (pattern.empty() || pattern.front() == '-' || pattern.front() == ']') return BadPattern();
    char low = 0;
    if (!TakeCharacter(pattern, low)) return BadPattern();
    char high = low;
    if (pattern.starts_with('-')) {
      pattern.remove_prefix(1);
      if (pattern.empty() || pattern.front() == '-' || pattern.front() == ']' || !TakeCharacter(pattern, high)) return BadPattern();
    }
    matched = matched || (low <= c && c <= high);
  }
  pattern.remove_prefix(1);
  return matched != negated;
}

// Takes one element that is not '*' off the pattern; whether `c` matches it.
Result<bool> ElementMatches(std::string_view& pattern, char c) {
  if (pattern.front() == '?') {
    pattern.remove_prefix(1);
    return c != '/';
  }
  if (pattern.front() == '[') {
    pattern.remove_prefix(1);
    return ClassMatches(pattern, c);
  }
  char literal = 0;
  if (!TakeCharacter(pattern, literal)) return BadPattern();
  return literal == c;
}

Status CheckGlob(std::string_view pattern) {
  while (!pattern.empty()) {
    if (pattern.front() == '*') {
      pattern.remove_prefix(1);
      continue;
    }
    Result<bool> element = ElementMatches(pattern, 'x');
    if (!element.ok()) return element.status();
  }
  return OkStatus();
}

}  // namespace

Result<bool> GlobMatches(std::string_view pattern, std::string_view text) {
  HR_RETURN_IF_ERROR(CheckGlob(pattern));
  // Where to go back to: behind the last '*', with one more character given to it.
  std::string_view star_pattern, star_text;
  bool star = false;
  while (!text.empty() || !pattern.empty()) {
    if (pattern.starts_with('*')) {
      pattern.remove_prefix(1);
      star = true;
      star_pattern = pattern;
      star_text = text;
      continue;
    }
    if (!pattern.empty() && !text.empty()) {
      std::string_view rest = pattern;
      HR_ASSIGN_OR_RETURN(const bool same, ElementMatches(rest, text.front()));
      if (same) {
        pattern = rest;
        text.remove_prefix(1);
        continue;
      }
    }
    if (!star || star_text.empty() || star_text.front() == '/') return false;
    star_text.remove_prefix(1);
    text = star_text;
    pattern = star_pattern;
  }
  return true;
}

Status CheckImagePattern(std::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) return InvalidArgumentError("a pattern of more than 1024 bytes");
  if (pattern.find("://") != std::string_view::npos) return InvalidArgumentError("a pattern has no scheme: leave \"https://\" out");
  const Parts parts = Cut(pattern);
  if (parts.host.empty() || parts.host.front().empty()) return InvalidArgumentError("a pattern without a host (write it like \"registry.example.com\" or \"*.example.com/team\")");
  for (std::string_view part : parts.host) HR_RETURN_IF_ERROR(CheckGlob(part));
  for (char c : parts.port) {
    if (c < '0' || c > '9') return InvalidArgumentError("the port of a pattern is a number; it cannot be a glob");
  }
  return OkStatus();
}

bool ImageMatches(std::string_view pattern, std::string_view image) {
  if (pattern.size() > kPatternBytesMax) return false;
  const Parts wanted = Cut(pattern), found = Cut(image);
  if (wanted.port != found.port || wanted.host.size() != found.host.size() || !found.path.starts_with(wanted.path)) return false;
  for (size_t i = 0; i < wanted.host.size(); ++i) {
    Result<bool> same = GlobMatches(wanted.host[i], found.host[i]);
    if (!same.ok() || !*same) return false;
  }
  return true;
}

}  // namespace headrace::registry
