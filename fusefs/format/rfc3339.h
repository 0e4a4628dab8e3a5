// Times as tables of contents have them (RFC 3339, as Go's time.Time writes and reads them). Pure functions.
#ifndef HEADRACE_FUSEFS_FORMAT_RFC3339_H_
#define HEADRACE_FUSEFS_FORMAT_RFC3339_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "fusefs/base/status.h"
#include "fusefs/format/tar_header.h"

namespace headrace::format {

// 0000-01-01T00:00:00Z .. 9999-12-31T23:59:59Z, all that the text can say.
inline constexpr int64_t kRfc3339Min = -62167219200;
inline constexpr int64_t kRfc3339Max = 253402300799;

// "2006-01-02T15:04:05.123Z". Times outside the range are moved to its edge.
std::string FormatRfc3339(TarTime time);
// Also with an offset ("+02:00").
Result<TarTime> ParseRfc3339(std::string_view text);

}  // namespace headrace::format

#endif  // HEADRACE_FUSEFS_FORMAT_RFC3339_H_
