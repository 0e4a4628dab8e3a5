#include "fusefs/tree/layer_tree.h"

#include <algorithm>
#include <cstdio>

namespace headrace::tree {

const Child* LayerTree::Find(DirId dir, std::string_view name) const {
  std::span<const Child> all = children(dir);
  auto at = std::lower_bound(all.begin(), all.end(), name,
                             [](const Child& child, std::string_view wanted) { return child.name() < wanted; });
  return at != all.end() && at->name() == name ? &*at : nullptr;
}

std::string Printable(std::string_view text) {
  constexpr size_t kBytesMax = 300;
  std::string out = "\"";
  for (char c : text.substr(0, kBytesMax)) {
    if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
      out += c;
    } else {
      char hex[5];
      std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += hex;
    }
  }
  out += text.size() > kBytesMax ? "...\"" : "\"";
  return out;
}

}  // namespace headrace::tree
