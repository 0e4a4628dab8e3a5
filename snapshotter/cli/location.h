// Location: where an image is or goes, as written on the command line. A value; pure.
//   oci:PATH[:TAG][@DIGEST]    an OCI layout directory (image-spec image-layout.md)
//   anything else              a registry reference (fusefs/registry/reference.h)
#ifndef HEADRACE_SNAPSHOTTER_CLI_LOCATION_H_
#define HEADRACE_SNAPSHOTTER_CLI_LOCATION_H_

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"
#include "fusefs/registry/reference.h"

namespace headrace::cli {

struct LayoutLocation {
  std::string path;
  std::string tag;  // "" = the only image there (reading), "latest" (writing)
  std::optional<Digest> digest;
};

struct Location {
  std::variant<LayoutLocation, registry::Reference> where;

  static Result<Location> Parse(std::string_view text);
  std::string ToString() const;
  const LayoutLocation* layout() const { return std::get_if<LayoutLocation>(&where); }
  const registry::Reference* reference() const { return std::get_if<registry::Reference>(&where); }
};

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_LOCATION_H_
