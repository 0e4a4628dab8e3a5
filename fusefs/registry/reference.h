// Reference: an image reference in the grammar of distribution/reference, normalised as docker and containerd do:
// "busybox" = docker.io/library/busybox:latest; the first component is a host if it has '.' or ':' or is "localhost".
// A value; pure.
#ifndef HEADRACE_FUSEFS_REGISTRY_REFERENCE_H_
#define HEADRACE_FUSEFS_REGISTRY_REFERENCE_H_

#include <optional>
#include <string>
#include <string_view>

#include "fusefs/base/digest.h"
#include "fusefs/base/status.h"

namespace headrace::registry {

struct Reference {
  std::string host;        // "127.0.0.1:5000", "docker.io"
  std::string repository;  // "library/busybox"
  std::string tag;         // "" if there is a digest and no tag was written
  std::optional<Digest> digest;

  static Result<Reference> Parse(std::string_view text);
  std::string ToString() const;      // normalised
  std::string api_host() const;      // docker.io -> registry-1.docker.io
  std::string manifest_key() const;  // digest if there, else tag
};

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_REFERENCE_H_
