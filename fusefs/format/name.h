// Names of entries: what a tar or a table of contents says -> the clean form that LayerIndex promises.
#ifndef HEADRACE_FUSEFS_FORMAT_NAME_H_
#define HEADRACE_FUSEFS_FORMAT_NAME_H_

#include <string>
#include <string_view>

#include "fusefs/base/status.h"

namespace headrace::format {

// "./a//b/" and "/a/b" are "a/b"; "./" is "" (the root). InvalidArgument: a ".." component, a NUL byte, too long.
Result<std::string> CleanName(std::string_view name);

// For messages: bytes that are not printable ASCII are escaped, long text is cut.
std::string Quoted(std::string_view text);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_NAME_H_
