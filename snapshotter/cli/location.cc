#include "snapshotter/cli/location.h"

#include <algorithm>
#include <cctype>

namespace headrace::cli {
namespace {

constexpr std::string_view kLayoutScheme = "oci:";
constexpr std::string_view kDigestStart = "@sha256:";
constexpr size_t kTagMax = 255;

bool IsTag(std::string_view text) {
  auto fits = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string_view("._-+").find(c) != std::string_view::npos;
  };
  return !text.empty() && text.size() <= kTagMax && std::all_of(text.begin(), text.end(), fits);
}

Result<LayoutLocation> ParseLayout(std::string_view text) {
  const std::string whole(text);
  LayoutLocation out;
  if (size_t at = text.rfind(kDigestStart); at != std::string_view::npos) {
    HR_ASSIGN_OR_RETURN(out.digest, Digest::Parse(text.substr(at + 1)));
    text = text.substr(0, at);
  }
  // A colon after the last slash starts the tag; elsewhere it belongs to the path.
  const size_t slash = text.rfind('/');
  const size_t colon = text.rfind(':');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash)) {
    out.tag = text.substr(colon + 1);
    text = text.substr(0, colon);
    if (!IsTag(out.tag)) {
      return InvalidArgumentError("oci:" + whole + ": '" + out.tag + "' is not a tag (letters, digits, . _ - +)");
    }
  }
  while (text.size() > 1 && text.back() == '/') text.remove_suffix(1);
  if (text.empty()) return InvalidArgumentError("oci:" + whole + ": no path; write oci:PATH[:TAG]");
  out.path = text;
  return out;
}

}  // namespace

Result<Location> Location::Parse(std::string_view text) {
  if (text.starts_with(kLayoutScheme)) {
    HR_ASSIGN_OR_RETURN(LayoutLocation layout, ParseLayout(text.substr(kLayoutScheme.size())));
    return Location{std::move(layout)};
  }
  HR_ASSIGN_OR_RETURN(registry::Reference reference, registry::Reference::Parse(text));
  return Location{std::move(reference)};
}

std::string Location::ToString() const {
  if (const registry::Reference* ref = reference()) return ref->ToString();
  const LayoutLocation* l = layout();
  const std::string tag = l->tag.empty() ? "" : ":" + l->tag;
  // A slash keeps apart what would be read as something else: a colon of the path's own as that of a tag, a path that ends like the start of a digest and its tag as a digest.
  const bool slash = tag.empty() ? l->path.find(':', l->path.rfind('/') + 1) != std::string::npos : l->path.ends_with(kDigestStart.substr(0, kDigestStart.size() - 1));
  return std::string(kLayoutScheme) + l->path + (slash ? "/" : "") + tag + (l->digest ? "@" + l->digest->ToString() : "");
}

}  // namespace headrace::cli
