// Which images a pattern means, exactly as the kubelet decides it for matchImages and for the keys of a provider's answer.
//
// A pattern is "host[:port][/path]" without a scheme. Ports are equal, or absent from both; hosts have the same number of parts between dots,
// and each part of the pattern is a glob of one part (Go's path/filepath.Match: * ? [a-z] [^a-z] \x); the image's path begins with the
// pattern's path (by bytes, not by components). "*.io" does not match "a.b.io".
// Pure; bounded by the sizes of its arguments (globs go back over '*' only, no exponential cases).
#ifndef HEADRACE_FUSEFS_REGISTRY_IMAGE_MATCH_H_
#define HEADRACE_FUSEFS_REGISTRY_IMAGE_MATCH_H_

#include <string>
#include <string_view>

#include "fusefs/base/status.h"

namespace headrace::registry {

// A bad pattern is InvalidArgument ("[" without end, '\' at the end, an empty host).
Status CheckImagePattern(std::string_view pattern);
// False for bad patterns as well. `image` is "host/repository".
bool ImageMatches(std::string_view pattern, std::string_view image);
// Go's filepath.Match for one part of a name (no '/').
Result<bool> GlobMatches(std::string_view pattern, std::string_view text);

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_IMAGE_MATCH_H_
