#include "fusefs/format/name.h"

#include <algorithm>
#include <cstdio>

#include "fusefs/format/limits.h"

namespace headrace::format {

std::string Quoted(std::string_view text) {
  constexpr size_t kShown = 200;
  std::string out = "'";
  for (char c : text.substr(0, kShown)) {
    if (c >= 0x20 && c < 0x7f) {
      out += c;
    } else {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += hex;
    }
  }
  return out + (text.size() > kShown ? "...'" : "'");
}

Result<std::string> CleanName(std::string_view name) {
  if (name.find('\0') != std::string_view::npos) {
    return InvalidArgumentError("name " + Quoted(name) + " has a NUL byte");
  }
  std::string out;
  out.reserve(name.size());
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    std::string_view part = name.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return InvalidArgumentError("name " + Quoted(name) + " has a '..' component");
    if (part.size() > limits::kComponentMax) {
      return InvalidArgumentError("name " + Quoted(name) + " has a component of " +
                                  std::to_string(part.size()) + " bytes");
    }
    if (!out.empty()) out += '/';
    out += part;
  }
  if (out.size() > limits::kNameMax) {
    return InvalidArgumentError("name " + Quoted(name) + " has " + std::to_string(out.size()) + " bytes");
  }
  return out;
}

}  // namespace headrace::format
